"""``StepRun``: the run of one step of a pipeline. Standard library only at the top, Python 3.7."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Iterator, Mapping  # noqa: UP035  # Python 3.7

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.runs.logs import CONSOLE, logs_of
from mpi_prs.azureml.runs.outputs import PortDataReference, StepRunOutput, output_of
from mpi_prs.azureml.runs.run_base import Run
from mpi_prs.child.context.run_record import StepPart
from mpi_prs.child.context.script_context import script_context
from mpi_prs.core.errors import PipelineError, WorkspaceError
from mpi_prs.core.own_python import own_python
from mpi_prs.core.words import near

if TYPE_CHECKING:
    from mpi_prs.azureml.backends.run_status import PipelineLook, StepLook
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch
    from mpi_prs.core.run_directory import RunDirectory


class StepRun(Run):
    """The run of a step; in entry scripts ``Run.get_context()`` is it."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "get_port_data_references": "use get_outputs()",
        "get_outputs_preview": "use get_output_data(NAME).download(FOLDER)",
    }

    def __init__(
        self,
        experiment: Experiment,
        step_run_id: str,
        pipeline_run_id: str | None = None,
        node_id: object = None,
        _service_endpoint: object = None,
        **kwargs: object,
    ) -> None:
        """The step run of an id.

        Args:
            experiment: that it belongs to.
            step_run_id: its id.
            pipeline_run_id: of the pipeline run; it is known from the step run.
            node_id, kwargs: Azure's own; ignored.

        Raises:
            WorkspaceError: there is no such run.
        """
        del node_id, _service_endpoint
        super().__init__(experiment, step_run_id, **kwargs)
        if pipeline_run_id not in (None, self._record.parent):
            raise WorkspaceError(f"the step run {step_run_id} is no part of the run {pipeline_run_id}")
        self._pipeline_watch: PipelineWatch | None = None

    # Where it stands

    @property
    def _part(self) -> StepPart:
        part = self._record.step
        if part is None:
            raise PipelineError(f"the run {self.id} is not that of a step, but {self._record.kind}")
        return part

    def _pipeline_look(self) -> PipelineLook:
        """The look at the pipeline as if this were its only step: where it stands shows in the whole."""
        from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch

        if self._pipeline_watch is None:
            assert self._record.parent is not None
            self._pipeline_watch = PipelineWatch(self._layout, self.experiment.name, self._record.parent)
        return self._pipeline_watch.look().of_step(self.id)

    def _look(self) -> StepLook:
        return self._pipeline_look().steps[0]

    def _state(self) -> str:
        return self._look().standing.state

    def get_status(self) -> str:
        """``NotStarted``, ``Queued``, ``Preparing``, ``Running``, ``CancelRequested``, ``Finished``, ``Failed`` or
        ``Canceled``."""
        return states.finished(self._state())

    @property
    def is_reused(self) -> bool:
        """Whether the output of an earlier run is used. Not one of Azure's names."""
        return self._part.reused is not None

    @property
    def reused_from(self) -> StepRun | None:
        """The run whose output is used; ``None``: it has run itself. Not one of Azure's names."""
        from mpi_prs.azureml.experiment import Experiment

        reused = self._part.reused
        if reused is None:
            return None
        return StepRun(Experiment(self.experiment.workspace, reused.experiment), reused.run_id)

    def _own_properties(self) -> dict[str, str]:
        part = self._part
        own = {"azureml.runsource": "azureml.StepRun", "azureml.moduleName": self._record.name}
        if self._record.parent:
            own["azureml.pipelinerunid"] = self._record.parent
        own["snapshot"] = part.snapshot
        if part.reused is not None:
            own.update({"azureml.isreused": "true", "azureml.reusedrunid": part.reused.run_id})
        return own

    def _target(self) -> str:
        return self._part.compute

    def _times(self) -> tuple[str | None, str | None]:
        from mpi_prs.monitor.status import read_status

        status = read_status(self._directory().status)
        if status is None or self.is_reused:
            return None, None
        return status.started, None if status.under_way else status.updated

    def _problem(self) -> str:
        look = self._look()
        return self._failure_text(look) if look.standing.state == states.FAILED else ""

    @own_python("why a step has failed")
    def _failure_text(self, look: StepLook) -> str:
        from mpi_prs.azureml.runs.failure_text import failure_text

        return failure_text(look, self._logs())

    # Outputs

    def get_outputs(self) -> dict[str, StepRunOutput]:
        """Name → output."""
        return {name: StepRunOutput(self, name, output) for name, output in self._part.outputs.items()}

    def get_output(self, name: str) -> StepRunOutput:
        """The output of a name. Raises PipelineError: there is none."""
        return StepRunOutput(self, *self._output(name))

    def get_output_data(self, name: str) -> PortDataReference:
        """The data of an output, by the name of its PipelineData; of a reused step that of the earlier run.

        Raises:
            PipelineError: there is none; names near ones.
        """
        return PortDataReference(self, *self._output(name))

    def _output(self, name: str) -> Any:
        found = output_of(self._part.outputs, name)
        if found is None:
            known = self._part.outputs
            raise PipelineError(f"the step {self._record.name!r} has no output {name!r}{near(str(name), known)}")
        return found

    @property
    def input_datasets(self) -> Mapping[str, Any]:
        """In the entry script: the inputs and side inputs, by name. What is a path on this node is that path, what is
        not is a dataset."""
        return _InputDatasets(self.experiment)

    # Logs

    def _directory(self) -> RunDirectory:
        from mpi_prs.core.run_directory import RunDirectory

        return RunDirectory(Path(self._part.folder))

    def _logs(self) -> dict[str, Path]:
        return logs_of(self._layout, self._record)

    def get_stdout_log(self) -> str:
        """What the user processes have printed, one after the other."""
        return self._joined("logs/user/stdout/")

    def get_stderr_log(self) -> str:
        """What the user processes have printed to stderr."""
        return self._joined("logs/user/stderr/")

    def get_job_log(self, dump_to_file: str | None = None) -> str:
        """What the launcher and the ranks have printed; also into a file."""
        text = self._joined(CONSOLE)
        if dump_to_file:
            Path(dump_to_file).write_text(text, "utf-8")
        return text

    def _joined(self, prefix: str) -> str:
        texts = [
            path.read_text("utf-8", "replace") for name, path in sorted(self._logs().items()) if name.startswith(prefix)
        ]
        return "".join(texts)

    # Its life

    def complete(self, _set_status: object = True) -> None:
        """Nothing: a step has completed when all of its mini-batches are done."""

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        """Note why the script thinks that the step has failed. Whether it has, is decided by its mini-batches: raise an
        exception in ``run()`` for those that fail."""
        super().fail(error_details, error_code)

    def cancel(self) -> None:
        """Have the step stopped, in the queue or at work; steps that need it do not run. What is finished is kept.

        Raises:
            SlurmError: Slurm does not do it.
        """
        from mpi_prs.azureml.backends.cancelling import cancel_steps

        cancel_steps(self._layout, self.experiment.name, str(self._record.parent), only=self.id)

    @own_python("StepRun.wait_for_completion()")
    def wait_for_completion(  # type: ignore[override]  # Azure's own order, which is not that of Run
        self, show_output: bool = True, timeout_seconds: float = float("inf"), raise_on_error: bool = True
    ) -> str:
        """Wait until it is over; returns its status.

        Args:
            show_output: print how it goes.
            timeout_seconds: wait no longer.
            raise_on_error: otherwise its failure is printed.

        Raises:
            RunFailed: it has failed; the text has the user's own traceback.
        """
        from mpi_prs.azureml.runs.waiting import wait_for

        assert self._record.parent is not None
        wait_for(
            self._layout,
            self.experiment.name,
            self._record.parent,
            only=self.id,
            show=show_output,
            timeout=timeout_seconds,
            raise_on_error=raise_on_error,
        )
        return self.get_status()


class _InputDatasets(Mapping[str, Any]):
    """What a script is told of its inputs, made when it is asked for."""

    def __init__(self, experiment: Experiment) -> None:
        context = script_context()
        self._experiment = experiment
        self._told: Mapping[str, Any] = {} if context is None else context.named_inputs

    def __getitem__(self, name: str) -> Any:
        if name not in self._told:
            raise KeyError(f"the step has no input {name!r}{near(name, self._told)}")
        told = self._told[name]
        variable = told.get("variable")
        if variable and variable in os.environ:
            return os.environ[variable]
        if told.get("definition") is None:
            raise WorkspaceError(f"the input {name!r} is too long, or no dataset: it is not told to entry scripts")
        from mpi_prs.azureml.datasets.dataset import from_definition

        return from_definition(self._experiment.workspace, told["definition"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)
