"""``PipelineRun``: the run of a pipeline. Standard library only at the top, Python 3.7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Mapping  # noqa: UP035  # Python 3.7

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.runs.outputs import PortDataReference
from mpi_prs.azureml.runs.run_base import Run
from mpi_prs.azureml.runs.step_run import StepRun
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.own_python import own_python
from mpi_prs.core.words import near

if TYPE_CHECKING:
    from mpi_prs.azureml.backends.run_status import PipelineLook
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch


class PipelineRun(Run):
    """The run of a pipeline: ``Experiment.submit`` gives it, and ``PipelineRun(experiment, run_id)`` finds it again."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "get_graph": "get_steps() has the steps",
        "publish_pipeline": "keep the script that makes the pipeline, and submit it again",
        "get_pipeline_runs": "use experiment.get_runs()",
        "save": "keep the script that makes the pipeline",
        "update_output": "there is no service that could do it",
    }

    def __init__(self, experiment: Experiment, run_id: str, _service_endpoint: object = None, **kwargs: object) -> None:
        """The pipeline run of an id. Raises WorkspaceError: there is none."""
        del _service_endpoint
        super().__init__(experiment, run_id, **kwargs)
        self._watch: PipelineWatch | None = None

    # Where it stands

    def _look(self) -> PipelineLook:
        from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch
        from mpi_prs.azureml.submit.registering import register_outputs

        if self._watch is None:
            self._watch = PipelineWatch(self._layout, self.experiment.name, self.id)
        look = self._watch.look()
        register_outputs(self.experiment.workspace, look)
        return look

    def _pipeline_look(self) -> PipelineLook:
        return self._look()

    def _state(self) -> str:
        return self._look().state

    def get_status(self) -> str:
        """``Preparing``, ``NotStarted``, ``Queued``, ``Running``, ``CancelRequested``, ``Finished``, ``Failed`` or
        ``Canceled``."""
        return states.finished(self._state())

    def _own_properties(self) -> dict[str, str]:
        part = self._record.pipeline
        own = {"azureml.runsource": "azureml.PipelineRun"}
        return own if part is None else {**own, "backend": part.backend, "parameters": repr(part.parameters)}

    def _target(self) -> str:
        part = self._record.pipeline
        return "" if part is None else part.backend

    def _times(self) -> tuple[str | None, str | None]:
        times = [step._times() for step in self.get_steps()]
        ends = [end for _, end in times if end is not None]
        return self._record.created, max(ends, default=None) if self._look().is_over else None

    def _problem(self) -> str:
        look = self._look()
        return self._why_failed(look) if look.state == states.FAILED else ""

    @own_python("why a pipeline has failed")
    def _why_failed(self, look: PipelineLook) -> str:
        from mpi_prs.azureml.runs.failure_text import why_failed

        return why_failed(look, self._step_logs())

    def _step_logs(self) -> dict[str, Any]:
        return {step.id: step._logs() for step in self.get_steps()}

    # Steps and outputs

    def get_steps(self) -> list[StepRun]:
        """The runs of its steps, in order."""
        return [StepRun(self.experiment, step.record.id) for step in self._look().steps]

    def find_step_run(self, name: str) -> list[StepRun]:
        """The runs of the step of a name: one, or none."""
        return [step for step in self.get_steps() if step._record.name == name]

    def get_pipeline_output(self, pipeline_output_name: str) -> PortDataReference:
        """The data of the output with this ``pipeline_output_name``. Raises PipelineError: there is none."""
        known = {}
        for step in self.get_steps():
            for name, output in step._part.outputs.items():
                if output.pipeline_name:
                    known[output.pipeline_name] = PortDataReference(step, name, output)
        if pipeline_output_name not in known:
            raise PipelineError(
                f"the pipeline has no output {pipeline_output_name!r}{near(str(pipeline_output_name), known)}"
            )
        return known[pipeline_output_name]

    # Its life

    def cancel(self) -> None:
        """Have it stopped: what waits does not begin, what runs ends in good order, what is finished is kept.

        Raises:
            SlurmError: Slurm does not do it.
        """
        from mpi_prs.azureml.backends.cancelling import cancel_steps

        cancel_steps(self._layout, self.experiment.name, self.id)

    @own_python("PipelineRun.resume()")
    def resume(self) -> None:
        """Start what is left of it, after it was stopped, cancelled or lost; what is finished is kept. Not one of
        Azure's names.

        Raises:
            PipelineError: it is under way, or has completed.
        """
        from mpi_prs.azureml.submit.submission import resume

        resume(self._layout, self.experiment.name, self.id)

    def complete(self, _set_status: object = True) -> None:
        """Nothing: a pipeline has completed when its steps have."""

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        """Note why somebody thinks that it has failed. Whether it has, is decided by its steps."""
        super().fail(error_details, error_code)

    @own_python("PipelineRun.wait_for_completion()")
    def wait_for_completion(  # type: ignore[override]  # Azure's own order, which is not that of Run
        self, show_output: bool = True, timeout_seconds: float = float("inf"), raise_on_error: bool = True
    ) -> str:
        """Wait until it is over; returns its status. Ctrl-C ends the waiting, and not the run.

        Args:
            show_output: print how it goes: what each step waits for, how far it is, how it ended.
            timeout_seconds: wait no longer.
            raise_on_error: otherwise its failure is printed.

        Raises:
            RunFailed: it has failed; the text has the user's own traceback.
        """
        from mpi_prs.azureml.runs.waiting import wait_for

        wait_for(
            self._layout,
            self.experiment.name,
            self.id,
            only=None,
            show=show_output,
            timeout=timeout_seconds,
            raise_on_error=raise_on_error,
        )
        return self.get_status()
