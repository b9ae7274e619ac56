"""A submission, step by step: what each runs, where, and whether an earlier output will do; nothing is started.

::

    source directory ─► snapshot ─┐                        ┌─► earlier run with the same digest: its output is used
    environment ─► interpreter  ──┼─► StepPaths ─► job.yaml ┤
    outputs ─► folders and URLs ──┘         checked as the engine will check it      └─► a run of its own
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.definition.pipeline import Pipeline
from mpi_prs.azureml.environments.building import PreparedEnvironment, prepare
from mpi_prs.azureml.submit import reuse
from mpi_prs.azureml.submit.compiling import StepDefinition
from mpi_prs.azureml.submit.snapshot import take_snapshot
from mpi_prs.azureml.submit.step_paths import StepPaths
from mpi_prs.child.context.run_record import STEP, Output, Registration, Reused, RunFolder, RunRecord, StepPart, utc_now
from mpi_prs.core.errors import InputError, PipelineError, ScriptError
from mpi_prs.core.yaml import Document
from mpi_prs.job.config.model import JobConfig, check_entry_script, make_config
from mpi_prs.storage.credentials import Storage

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is to be submitted.

    Attributes:
        pipeline: the pipeline.
        experiment: name of the experiment.
        parameters: pipeline parameter → value, of those that are not to have their default.
        tags: of the run.
        regenerate: run every step, whatever could be reused.
        display_name: of the run; empty: none.
    """

    pipeline: Pipeline
    experiment: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    regenerate: bool
    display_name: str = ""


@dataclass(frozen=True)
class PlannedStep:
    """A step of a submission.

    Attributes:
        record: of its run.
        location: folder or URL of each of its outputs.
        storage: how to get at those that are URLs.
        config: the job; ``None``: an earlier output is used.
        digest: of what it does; ``None``: that is not known, or it must not be reused.
    """

    record: RunRecord
    location: Mapping[Any, str]
    storage: Mapping[str, Any]
    config: JobConfig | None
    digest: str | None

    @property
    def maker(self) -> str:
        """Id of the step run that has made, or will make, the outputs."""
        assert self.record.step is not None
        return self.record.id if self.record.step.reused is None else self.record.step.reused.run_id


@dataclass(frozen=True)
class _Destination:
    """Where an output goes.

    Attributes:
        name: of the output, for ``get_output_data``.
        datastore, output: the place.
        is_fixed: whether it is the same for each run.
    """

    name: str
    datastore: Datastore
    output: Output
    is_fixed: bool


class Planning:
    """Turns the steps of a request into records and jobs, in order."""

    def __init__(
        self,
        request: Request,
        definitions: Sequence[StepDefinition],
        ids: Mapping[ParallelRunStep, str],
        run: RunRecord,
        say: Say,
    ) -> None:
        self._request = request
        self._pipeline = request.pipeline
        self._workspace = request.pipeline.workspace
        self._layout = self._workspace.layout
        self._definitions = definitions
        self._ids = ids
        self._run = run
        self._say = say
        self._planned: dict[ParallelRunStep, PlannedStep] = {}
        self._snapshots: dict[Path, str] = {}
        self._environments: dict[int, PreparedEnvironment] = {}

    def steps(self) -> list[PlannedStep]:
        """All steps, in order."""
        for definition in self._definitions:
            self._planned[definition.step] = self._plan(definition)
        return list(self._planned.values())

    def _plan(self, definition: StepDefinition) -> PlannedStep:
        step = definition.step
        source = step.source(self._pipeline.default_source_directory)
        snapshot = self._snapshots.get(source.folder) or take_snapshot(source.folder, self._layout)
        self._snapshots[source.folder] = snapshot
        if not (self._layout.snapshot(snapshot) / source.script).is_file():
            raise PipelineError(
                f"step {step.name!r}: the entry script {source.script} is left out of the copy of {source.folder}: "
                "take it out of .amlignore or .gitignore"
            )
        destinations = [self._destination(output, self._ids[step]) for output in step.outputs]
        place = self._place(step, self._layout.snapshot(snapshot), source.script, destinations)
        folder = RunFolder(self._layout.run(self._request.experiment, place.run_id))
        try:
            config = make_config(definition.job(place), folder.job, Document({}, {}))
            check_entry_script(config)
        except (ScriptError, PipelineError) as error:  # it is the user's own file that is to be mended, not its copy
            raise type(error)(str(error).replace(str(place.source_directory), str(source.folder))) from None
        part = StepPart(
            needs=[self._ids[need] for need in self._pipeline.needs(step)],
            folder=str(config.output),
            outputs={each.name: each.output for each in destinations},
            rows=config.append_row_file_name if config.output_action == "append_row" else None,
            compute=_compute_name(step),
            nodes=config.node_count,
            processes=config.process_count_per_node,
            snapshot=snapshot,
        )
        digest = self._digest(definition, place, config, part, destinations)
        earlier = self._earlier(digest)
        if earlier is None:
            self._say(f"step {step.name}: a new run, {place.run_id}")
        else:
            assert earlier.step is not None
            self._say(
                f"step {step.name}: reuses the output of the run {earlier.id} (experiment {earlier.experiment}, of "
                f"{earlier.created[:16].replace('T', ' ')} UTC), which did the same with the same inputs"
            )
            outputs = dict(zip(part.outputs, earlier.step.outputs.values(), strict=True))
            reused = Reused(earlier.experiment, earlier.id)
            part = dataclasses.replace(part, folder=earlier.step.folder, outputs=outputs, reused=reused)
        record = RunRecord(
            id=place.run_id,
            experiment=self._request.experiment,
            kind=STEP,
            name=step.name,
            created=utc_now().isoformat(timespec="milliseconds"),
            parent=self._run.id,
            tags=dict(step.tags),
            properties=dict(step.properties),
            step=part,
        )
        if earlier is None:
            _write_job(config, folder)
        location = {output: each.url for output, each in zip(step.outputs, part.outputs.values(), strict=True)}
        storage = destinations[0].datastore.storage_section() if destinations else {}
        return PlannedStep(record, location, storage, None if earlier else config, digest)

    def _prepared(self, step: ParallelRunStep) -> PreparedEnvironment:
        environment = step.config.environment
        key = id(environment)
        if key not in self._environments:
            prepared = prepare(environment, self._workspace, self._say)
            for note in prepared.notes:
                self._say(note)
            self._environments[key] = prepared
        return self._environments[key]

    def _destination(self, output: Any, run_id: str) -> _Destination:
        """Where an output goes."""
        datastore = output.datastore or self._pipeline.default_datastore or self._workspace.get_default_datastore()
        path_of_run = getattr(output, "path_of_run", None)  # of an OutputFileDatasetConfig
        path = (path_of_run and path_of_run(run_id)) or f"azureml/{run_id}/{output.name}"
        pipeline_name = getattr(output, "pipeline_output_name", None) or ""
        return _Destination(
            name=getattr(output, "output_name", None) or output.name,
            datastore=datastore,
            output=Output(datastore.name, path, datastore.url(path), pipeline_name, _dataset(output, datastore, path)),
            is_fixed=run_id not in path,
        )

    def _place(self, step: ParallelRunStep, source: Path, script: Any, destinations: list[_Destination]) -> StepPaths:
        run_id = self._ids[step]
        prepared = self._prepared(step)
        output, url, storage = RunFolder(self._layout.run(self._request.experiment, run_id)).output, None, {}
        for each in destinations:
            if each.datastore.folder is None:
                url, storage = each.output.url, each.datastore.storage_section()
            elif each.is_fixed:  # each run has a folder of its own, and what is there is replaced at the end
                url = f"file://{each.output.url}"
            else:
                output = Path(each.output.url)
        upstream: dict[Any, str] = {}
        upstream_storage: dict[Any, Mapping[str, Any]] = {}
        for planned in self._planned.values():
            upstream |= planned.location
            upstream_storage |= dict.fromkeys(planned.location, planned.storage)
        return StepPaths(
            run_id=run_id,
            experiment=self._request.experiment,
            workspace=self._workspace,
            output=output,
            output_url=url,
            output_storage=storage,
            source_directory=source,
            upstream=upstream,
            upstream_storage=upstream_storage,
            interpreter=prepared.interpreter,
            environment_variables=prepared.environment_variables,
            script=script,
        )

    def _digest(
        self,
        definition: StepDefinition,
        place: StepPaths,
        config: JobConfig,
        part: StepPart,
        destinations: list[_Destination],
    ) -> str | None:
        """What the step does; ``None``: it is not to be reused. Looks at the inputs in any case."""
        step = definition.step
        if not step.allow_reuse or any(each.is_fixed for each in destinations):
            if not part.needs:
                reuse.check_inputs(config)
            return None
        upstream = {
            output: f"{reuse.UPSTREAM}/{planned.maker}/{output.name}"
            for planned in self._planned.values()
            for output in planned.location
        }
        anywhere = dataclasses.replace(
            place,
            run_id="run",
            experiment="experiment",
            output=Path("/output"),
            output_url=None,
            output_storage={},
            upstream=upstream,
            upstream_storage={},
        )
        job = make_config(definition.job(anywhere), Path("job.yaml"), Document({}, {}))
        try:
            files = reuse.digest_of_files(job)
        except InputError:
            if not part.needs:  # else an earlier step may yet make them
                raise
            files = None
        if files is None:
            self._say(
                f"step {step.name}: will not be reused, since it cannot be seen in time whether its inputs change"
            )
            return None
        return reuse.digest_of(job, [files, *(f"{each.name} in {each.output.datastore}" for each in destinations)])

    def _earlier(self, digest: str | None) -> RunRecord | None:
        if digest is None or self._request.regenerate:
            return None
        return reuse.find_reusable(self._layout, digest, self._is_there)

    def _is_there(self, record: RunRecord) -> bool:
        def storage_of(name: str) -> Storage | None:
            datastore = self._workspace.datastores.get(name)
            return None if datastore is None else Storage(**datastore.storage_section())

        return reuse.output_is_there(record, storage_of)


def _write_job(config: JobConfig, folder: RunFolder) -> None:
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        # It may hold secrets, in the environment variables of the user's script
        descriptor = os.open(folder.job, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(config.as_yaml())
    except OSError as error:
        raise PipelineError(f"cannot write {folder.job}: {error.strerror}. Is it your workspace?") from error


def _compute_name(step: ParallelRunStep) -> str:
    target = step.config.compute_target
    return target if isinstance(target, str) else str(target.name)


def _dataset(output: Any, datastore: Datastore, path: str) -> Registration | None:
    """What is to be registered of an output when the run has completed."""
    registered = getattr(output, "registered", None)
    if registered is None:
        return None
    name, description, tags = registered
    definition = output.dataset_at(datastore.path(path)).definition()
    return Registration(name, description or "", dict(tags or {}), definition)
