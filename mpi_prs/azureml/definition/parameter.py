"""PipelineParameter: a value of a pipeline that each submission may set anew."""

from __future__ import annotations

import re
from typing import Any

from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
from mpi_prs.azureml.datastores.datastore import DataPath
from mpi_prs.core import values
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import PipelineError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NUMBERS = {"a whole number": values.whole_number(-values.HUGE, values.HUGE), "a number": values.number}
_TRUTH = {"true": True, "false": False}


class PipelineParameter(Surface):
    """A value with a name and a default, that ``pipeline_parameters={name: value}`` replaces at submission.

    >>> ParallelRunConfig(mini_batch_size=PipelineParameter(name="batch_size_param", default_value="5"), ...)
    >>> experiment.submit(pipeline, pipeline_parameters={"batch_size_param": "1"})

    Attributes:
        name: the key in ``pipeline_parameters``.
        default_value: text, a number, a truth value, a dataset or a ``DataPath``; it says what kind of value is taken.
    """

    def __init__(self, name: str, default_value: Any) -> None:
        """See the class.

        Raises:
            PipelineError: no such name, or nothing that can be a default.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PipelineError(
                f"the name of a PipelineParameter is made of letters, digits, _, - and ., a letter or _ first, but got "
                f"{name!r}"
            )
        self.name = name
        self.default_value = default_value
        if self.kind is None:
            raise PipelineError(
                f"PipelineParameter {name!r}: the default value is a text, a number, True or False, a dataset or a "
                f"DataPath, but got {_shown(default_value)}"
                + (": give a list as JSON text, json.dumps([...])" if isinstance(default_value, (list, tuple)) else "")
            )
        self.default_value = self.checked(default_value)

    def __repr__(self) -> str:
        return f"PipelineParameter(name={self.name!r}, default_value={self.default_value!r})"

    @property
    def kind(self) -> str | None:
        """What it takes, in words; ``None``: the default is nothing that it could take."""
        return _kind(self.default_value)

    def checked(self, value: Any) -> Any:
        """``value``, if it is of the default's kind: numbers and truth values may come as text, as over Azure's wire.

        Raises:
            PipelineError: it is something else.
        """
        kind = self.kind
        try:
            return _convert(value, kind)
        except ValueError as error:
            raise PipelineError(
                f"PipelineParameter {self.name!r} takes {kind}, as its default {_shown(self.default_value)}, but got "
                f"{_shown(value)}{f': {error}' if str(error) else ''}"
            ) from None

    def is_same(self, other: PipelineParameter) -> bool:
        """Whether both may stand for one value of a pipeline: they have the same name and default."""
        mine, theirs = self.default_value, other.default_value
        if self.name != other.name or self.kind != other.kind:
            return False
        return mine is theirs or _comparable(mine) == _comparable(theirs)


def _kind(value: Any) -> str | None:
    kinds: list[tuple[type, str]] = [
        (bool, "True or False"),  # before int, which it is to Python
        (str, "a text"),
        (int, "a whole number"),
        (float, "a number"),
        (FileDataset, "a FileDataset"),
        (TabularDataset, "a TabularDataset"),
        (DataPath, "a DataPath"),
    ]
    return next((name for type_, name in kinds if isinstance(value, type_)), None)


def _convert(value: Any, kind: str | None) -> Any:
    """Raises ValueError; its text, where it has one, says more than that the kind is wrong."""
    if kind == "a text":
        if isinstance(value, (bool, int, float)):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError
        if "\n" in value or "\r" in value or "\0" in value:
            raise ValueError("a parameter is a single line")
        return value
    if kind == "True or False" and isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    if kind in _NUMBERS:
        try:
            return _NUMBERS[kind](value)
        except values.WrongValue:
            raise ValueError from None  # its kind says all
    if _kind(value) != kind:
        raise ValueError
    return value


def _comparable(value: Any) -> Any:
    definition = getattr(value, "definition", None)
    return definition() if callable(definition) else value


def _shown(value: Any) -> str:
    if value is None or isinstance(value, (str, bool, int, float)):
        return repr(value)
    name = getattr(value, "name", None)
    return f"a {type(value).__name__}{f' {name!r}' if isinstance(name, str) else ''}"
