"""What the SDK tells a user process by its environment: one class for the side that writes it and the side that reads.

An entry script may ask for a model, a dataset or its run on ten thousand processes at once, so whatever can be known at
submission is in the environment, and costs no look at a shared filesystem. Standard library only, for Python 3.7 too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mpi_prs.core.environ import EXPERIMENT, HERE, MODELS, NAMED_INPUTS, RUN_ID, WORKSPACE
from mpi_prs.core.errors import WorkspaceError


@dataclass(frozen=True)
class ScriptContext:
    """Where a user process belongs.

    Attributes:
        workspace: the workspace's folder, absolute.
        experiment: the experiment's name; empty outside a run.
        run_id: the step run's id; empty outside a run.
        models: name → latest version at submission, either the version or the path of the file or folder below the
            model's folder, such as ``3/content/mnist``, which saves each process reading which it is.
        named_inputs: name of an input → what the script is told of it, a JSON value.
    """

    workspace: str
    experiment: str = ""
    run_id: str = ""
    models: Mapping[str, int | str] = field(default_factory=dict)
    named_inputs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ScriptContext | None:
        """From the environment of a process; ``None``: it belongs to no workspace.

        Raises:
            WorkspaceError: a variable does not hold what it should.
        """
        workspace = WORKSPACE.of(environ)
        if not workspace:
            return None
        return cls(
            workspace=workspace,
            experiment=EXPERIMENT.of(environ) or "",
            run_id=RUN_ID.of(environ) or "",
            models=_models(MODELS.of(environ) or ""),
            named_inputs=_object(NAMED_INPUTS.name, NAMED_INPUTS.of(environ) or ""),
        )

    def variables(self) -> dict[str, str]:
        """The environment variables that :meth:`of` reads; what is empty has none."""
        values = {
            WORKSPACE.name: self.workspace,
            EXPERIMENT.name: self.experiment,
            RUN_ID.name: self.run_id,
            MODELS.name: _compact(self.models) if self.models else "",
            NAMED_INPUTS.name: _compact(self.named_inputs) if self.named_inputs else "",
        }
        return {name: value for name, value in values.items() if value}


def script_context() -> ScriptContext | None:
    """The context of this process; ``None``: it has none. Parsed once, unless it changes. Raises WorkspaceError."""
    return _context(tuple(HERE.get(name, "") for name in _NAMES))


_NAMES = tuple(variable.name for variable in (WORKSPACE, EXPERIMENT, RUN_ID, MODELS, NAMED_INPUTS))


@lru_cache(maxsize=1)
def _context(values: tuple[str, ...]) -> ScriptContext | None:
    return ScriptContext.of(dict(zip(_NAMES, values)))  # noqa: B905  # strict is not known to Python 3.7


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise WorkspaceError(
            f"the environment variable {name} does not hold JSON: {error}. Is it set by hand?"
        ) from None
    if not isinstance(found, dict):
        raise WorkspaceError(f"the environment variable {name} does not hold a JSON object {{…}}. Is it set by hand?")
    return found


def _models(text: str) -> dict[str, int | str]:
    found = _object(MODELS.name, text)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise WorkspaceError(
                f"the environment variable {MODELS.name} has {value!r} for the model {name!r}, and should have a "
                "version. Is it set by hand?"
            )
    return found
