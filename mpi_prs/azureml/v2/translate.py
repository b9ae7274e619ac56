"""From a parallel step to the keys of a job config.

==================================  ================================================================================
in the v2 YAML                      in the job config
==================================  ================================================================================
``input_data``                      ``inputs``: files, or what the MLTable says
other inputs                        text in ``arguments``; data as ``side_inputs``
``retry_settings.max_retries``      ``run_max_try``: one try more than retries
``retry_settings.timeout``          ``run_invocation_timeout``
``mini_batch_error_threshold``      ``allowed_failed_count``
``error_threshold``                 ``error_threshold``; default -1, as there
``resources.instance_count``        ``node_count``
``max_concurrency_per_instance``    ``process_count_per_node``
``task.append_row_to``              ``append_row_file_name``; without it ``output_action: summary_only``
``compute``                         ``slurm``, if the workspace knows it
``mpi_prs``                         whatever is in it, which has the last word
==================================  ================================================================================

Where Azure's documents contradict each other, its engine's word counts: a mini-batch is 10 files or 1 MB by default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpi_prs.azureml.definition.script_settings import to_csv_options
from mpi_prs.azureml.v2 import environments
from mpi_prs.azureml.v2.arguments import split, understand
from mpi_prs.azureml.v2.assets import WorkspaceAssets
from mpi_prs.azureml.v2.bindings import Parts, replaced, shown, tightened, without_options
from mpi_prs.azureml.v2.input_data import input_data, mode_of, name_of_input_data, place_of
from mpi_prs.azureml.v2.nodes import OURS, YamlNode
from mpi_prs.azureml.v2.parse import StepOutputSpec, StepSpec
from mpi_prs.azureml.v2.resolving import DEFAULT_FILE, Resolver, appended_output, file_name, plain_url
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.urls import is_url
from mpi_prs.core.values import WrongValue, mini_batch_size, whole_number
from mpi_prs.core.words import near
from mpi_prs.core.yaml import KeyPath, SourceLine
from mpi_prs.job.config.errors import AZURE_NAMES

_NUMBERS = (
    "error_threshold",
    "mini_batch_error_threshold",
    "timeout",
    "instance_count",
    "max_concurrency_per_instance",
)


@dataclass
class Translation:
    """A step as a job config.

    Attributes:
        source: name of the YAML file.
        data: the keys of the job config.
        origins: key of the job config → where its value was written.
        folders: to be made before the step starts: its script writes into them.
        notes: what a person should know.
    """

    source: str
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, YamlNode] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, node: YamlNode) -> None:
        """Set a key of the job config to what a node says."""
        self.data[key] = value
        self.origins[(key,)] = node

    def places(self) -> dict[KeyPath, SourceLine]:
        """The same as :attr:`origins`, for messages about the job config."""
        found = {}
        for key, node in self.origins.items():
            place = node.place
            if place is not None:
                other = "" if node.source.name == self.source else f"{node.source.name}, "
                label = place.label if place.label.startswith("--set") else f"{place.label}: {node.shown_key}"
                found[key] = SourceLine(place.line, other + label)
        return found


def translate(resolver: Resolver, assets: WorkspaceAssets, say: Callable[[str], None]) -> Translation:
    """The job config of the resolver's step.

    Args:
        resolver: the step in its pipeline.
        assets: what the workspace knows.
        say: is told at once what takes long.

    Raises:
        ConfigError: something in the YAML, or what it names, cannot be used.
    """
    made = Translation(resolver.pipeline.node.source.name)
    step = resolver.step
    made.data["name"] = job_name(step.name)
    made.data["output"] = resolver.output
    _code(made, step)
    found = input_data(resolver)
    made.put("inputs", [found.section], found.node)
    made.notes += found.notes
    _sizes(made, resolver)
    _settings(made, resolver)
    _append_row(made, resolver)
    _environment(made, resolver, assets, say)
    _arguments(made, resolver)
    _slurm(made, resolver, assets)
    _our_own(made, resolver.pipeline.node)
    return made


def job_name(name: str) -> str:
    """A name as the job config takes it, as near to this one as may be."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain or not plain[0].isalpha() or len(plain) < 3:
        plain = f"job-{plain}".rstrip("-")
    return plain[:32].rstrip("-")


# What is run


def _code(made: Translation, step: StepSpec) -> None:
    script = step.keys["entry_script"]
    code = step.keys.get("code")
    base = script.source.folder
    if code is not None:
        text = code.text("the path of a folder")
        if text.startswith(("azureml:", "git+", "git:")) or is_url(text):
            raise code.wrong(f"got {text!r}; expected the path of a folder on this machine")
        made.put("source_directory", code.local_path(), code)
        base = str(made.data["source_directory"])
    path = replace(script, source=replace(script.source, folder=base)).local_path()
    made.put("entry_script", path, script)
    if type := step.keys.get("type"):
        kind = type.one_of(("run_function", "function", "model"))
        if kind == "model":
            raise type.wrong("a task of type model is run by Azure alone; write an entry script, `type: run_function`")
    if options := to_csv_options(Path(base), path):
        made.data["to_csv"] = options


def _environment(made: Translation, resolver: Resolver, assets: WorkspaceAssets, say: Callable[[str], None]) -> None:
    variables: dict[str, str] = {}
    ours = resolver.pipeline.node.value.get(OURS)
    chosen = isinstance(ours, dict) and ours.get("environment") is not None
    node = resolver.step.keys.get("environment")
    if node is not None and not chosen:
        found = environments.prepared(node, assets, say)
        variables |= found.environment_variables
        made.notes += found.notes
        if found.interpreter is not None:
            made.put("environment", Path(found.interpreter), node)
    for key, value in resolver.step.keys.items():
        name = key.removeprefix("environment_variables.")
        if name != key and value.value is not None:
            variables[name] = resolver.outer(value)
            made.origins["environment_variables", name] = value
    if variables:
        made.data["environment_variables"] = variables


# Settings


def _sizes(made: Translation, resolver: Resolver) -> None:
    keys, size = resolver.step.keys.get("partition_keys"), resolver.step.keys.get("mini_batch_size")
    if keys is not None:
        made.put("partition_keys", keys.texts(), keys)
        if size is not None:
            made.notes.append("partition_keys make the mini-batches, so mini_batch_size has no effect")
    elif size is not None:
        try:
            made.put("mini_batch_size", mini_batch_size(resolver.outer(size)), size)
        except WrongValue as error:
            raise size.wrong(f"got {size.value!r}; {error.expected}") from None


def _settings(made: Translation, resolver: Resolver) -> None:
    step = resolver.step
    made.data["error_threshold"] = -1
    for key in _NUMBERS:
        if key in step.keys:
            made.put(AZURE_NAMES.get(key, key), resolver.outer(step.keys[key]), step.keys[key])
    if "max_retries" in step.keys:
        node = step.keys["max_retries"]
        try:
            made.put("run_max_try", whole_number(0)(resolver.outer(node)) + 1, node)
        except WrongValue as error:
            raise node.wrong(f"got {node.value!r}; {error.expected}") from None
    if "logging_level" in step.keys:
        node = step.keys["logging_level"]
        level = {"WARN": "WARNING"}.get(resolver.outer(node).upper(), resolver.outer(node).upper())
        made.put("logging_level", level, node)
    if "description" in step.keys:
        made.put("description", step.keys["description"].text(), step.keys["description"])


def _append_row(made: Translation, resolver: Resolver) -> None:
    node = resolver.step.keys.get("append_row_to")
    if node is None:
        made.data["output_action"] = "summary_only"
        return
    name = appended_output(resolver.step)
    if name is None:
        text = node.text("an output such as ${{outputs.rows}}")
        if "${{" in text or "/" in text:
            raise node.wrong(f"got {text!r}; expected one of the step's outputs, such as ${{{{outputs.rows}}}}")
        made.put("append_row_file_name", text, node)
        return
    if name not in resolver.step.outputs:
        raise node.wrong(f"{node.value}: the step has no output {name!r}{near(name, resolver.step.outputs)}")
    output = resolver.output_of(resolver.step, name)
    made.put("append_row_file_name", file_name(output) if output.is_file else DEFAULT_FILE, output.path or node)
    _destination(made, output)


def _destination(made: Translation, output: StepOutputSpec) -> None:
    """Where the rows go when they are complete."""
    if output.path is None:
        return
    text = output.path.text()
    if text.startswith("azureml:"):
        made.notes.append(f"the output {output.name} stays in {made.data['output']}, and does not go to {text}")
    elif is_url(text):
        url = plain_url(text, output.path)
        made.put("output_url", url.rpartition("/")[0] if output.is_file else url.rstrip("/"), output.path)
    else:
        raise output.path.wrong(f"got {text!r}; expected azureml://… or a URL; --output names a folder of this machine")


# Arguments


def _arguments(made: Translation, resolver: Resolver) -> None:
    step = resolver.step
    side_inputs: dict[str, dict[str, Any]] = {}
    made.folders += [_folder(resolver, step.outputs[name]) for name in step.outputs]
    node = step.keys.get("program_arguments")
    if node is None:
        return

    def has_value(parts: Parts) -> bool:
        return parts[0] != "inputs" or (parts[-1] in step.inputs and resolver.input(parts[-1]) is not None)

    def value_of(parts: Parts) -> str:
        return _value(parts, node, resolver, side_inputs)

    try:
        words = split(tightened(without_options(node.text("a command line"), has_value)))
        understood = understand(words, lambda word: replaced(word, value_of))
    except ValueError as error:
        raise node.wrong(str(error)) from None
    made.put("arguments", understood.script, node)
    for key, text in understood.settings.items():
        made.put(key, text, node)
    made.notes += understood.notes
    if side_inputs:
        made.put("side_inputs", side_inputs, node)


def _folder(resolver: Resolver, output: StepOutputSpec) -> Path:
    found = resolver.output_of(resolver.step, output.name)
    place = resolver.place_of(resolver.step, found)
    return place.parent if found.is_file else place


def _value(parts: Parts, node: YamlNode, resolver: Resolver, side_inputs: dict[str, dict[str, Any]]) -> str:
    step = resolver.step
    if len(parts) != 2 or parts[0] not in ("inputs", "outputs"):
        raise node.wrong(f"{shown(parts)}: expected ${{{{inputs.NAME}}}} or ${{{{outputs.NAME}}}}")
    kind, name = parts
    known: Mapping[str, Any] = step.inputs if kind == "inputs" else step.outputs
    if name not in known:
        raise node.wrong(f"{shown(parts)}: the step has no {kind[:-1]} {name!r}{near(name, known)}")
    if kind == "outputs":
        return str(resolver.place_of(step, resolver.output_of(step, name)))
    value = resolver.input(name)
    if value is None:
        raise node.wrong(f"{shown(parts)}: the input has no value; give it one, or write $[[… {shown(parts)}]]")
    if isinstance(value, str):
        return value
    if not value.location:
        raise node.wrong(f"{shown(parts)}: a dataset of several places cannot be an argument; register one folder")
    if mode_of(value) == "direct" or name == name_of_input_data(step)[0]:
        return value.location
    side_inputs[name] = {"path": place_of(value), "mode": mode_of(value)}
    if value.storage is not None:
        side_inputs[name]["storage"] = dict(value.storage)
    return f"${{side_inputs.{name}}}"


# What Azure does not know of


def _slurm(made: Translation, resolver: Resolver, assets: WorkspaceAssets) -> None:
    settings = resolver.pipeline.node.entries().get("settings")
    default = settings.entries().get("default_compute") if settings is not None else None
    node = resolver.step.keys.get("compute") or default
    if node is None or not isinstance(node.value, str):
        return

    try:
        processes = whole_number(1)(made.data.get("process_count_per_node", 1))
    except WrongValue:  # of which the job config's own check tells
        processes = 1
    try:
        found = assets.slurm(resolver.outer(node), processes)
    except WorkspaceError as error:
        raise node.wrong(str(error)) from None
    if found:
        made.put("slurm", found, node)


def _our_own(made: Translation, root: YamlNode) -> None:
    """Lay the section ``mpi_prs`` over what has been made."""
    section = root.entries().get(OURS)
    if section is None:
        return
    for key, node in section.entries().items():
        if key in ("inputs", "name", "output"):
            raise node.wrong(f"{key} cannot be set here; {'it is input_data' if key == 'inputs' else 'see --output'}")
        if isinstance(node.value, dict) and isinstance(made.data.get(key), dict):
            made.data[key] = {**made.data[key], **node.value}
        else:
            made.data[key] = node.value
        made.origins[(key,)] = node
        if isinstance(node.value, dict):
            made.origins.update({(key, each): inside for each, inside in node.entries().items()})
