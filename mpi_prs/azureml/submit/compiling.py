"""A step, the values of this submission and a place to run in become one job config.

::

    ParallelRunConfig.settings(values) ─┐
    compute target, models ─────────────┼─► StepDefinition ─► job(place): {…}, a JobConfig ─► job.yaml
    workspace settings ─────────────────┘                 └─► job(a place like any other): the digest for reuse

What a script is told of its inputs (``ScriptContext.named_inputs``) is, by name: ``mode``; ``definition``, from which
``Dataset`` makes the dataset again (``None`` for a place on a datastore, or where all are very long); and ``variable``,
for a side input that is a path: the environment variable that holds it on the node that the script runs on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.azureml.compute.target import AmlCompute
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep, check_size
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.definition.pipeline import Pipeline
from mpi_prs.azureml.definition.script_settings import to_csv_options
from mpi_prs.azureml.definition.service_arguments import service_arguments, timeouts_in
from mpi_prs.azureml.definition.step_inputs import StepInput
from mpi_prs.azureml.models.model import Model, models_for_job
from mpi_prs.azureml.store.settings import backend
from mpi_prs.azureml.submit.compiling_inputs import (
    check_partition_keys,
    definition_of,
    input_section,
    side_input_section,
)
from mpi_prs.azureml.submit.step_paths import StepPaths
from mpi_prs.child.context.script_context import ScriptContext
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.core.errors import MpiPrsError, PipelineError
from mpi_prs.core.urls import is_url
from mpi_prs.core.words import near

_DEFAULT_FILES = 10
_DEFAULT_ROWS = "1MB"
_MOST_DEFINITIONS = 48 << 10  # Linux takes 128 KiB for one environment variable
_VARIABLE = "AZUREML_DATAREFERENCE_"
_AS_THEY_ARE = (
    *("description", "partition_keys", "error_threshold", "allowed_failed_count", "allowed_failed_percent"),
    *("output_action", "append_row_file_name", "logging_level", "run_invocation_timeout", "run_max_try"),
    *("node_count", "process_count_per_node"),
)
"""Keys of a job config that a ParallelRunConfig has under the same name."""
_PATHS = ("source_directory", "entry_script", "output", "environment", "path", "account_key_file", "sas_token_file")
"""Keys of a job config and its sections that are paths; those of the inputs' files come as a job config takes them."""


@dataclass(frozen=True)
class StepDefinition:
    """A step with the values of a submission, checked; :meth:`job` puts it into a place.

    Attributes:
        step: the step.
        values: pipeline parameter name → value, as of ``Pipeline.values``.
        workspace: that it belongs to.
        settings: of the ParallelRunConfig, as plain values.
        size: of a mini-batch; ``None``: partition keys make them.
        target: the compute target.
        models: what scripts are told of registered models, see :class:`ScriptContext`.
    """

    step: ParallelRunStep
    values: Mapping[str, Any]
    workspace: Workspace
    settings: Mapping[str, Any]
    size: int | str | None
    target: AmlCompute
    models: Mapping[str, int | str]

    def job(self, place: StepPaths) -> dict[str, Any]:
        """The job config of one run of the step: values as in YAML, but for paths, which are absolute :class:`Path`.

        Raises:
            PipelineError: an input is not what it is used for.
            WorkspaceError: what the step names is not in the workspace.
        """
        step, values, settings = self.step, self.values, self.settings
        if settings["partition_keys"] is not None:
            check_partition_keys(settings["partition_keys"], step.inputs, values, place)
        script = place.source_directory / (place.script or step.source().script)
        side_inputs = [value for value in step.side_inputs if _is_path(step, value)]
        user_arguments = [_text(argument, step, values, place) for argument in step.arguments]
        to_csv = settings["output_action"] == "append_row"
        job: dict[str, Any] = {
            "name": step.name,
            "source_directory": str(place.source_directory),
            "entry_script": str(script),
            "inputs": [input_section(value, values, place) for value in step.inputs],
            "side_inputs": {value.name: side_input_section(value, values, place) for value in side_inputs},
            "output": str(place.output),
            "output_url": place.output_url,
            "storage": dict(place.output_storage),
            "mini_batch_size": self.size,
            **{key: settings[key] for key in _AS_THEY_ARE},
            "to_csv": to_csv_options(place.source_directory, script) if to_csv else {},
            **timeouts_in(user_arguments),
            "arguments": [*service_arguments(settings, script.name, self.size, str(place.output)), *user_arguments],
            "environment_variables": self._variables(place, side_inputs),
            "environment": place.interpreter,
            "azureml": "always",  # what Azure's own package would find is not here
            "slurm": self._slurm(),
        }
        return _with_paths({key: value for key, value in job.items() if value is not None and value != {}})

    def _variables(self, place: StepPaths, side_inputs: Iterable[StepInput]) -> dict[str, str]:
        """The environment variables of the user processes; the config has the last word over the environment."""
        workspace, step = self.workspace, self.step
        paths = {value.name: f"{_VARIABLE}{value.name}" for value in side_inputs}
        named_inputs = {}
        space = _MOST_DEFINITIONS
        for value in (*step.inputs, *step.side_inputs):
            definition = definition_of(value, self.values, place)
            space -= len(json.dumps(definition))
            named_inputs[value.name] = {
                "mode": value.mode,
                "definition": definition if space >= 0 else None,
                "variable": paths.get(value.name),
            }
        context = ScriptContext(str(workspace.folder), place.experiment, place.run_id, self.models, named_inputs)
        return {
            "AZUREML_RUN_ID": place.run_id,
            "AZUREML_ARM_WORKSPACE_NAME": workspace.name,
            "AZUREML_ARM_SUBSCRIPTION": workspace.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": workspace.resource_group,
            "AZUREML_ARM_PROJECT_NAME": place.experiment,
            **{f"{_VARIABLE}{output.name}": str(place.output) for output in step.outputs},
            **{variable: f"${{side_inputs.{name}}}" for name, variable in paths.items()},
            **place.environment_variables,
            **self.settings["environment_variables"],
            **context.variables(),
        }

    def _slurm(self) -> dict[str, Any]:
        """What the job asks Slurm for; nothing where there is no Slurm."""
        if backend(self.workspace.settings) != "slurm":
            return {}
        return self.target.slurm_section(self.workspace.settings, self.settings["process_count_per_node"])


def problems_of(pipeline: Pipeline) -> list[str]:
    """What is wrong with a pipeline and its defaults, a text each; see ``Pipeline.validate``."""
    problems = []
    try:
        values, steps = pipeline.values(), pipeline.steps_in_order()
    except MpiPrsError as error:
        return [str(error)]
    for step in steps:
        for check in (
            lambda step=step: step.source(pipeline.default_source_directory),
            lambda step=step: define_step(step, values, pipeline.workspace),
        ):
            try:
                check()
            except MpiPrsError as error:
                problems.append(str(error))
    return problems


def define_step(step: ParallelRunStep, values: Mapping[str, Any], workspace: Workspace) -> StepDefinition:
    """A step with its values, after all checks that need no place for it: settings, compute target, models.

    Args:
        step: the step.
        values: pipeline parameter name → value, as of ``Pipeline.values``.
        workspace: where its names are looked up.

    Raises:
        PipelineError: a value does not fit, or the compute target has too few nodes.
        ComputeTargetException, ModelNotFoundException: there is no such compute target or model.
    """
    try:
        settings = step.config.settings(values)
    except PipelineError as error:
        raise error.at(key=f"step {step.name!r}") from None
    size = settings["mini_batch_size"]
    if settings["partition_keys"] is None:
        size = size or (_DEFAULT_ROWS if step.inputs[0].is_tabular else _DEFAULT_FILES)
        check_size(size, step.inputs, step.name)
    named = settings["compute_target"]
    target = AmlCompute(workspace, named if isinstance(named, str) else named.name)  # its limits may have changed since
    if settings["node_count"] > target.max_nodes:
        raise PipelineError(
            f"step {step.name!r}: node_count: got {settings['node_count']}, but the compute target {target.name!r} has "
            f"at most {target.max_nodes}; ask for fewer, or raise max_nodes: "
            f"ws.compute_targets[{target.name!r}].update(max_nodes=…)"
        )
    for model in step.models:
        if isinstance(model, str):
            Model(workspace, model)
    return StepDefinition(step, values, workspace, settings, size, target, models_for_job(workspace.layout))


def _with_paths(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a job config, or the whole, with its paths as :class:`Path`: in those no ``$VAR`` is expanded."""
    found = {}
    for key, value in section.items():
        if key in _PATHS:
            found[key] = value if is_url(value) else Path(value)
        elif key == "inputs":
            found[key] = [_with_paths(each) for each in value]
        elif key == "side_inputs":
            found[key] = {name: _with_paths(each) for name, each in value.items()}
        else:
            found[key] = _with_paths(value) if key == "storage" else value
    return found


def _is_path(step: ParallelRunStep, value: StepInput) -> bool:
    """Whether a side input is brought to the nodes as a path. In the mode ``direct`` a script gets it as a dataset, by
    its name; only if it is an argument as well, its path is passed."""
    if value.is_tabular:
        return False
    return value.mode != "direct" or any(step.side_input_of(argument) is value for argument in step.arguments)


def _text(argument: Any, step: ParallelRunStep, values: Mapping[str, Any], place: StepPaths) -> str:
    """What the script gets for an argument."""
    if isinstance(argument, PipelineParameter):
        if argument.name not in values:
            raise PipelineError(
                f"step {step.name!r}: arguments: there is no value for the PipelineParameter {argument.name!r}"
                f"{near(argument.name, values)}"
            )
        return str(values[argument.name])
    if step.is_output(argument):
        return str(place.output)
    side_input = step.side_input_of(argument)
    return str(argument) if side_input is None else f"${{side_inputs.{side_input.name}}}"
