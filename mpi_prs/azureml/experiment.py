"""``Experiment``: a name under which runs are kept together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.definition.pipeline import Pipeline
from mpi_prs.azureml.runs.run import PipelineRun, Run
from mpi_prs.azureml.submit.planning import Request
from mpi_prs.azureml.submit.submission import submit
from mpi_prs.child.context import run as context
from mpi_prs.child.context.run_record import OWN, RunRecord, new_id, run_ids, utc_now, write_record
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.child.context.workspace_paths import AnyWorkspace, layout_of
from mpi_prs.core.azure_names import Registered
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.records import names_of

_ONLY_PIPELINES = (
    "mpi_prs runs pipelines of ParallelRunSteps: Experiment.submit takes a Pipeline, but got {kind}. Put the work into "
    "a function run(mini_batch), and make a Pipeline of it"
)
_IGNORED = frozenset(["credential_passthrough", "parent_run_id", "_workflow_provider", "_service_endpoint"])


class Experiment(context.Experiment):
    """The runs of one name in a workspace.

    Attributes:
        workspace: the workspace.
        name: of the experiment.
    """

    # Running

    def submit(self, config: Any, tags: Mapping[str, str] | None = None, **kwargs: Any) -> Any:
        """Submit a pipeline.

        Args:
            config: a Pipeline, or a list of steps, or a step.
            tags: of the run.
            kwargs: ``pipeline_parameters``: pipeline parameter → value for this run; ``regenerate_outputs``: run every
                step, whatever could be reused; ``display_name``: of the run; ``show_output``: print what is decided
                (default). Also ``continue_on_step_failure``: steps that do not need a failed one run in any case.
                ``credential_passthrough`` and ``parent_run_id`` mean nothing here.

        Returns:
            the PipelineRun, which goes on by itself: this process may end.

        Raises:
            PipelineError, WorkspaceError, ConfigError, ScriptError, InputError, SlurmError: something is wrong with
                what is to be run. Nothing has been started.
        """

        known = {"pipeline_parameters", "regenerate_outputs", "display_name", "show_output", "continue_on_step_failure"}
        for name in kwargs:
            if name not in known and name not in _IGNORED:
                raise PipelineError(
                    f"Experiment.submit: there is no parameter {name!r}; there are {', '.join(sorted(known))}"
                )
        request = Request(
            pipeline=self._pipeline(config),
            experiment=self.name,
            parameters=kwargs.get("pipeline_parameters") or {},
            tags=text_pairs("tags", tags),
            regenerate=bool(kwargs.get("regenerate_outputs")),
            display_name=str(kwargs.get("display_name") or ""),
        )
        say = print if kwargs.get("show_output", True) else _nothing
        record = submit(request, say)
        say(f"submitted the pipeline run {record.id} of the experiment {self.name}")
        return PipelineRun(self, record.id)

    def _pipeline(self, config: Any) -> Any:

        if isinstance(config, ParallelRunStep):
            config = [config]
        if isinstance(config, (list, tuple)):
            return Pipeline(workspace=self.workspace, steps=config)
        if not isinstance(config, Pipeline):
            raise PipelineError(_ONLY_PIPELINES.format(kind=type(config).__name__))
        if config.workspace != self.workspace:
            raise PipelineError(
                f"the pipeline belongs to the workspace {config.workspace.folder}, and the experiment {self.name!r} to "
                f"{self.workspace.folder}; make both with the same Workspace"
            )
        return config

    def start_logging(self, *_: Any, display_name: str | None = None, **azure: Any) -> Run:
        """A run of one's own, for metrics and files that belong to no job; end it by ``complete()`` or ``fail()``.

        Args:
            display_name: of the run.
            azure: ``outputs`` and ``snapshot_directory`` mean nothing here.
        """
        del azure

        record = RunRecord(
            new_id(utc_now()), self.name, OWN, display_name or "", utc_now().isoformat(timespec="milliseconds")
        )
        write_record(self.workspace.layout, record)
        return Run(self, record.id)

    # Those that there are

    def get_runs(
        self,
        type: str | None = None,
        tags: Any = None,
        properties: Any = None,
        include_children: bool = False,
    ) -> Iterator[Any]:
        """The runs, latest first.

        Args:
            type: such as ``azureml.PipelineRun``; default: all.
            tags, properties: a key, keys and pairs, or a dict of pairs that they have.
            include_children: also those that are a part of another, such as step runs.
        """

        yield from Run.list(self, type, tags, properties, include_children=include_children)

    @staticmethod
    def list(
        workspace: AnyWorkspace, experiment_name: str | None = None, view_type: object = None, tags: object = None
    ) -> list[Experiment]:
        """The experiments of a workspace, sorted by name.

        Args:
            workspace: where.
            experiment_name: that one alone; default: all.
            view_type, tags: mean nothing here.
        """
        del view_type, tags
        names: Sequence[str] = names_of(layout_of(workspace).experiments)
        return [Experiment(workspace, name) for name in names if experiment_name in (None, name)]

    def get_details(self) -> dict[str, Any]:
        """Its name, folder, and the number of its runs."""
        return {"name": self.name, "folder": str(self.folder), "runs": len(run_ids(self.workspace.layout, self.name))}

    def get_portal_url(self) -> str:
        """The folder of its runs."""
        return str(self.folder)


def experiments_of(workspace: AnyWorkspace) -> Mapping[str, Experiment]:
    """Name → experiment, of all in a workspace; an unknown name is an error that names the near ones."""
    layout = workspace.layout

    def find(name: str) -> Experiment | None:
        return Experiment(workspace, name) if name in names_of(layout.experiments) else None

    return Registered("experiment", lambda: names_of(layout.experiments), find)


def _nothing(_text: str) -> None:
    pass
