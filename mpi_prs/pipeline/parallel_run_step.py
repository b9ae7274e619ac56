"""ParallelRunStep: a step of a pipeline that runs an entry script over its inputs, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mpi_prs.pipeline.data import PipelineData
from mpi_prs.pipeline.parallel_run_config import ParallelRunConfig


@dataclass(frozen=True)
class Source:
    """The user's code.

    Attributes:
        folder: what the snapshot is made of.
        script: the entry script, relative to it.
    """

    folder: Path
    script: PurePosixPath


class ParallelRunStep:
    """One step.

    Attributes:
        name: of the step.
        config: its :class:`ParallelRunConfig`.
        outputs: the output, or nothing; an ``OutputFileDatasetConfig`` counts as well.
        allow_reuse: whether an earlier output for the same may be used.
        earlier: the steps named by :meth:`run_after`.
    """

    def __init__(
        self,
        name: str,
        parallel_run_config: ParallelRunConfig,
        inputs: Sequence[Any],
        output: Any = None,
        side_inputs: Sequence[Any] | None = None,
        arguments: Sequence[Any] | None = None,
        allow_reuse: bool = True,
        models: Sequence[Any] | None = None,
        tags: dict[str, str] | None = None,
        properties: dict[str, str] | None = None,
        add_parallel_run_step_dependencies: bool = True,
    ) -> None:
        self.name = name
        self.config = parallel_run_config
        self.inputs = list(inputs)
        self.side_inputs = list(side_inputs or ())
        self.arguments = list(arguments or ())
        self.allow_reuse = allow_reuse
        self.outputs: list[PipelineData] = [] if output is None else [output]
        self.earlier: list[ParallelRunStep] = []

    def run_after(self, step: ParallelRunStep) -> None:
        """This step starts only when ``step`` has completed, though it needs none of its outputs."""
        self.earlier.append(step)

    def upstream(self) -> set[PipelineData]:
        """The outputs of other steps that this one reads."""
        raise NotImplementedError

    def source(self, default_source_directory: str | None = None) -> Source:
        """The folder with the code and the script in it. Raises PipelineError where they are not there."""
        raise NotImplementedError
