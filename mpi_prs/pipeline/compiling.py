"""A step, the values of this submission and a place to run in become one job config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.pipeline.data import PipelineData
from mpi_prs.pipeline.parallel_run_step import ParallelRunStep


@dataclass(frozen=True)
class StepPlace:
    """Where one run of a step happens.

    Attributes:
        run_id: of the step run.
        experiment: its name.
        workspace: the Workspace.
        output: the job's output folder.
        output_url: where the output file goes when it is complete; ``None``: it stays in ``output``.
        output_storage: the job's ``storage`` section, for ``output_url``.
        source_directory: the snapshot of the step's ``source().folder``.
        upstream: output of an earlier step → its folder or URL.
        upstream_storage: output of an earlier step → how to get at its URL.
        interpreter: of the user processes; ``None``: the one at hand.
        environment_variables: of the user processes, from the environment.
    """

    run_id: str
    experiment: str
    workspace: Any
    output: Path
    source_directory: Path
    output_url: str | None = None
    output_storage: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[PipelineData, str] = field(default_factory=dict)
    upstream_storage: Mapping[PipelineData, Mapping[str, Any]] = field(default_factory=dict)
    interpreter: str | None = None
    environment_variables: Mapping[str, str] = field(default_factory=dict)


def compile_step(step: ParallelRunStep, values: Mapping[str, Any], place: StepPlace) -> dict[str, Any]:
    """The job config of one run of a step: JSON values, absolute paths.

    Args:
        step: the step.
        values: pipeline parameter name → value, as of ``Pipeline.values``.
        place: where it runs.

    Raises:
        PipelineError: a value does not fit what it is used for.
        WorkspaceError: what the step names is not in the workspace.
    """
    raise NotImplementedError
