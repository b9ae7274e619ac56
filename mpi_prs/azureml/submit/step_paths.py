"""Where one run of a step happens, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mpi_prs.child.context.workspace import Workspace


@dataclass(frozen=True)
class StepPaths:
    """Where one run of a step happens.

    Attributes:
        run_id: of the step run.
        experiment: its name.
        workspace: the Workspace.
        output: the job's output folder.
        source_directory: the snapshot of the step's ``source().folder``.
        output_url: where the output file goes when it is complete; ``None``: it stays in ``output``.
        output_storage: the job's ``storage`` section, for ``output_url``.
        upstream: output of an earlier step → its folder or URL.
        upstream_storage: output of an earlier step → how to get at its URL.
        interpreter: of the user processes; ``None``: the one at hand.
        environment_variables: of the user processes, from the environment.
        script: the entry script in the snapshot, relative to it; ``None``: as the step's ``source()`` says, which must
            be given where the pipeline has a ``default_source_directory``.
    """

    run_id: str
    experiment: str
    workspace: Workspace
    output: Path
    source_directory: Path
    output_url: str | None = None
    output_storage: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[Any, str] = field(default_factory=dict)
    upstream_storage: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)
    interpreter: str | None = None
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    script: str | PurePosixPath | None = None
