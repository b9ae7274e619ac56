"""Pipeline: steps, in the order that their inputs and outputs give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpi_prs.pipeline.parallel_run_step import ParallelRunStep


class Pipeline:
    """Steps that are submitted together."""

    def __init__(
        self,
        workspace: Any,
        steps: Sequence[Any],
        description: str | None = None,
        default_datastore: Any = None,
        default_source_directory: str | None = None,
        resolve_closure: bool = True,
        **kwargs: Any,
    ) -> None:
        self.workspace = workspace
        self.steps = steps
        self.description = description
        self.default_datastore = default_datastore
        self.default_source_directory = default_source_directory

    def steps_in_order(self) -> list[ParallelRunStep]:
        """All steps, each after those that it needs."""
        raise NotImplementedError

    def needs(self, step: ParallelRunStep) -> list[ParallelRunStep]:
        """The steps that must have completed before this one may start, in order."""
        raise NotImplementedError

    def values(self, pipeline_parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Pipeline parameter name → value, defaults filled in. Raises PipelineError."""
        raise NotImplementedError

    def validate(self) -> list[str]:
        """What is wrong with the pipeline, a text each; nothing: it may be submitted."""
        raise NotImplementedError
