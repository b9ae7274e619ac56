"""Pipeline: steps, in the order that their inputs and outputs give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from mpi_prs import azureml
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.definition.step_inputs import output_key
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.words import near

_NO_SERVICE = (
    "a published pipeline is a web service that mpi_prs does not have; keep the script that makes the pipeline, and "
    "submit it again with other pipeline_parameters"
)


class StepSequence(Surface):
    """Steps one after the other: each entry, a step or a list of steps, runs after the one before it.

    Attributes:
        steps: all of them.
    """

    def __init__(self, steps: Sequence[Any]) -> None:
        """See the class. Raises PipelineError."""
        entries = [list(_flat([entry])) for entry in _list(steps, "StepSequence: steps")]
        self.steps = [step for entry in entries for step in entry]
        for before, after in pairwise(entries):
            for step in after:
                for earlier in before:
                    step.run_after(earlier)


class Pipeline(Surface):
    """Steps that are submitted together.

    Attributes:
        workspace: the Workspace.
        steps: as they were given, in one list.
        description: a note for people.
        default_datastore: for outputs that name none; ``None``: the workspace's default.
        default_source_directory: for steps that name none.
        resolve_closure: whether steps that are not listed, but write what others read, belong to it as well.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "load_yaml": "`mpi-prs run` takes a v2 YAML with a parallel step; or make the steps in Python",
        "graph": "steps_in_order() has the steps, needs(step) what each of them waits for",
    }

    def __init__(
        self,
        workspace: Workspace,
        steps: Sequence[Any],
        description: str | None = None,
        default_datastore: Datastore | None = None,
        default_source_directory: str | None = None,
        resolve_closure: bool = True,
        **kwargs: Any,
    ) -> None:
        """See the class.

        Args:
            workspace: where it will run.
            steps: steps, lists of steps and StepSequences.
            description: a note for people.
            default_datastore: for outputs that name none.
            default_source_directory: for steps that name none.
            resolve_closure: bring in the steps that others depend on.
            kwargs: ``_workflow_provider`` and ``_service_endpoint`` are accepted and ignored.

        Raises:
            PipelineError: something is of the wrong type, two steps have one name or one output, nobody writes what a
                step reads, the steps wait for each other in a circle, or two parameters have one name.
        """
        unknown = [name for name in kwargs if not name.startswith("_")]
        if unknown:
            raise PipelineError(f"Pipeline: there is no parameter {unknown[0]!r}")
        if not isinstance(workspace, Workspace):
            raise PipelineError(f"Pipeline: workspace is a Workspace, but got {type(workspace).__name__}")
        if default_datastore is not None and not isinstance(default_datastore, Datastore):
            raise PipelineError(f"Pipeline: default_datastore is a Datastore, but got {default_datastore!r}")
        self.workspace = workspace
        self.steps: list[ParallelRunStep] = list(dict.fromkeys(_flat(_list(steps, "Pipeline: steps"))))
        if not self.steps:
            raise PipelineError("Pipeline: steps is empty; give at least one step, such as steps=[parallelrun_step]")
        self.description = description
        self.default_datastore = default_datastore
        self.default_source_directory = default_source_directory
        self.resolve_closure = resolve_closure
        self.steps_in_order()
        self.parameters()

    def __repr__(self) -> str:
        return f"Pipeline(steps=[{', '.join(step.name for step in self.steps)}])"

    def steps_in_order(self) -> list[ParallelRunStep]:
        """All steps, each after those that it needs; otherwise in the order that they were given.

        Raises:
            PipelineError: see the class; what the steps need may have changed since.
        """
        steps = self._with_closure()
        _check_names(steps)
        producers = _producers(steps)
        needs = {step: _needs(step, producers) for step in steps}
        order: list[ParallelRunStep] = []
        while len(order) < len(steps):
            ready = next((s for s in steps if s not in order and all(n in order for n in needs[s])), None)
            if ready is None:
                circle = _circle([step for step in steps if step not in order], needs)
                raise PipelineError(f"the steps wait for each other in a circle: {' → '.join(circle)}")
            order.append(ready)
        return order

    def needs(self, step: ParallelRunStep) -> list[ParallelRunStep]:
        """The steps that must have completed before this one may start, in the order of the pipeline."""
        order = self.steps_in_order()
        needed = _needs(step, _producers(order))
        return [other for other in order if other in needed]

    def parameters(self) -> dict[str, PipelineParameter]:
        """Name → PipelineParameter, of all steps.

        Raises:
            PipelineError: two have one name, and not the same default.
        """
        found: dict[str, PipelineParameter] = {}
        for step in self.steps_in_order():
            for parameter in step.parameters():
                known = found.setdefault(parameter.name, parameter)
                if not known.is_same(parameter):
                    raise PipelineError(
                        f"two PipelineParameters are named {parameter.name!r}, with the defaults "
                        f"{known.default_value!r} and {parameter.default_value!r}; use one object in all places, or "
                        "two names"
                    )
        return found

    def values(self, pipeline_parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Name → value for one submission: what is given, else the default.

        Raises:
            PipelineError: no step uses a parameter of this name, or the value is of another kind than the default.
        """
        given = {} if pipeline_parameters is None else pipeline_parameters
        if not isinstance(given, Mapping):
            raise PipelineError(f"pipeline_parameters is a dict of names and values, but got {type(given).__name__}")
        known = self.parameters()
        for name in given:
            if name not in known:
                raise PipelineError(
                    f"pipeline_parameters: no step uses a PipelineParameter {name!r}{near(str(name), known)}"
                )
        return {
            name: parameter.checked(given[name]) if name in given else parameter.default_value
            for name, parameter in known.items()
        }

    def validate(self) -> list[str]:
        """What is wrong with the pipeline and its defaults, a text each; nothing: it may be submitted.

        Looks at the source directories, and asks the workspace for compute targets and models. Data is not looked at.
        """
        return azureml.problems_of(self)

    def submit(
        self,
        experiment_name: str,
        pipeline_parameters: Mapping[str, Any] | None = None,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
        parent_run_id: str | None = None,
        credential_passthrough: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Submit it to the experiment of this name; the same as ``Experiment(ws, name).submit(pipeline, …)``.

        Args:
            experiment_name: it is made where there is none.
            pipeline_parameters: name → value.
            continue_on_step_failure: whether steps that do not need a failed one still run.
            regenerate_outputs: run every step, whatever could be reused.
            parent_run_id, credential_passthrough: accepted and ignored.
            kwargs: of ``Experiment.submit``, such as ``tags``.

        Returns:
            the PipelineRun.
        """
        del parent_run_id, credential_passthrough
        return azureml.submit_pipeline(
            self,
            experiment_name,
            pipeline_parameters=pipeline_parameters,
            continue_on_step_failure=continue_on_step_failure,
            regenerate_outputs=regenerate_outputs,
            **kwargs,
        )

    def publish(
        self,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        continue_on_step_failure: bool | None = None,
    ) -> Any:
        """There is no web service to publish it to.

        Raises:
            PipelineError: always; it says what to do.
        """
        del name, description, version, continue_on_step_failure
        raise PipelineError(f"Pipeline.publish: {_NO_SERVICE}")

    def _with_closure(self) -> list[ParallelRunStep]:
        """The steps, and those that they need though nobody has listed them."""
        found = list(self.steps)
        for step in found:  # grows meanwhile
            listed = _producers(found)
            for output in sorted(step.upstream(), key=lambda output: str(output.name)):
                producer = listed.get(output_key(output))
                if producer is None and self.resolve_closure:
                    producer = getattr(output, "producer", None)
                if producer is None:
                    raise PipelineError(
                        f"step {step.name!r} reads the output {output.name!r}, which no step of the pipeline writes; "
                        "make it the output of a step"
                    )
                if producer not in found:
                    found.append(producer)
            for earlier in step.earlier:
                if earlier not in found and not self.resolve_closure:
                    raise PipelineError(
                        f"step {step.name!r} runs after {earlier.name!r}, which is not among the steps of the pipeline"
                    )
                if earlier not in found:
                    found.append(earlier)
        return found


def _list(given: Any, what: str) -> Sequence[Any]:
    if isinstance(given, ParallelRunStep):
        raise PipelineError(f"{what} is a list; put the step into [ ]")
    if isinstance(given, (str, Mapping)) or not isinstance(given, (Sequence, StepSequence)):
        raise PipelineError(f"{what} is a list of steps, but got {type(given).__name__}")
    return [given] if isinstance(given, StepSequence) else given


def _flat(steps: Sequence[Any]) -> Iterator[ParallelRunStep]:
    for step in steps:
        if isinstance(step, ParallelRunStep):
            yield step
        elif isinstance(step, StepSequence):
            yield from step.steps
        elif isinstance(step, Sequence) and not isinstance(step, str):
            yield from _flat(step)
        else:
            raise PipelineError(
                f"a pipeline is made of ParallelRunSteps, but got {type(step).__name__}; mpi_prs has no other steps"
            )


def _check_names(steps: Sequence[ParallelRunStep]) -> None:
    by_name: dict[str, ParallelRunStep] = {}
    for step in steps:
        if by_name.setdefault(step.name, step) is not step:
            raise PipelineError(f"two steps are named {step.name!r}; the names of a pipeline's steps are unique")


def _producers(steps: Sequence[ParallelRunStep]) -> dict[Any, ParallelRunStep]:
    """Key of an output → the step that writes it. Raises PipelineError."""
    found: dict[Any, ParallelRunStep] = {}
    for step in steps:
        for output in step.outputs:
            other = found.setdefault(output_key(output), step)
            if other is not step:
                raise PipelineError(
                    f"the steps {other.name!r} and {step.name!r} have the same output {output.name!r}; make a "
                    "PipelineData for each"
                )
    return found


def _needs(step: ParallelRunStep, producers: Mapping[Any, ParallelRunStep]) -> list[ParallelRunStep]:
    return [*(producers[output_key(output)] for output in step.upstream()), *step.earlier]


def _circle(steps: Sequence[ParallelRunStep], needs: Mapping[Any, Sequence[ParallelRunStep]]) -> list[str]:
    """The names along a circle, the first one again at the end."""
    path = [steps[0]]
    while True:
        following = next(needed for needed in needs[path[-1]] if needed in steps)
        if following in path:
            names = [step.name for step in reversed(path[path.index(following) :])]
            return [names[-1], *names]
        path.append(following)
