"""From the nodes of a v2 YAML to dataclasses: which steps there are, and what each is told.

A step's own keys go before those of its component; of inputs, ``retry_settings``, ``resources`` and
``environment_variables`` key by key. Values stay nodes until they are needed, so that what is wrong with one can be
said of the place where it stands.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpi_prs.azureml.v2.bindings import only_expression
from mpi_prs.azureml.v2.nodes import OURS, YamlNode, read_nodes
from mpi_prs.core.errors import ConfigError
from mpi_prs.core.words import near

DATA_TYPES = ("uri_folder", "uri_file", "mltable", "custom_model", "mlflow_model", "triton_model")
LITERAL_TYPES = ("string", "integer", "number", "boolean")

# Azure's, of no consequence here
_NOTED = ("$schema", "type", "name", "display_name", "description", "tags", "properties", "identity", "services")
PIPELINE_KEYS = (
    *_NOTED,
    *("experiment_name", "compute", "settings", "inputs", "outputs", "jobs", "version", "is_deterministic"),
    OURS,
)
_SETTINGS = (
    *("input_data", "mini_batch_size", "partition_keys", "error_threshold", "mini_batch_error_threshold"),
    *("logging_level", "max_concurrency_per_instance"),
)
PARALLEL_KEYS = (
    *_NOTED,
    *_SETTINGS,
    *("experiment_name", "compute", "component", "inputs", "outputs", "task", "resources", "retry_settings"),
    *("environment_variables", "version", "is_deterministic", "queue_settings", "settings", "limits"),
)
_TASK = ("type", "code", "entry_script", "program_arguments", "append_row_to", "environment", "model")
_RETRY = ("max_retries", "timeout")
_RESOURCES = (
    *("instance_count", "instance_type", "shm_size", "docker_args", "properties", "locations", "max_instance_count"),
)
_INPUT = (
    *("type", "path", "mode", "description", "default", "value", "optional", "min", "max", "enum", "name", "version"),
    *("datastore", "path_on_compute"),
)
_OUTPUT = ("type", "path", "mode", "description", "name", "version", "early_available", "is_control")
_MODES = ("ro_mount", "rw_mount", "mount", "download", "upload", "direct", "eval_mount", "eval_download")


@dataclass(frozen=True)
class StepInputSpec:
    """An input of a step or of the pipeline.

    Attributes:
        name: of the input.
        node: what is said of it last.
        value: a literal, the path of data, or an expression; ``None``: it has none.
        is_literal: whether the value is one, unless it is an expression.
        type: one of DATA_TYPES or LITERAL_TYPES; ``None``: not said.
        mode: as in Azure; ``None``: not said.
        optional: whether it may be without a value.
    """

    name: str
    node: YamlNode
    value: YamlNode | None
    is_literal: bool
    type: str | None = None
    mode: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class StepOutputSpec:
    """An output of a step or of the pipeline.

    Attributes:
        name: of the output.
        type: one of DATA_TYPES.
        path: where Azure would put it; ``None``: where it likes.
        binding: the expression of a pipeline's output that it is; ``None``: it is none.
    """

    name: str
    type: str = "uri_folder"
    path: YamlNode | None = None
    binding: YamlNode | None = None

    @property
    def is_file(self) -> bool:
        return self.type == "uri_file"


@dataclass(frozen=True)
class StepSpec:
    """A job of a pipeline.

    Attributes:
        name: of the job.
        node: of the job.
        type: such as ``parallel`` or ``command``.
        inputs, outputs: by name.
        keys: what else it is told, its component's included; of a parallel job all in one: those of ``task``,
            ``retry_settings`` and ``resources`` too, and ``environment_variables.NAME``.
        has_component_elsewhere: nothing is known of its component, which is not in a file.
        problem: why it cannot be run; ``None``: nothing speaks against it. It need not be the step that is wanted.
    """

    name: str
    node: YamlNode
    type: str
    inputs: Mapping[str, StepInputSpec] = field(default_factory=dict)
    outputs: Mapping[str, StepOutputSpec] = field(default_factory=dict)
    keys: Mapping[str, YamlNode] = field(default_factory=dict)
    has_component_elsewhere: bool = False
    problem: ConfigError | None = None

    @property
    def is_parallel(self) -> bool:
        return self.type == "parallel"


@dataclass(frozen=True)
class PipelineSpec:
    """A whole file.

    Attributes:
        name: of the job.
        node: the root of the file.
        is_single: it is one parallel job or component, not a pipeline.
        inputs, outputs: of the pipeline, by name.
        steps: its jobs, by name, in the order of the file.
    """

    name: str
    node: YamlNode
    is_single: bool
    inputs: Mapping[str, StepInputSpec]
    outputs: Mapping[str, StepOutputSpec]
    steps: Mapping[str, StepSpec]


def parse_pipeline(root: YamlNode) -> PipelineSpec:
    """What the file says.

    Raises:
        ConfigError: a key is unknown, something is missing or of the wrong kind; of a step of a pipeline, see
            :attr:`StepSpec.problem`.
    """
    keys = root.entries()
    type = keys["type"].text() if "type" in keys else "pipeline" if "jobs" in keys else "parallel"
    stem = Path(root.source.name).stem
    name = next((keys[key].text() for key in ("name", "display_name") if _given(keys, key)), stem)
    if type == "parallel":
        own = root.fields((*PARALLEL_KEYS, OURS))
        step = _parallel(name, root, own)
        return PipelineSpec(name, root, True, {}, {}, {step.name: step})
    if type != "pipeline":
        raise keys["type"].wrong(
            f"got {type!r}; expected pipeline or parallel: mpi-prs runs the parallel steps of Azure ML's v2 YAML alone"
        )
    own = root.fields(PIPELINE_KEYS)
    if "jobs" not in own:
        raise root.wrong("jobs is missing; expected a mapping of steps, one of them with `type: parallel`")
    return PipelineSpec(
        name,
        root,
        False,
        {each: _input(each, node) for each, node in _entries(own, "inputs").items()},
        {each: _output(each, node) for each, node in _entries(own, "outputs").items()},
        {each: _step(each, node) for each, node in own["jobs"].entries().items()},
    )


def _given(keys: Mapping[str, YamlNode], key: str) -> bool:
    return key in keys and keys[key].value is not None


def _entries(keys: Mapping[str, YamlNode], key: str) -> dict[str, YamlNode]:
    return keys[key].entries() if key in keys else {}


def _check_name(name: str, node: YamlNode) -> None:
    """Steps and outputs name folders. Raises ConfigError."""
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII) or name.startswith("_run"):
        raise node.wrong(f"the name {name!r} is not one; expected letters, digits and underscores, such as batch_score")


def _step(name: str, node: YamlNode) -> StepSpec:
    _check_name(name, node)
    keys = node.entries()
    type = keys["type"].text().strip().lower() if _given(keys, "type") else ""
    component, elsewhere = _component(keys, needed=False)
    if not type:
        type = component["type"].text() if component and "type" in component else "parallel" if "task" in keys else ""
    if type == "parallel":
        try:
            return _parallel(name, node, node.fields(PARALLEL_KEYS))
        except ConfigError as error:
            return StepSpec(name, node, type, has_component_elsewhere=True, problem=error)
    own = {key: each for key, each in keys.items() if each.value is not None}
    base = component or {}
    return StepSpec(
        name,
        node,
        type or "command",
        {**_loosely(_input, base, "inputs"), **_loosely(_input, own, "inputs")},
        {**_loosely(_output, base, "outputs"), **_loosely(_output, own, "outputs")},
        {**base, **own},
        elsewhere,
    )


def _loosely(parse: Any, keys: Mapping[str, YamlNode], key: str) -> dict[str, Any]:
    """The inputs or outputs of a step that is not ours to judge."""
    found = {}
    for name, node in keys[key].entries().items() if key in keys else ():
        with contextlib.suppress(ConfigError):
            found[name] = parse(name, node)
    return found


def _parallel(name: str, node: YamlNode, own: Mapping[str, YamlNode]) -> StepSpec:
    component, elsewhere = _component(own, needed=True)
    if elsewhere:
        raise own["component"].wrong(
            f"the component {own['component'].value} is registered in Azure; give its YAML file: component: ./it.yml"
        )
    base: Mapping[str, YamlNode] = {}
    if component is not None:
        root = component.get("type", own["component"])
        if "type" in component and component["type"].text() != "parallel":
            raise root.wrong(f"got {root.value!r}; the component of a parallel job has `type: parallel`")
        base = _checked(component, PARALLEL_KEYS)
    inputs = _inputs(own, base, component is not None)
    outputs = _outputs(own, base, component is not None)
    keys = {key: value for key, value in {**base, **own}.items() if key in (*_SETTINGS, "compute", "description")}
    for section, allowed in (("task", _TASK), ("retry_settings", _RETRY), ("resources", _RESOURCES)):
        for told in (base, own):
            if section in told:
                keys |= told[section].fields(allowed)
    for told in (base, own):
        if "environment_variables" in told:
            for variable, value in told["environment_variables"].entries().items():
                keys[f"environment_variables.{variable}"] = value
    if "entry_script" not in keys:
        raise _missing_task(node, own, base)
    return StepSpec(name, node, "parallel", inputs, outputs, keys)


def _inputs(own: Mapping[str, YamlNode], base: Mapping[str, YamlNode], has_component: bool) -> dict[str, StepInputSpec]:
    """Of a parallel step: what its component declares, with the values that the step gives."""
    inputs = {name: _input(name, node) for name, node in _entries(base, "inputs").items()}
    for name, node in _entries(own, "inputs").items():
        given, known = _input(name, node), inputs.get(name)
        if known is not None:
            given = replace(
                given,
                value=given.value or known.value,
                is_literal=given.is_literal if given.value else known.is_literal,
                type=given.type or known.type,
                mode=given.mode or known.mode,
                optional=known.optional,
            )
        elif has_component:
            raise node.wrong(f"the component has no input {name!r}{near(name, inputs)}")
        inputs[name] = given
    return inputs


def _outputs(
    own: Mapping[str, YamlNode], base: Mapping[str, YamlNode], has_component: bool
) -> dict[str, StepOutputSpec]:
    outputs = {name: _output(name, node) for name, node in _entries(base, "outputs").items()}
    for name, node in _entries(own, "outputs").items():
        if has_component and name not in outputs:
            raise node.wrong(f"the component has no output {name!r}{near(name, outputs)}")
        outputs[name] = _output(name, node, outputs.get(name))
    return outputs


def _missing_task(node: YamlNode, own: Mapping[str, YamlNode], base: Mapping[str, YamlNode]) -> Exception:
    task = own.get("task") or base.get("task")
    if task is not None:
        return task.wrong("entry_script is missing; add it, such as `entry_script: score.py`")
    return node.wrong("task is missing; a parallel job needs `task: {code: ./src, entry_script: score.py, …}`")


def _checked(keys: Mapping[str, YamlNode], known: tuple[str, ...]) -> dict[str, YamlNode]:
    for key, node in keys.items():
        if key not in known:
            raise node.wrong(f"unknown key{near(key, known)}")
    return {key: node for key, node in keys.items() if node.value is not None}


def _component(keys: Mapping[str, YamlNode], needed: bool) -> tuple[dict[str, YamlNode] | None, bool]:
    """The keys of a job's component, and whether it is one of which we know nothing. Raises ConfigError."""
    node = keys.get("component")
    if node is None or node.value is None:
        return None, False
    if isinstance(node.value, dict):
        return node.entries(), False
    text = node.text("the path of a component's YAML file").removeprefix("file:")
    if text.startswith("azureml:"):
        return None, True
    path = node.local_path(text)
    if not os.path.isfile(path):
        if not needed:
            return None, True
        raise node.wrong(f"there is no file {path}; give the path of the component's YAML file")
    return read_nodes(path).entries(), False


def _input(name: str, node: YamlNode) -> StepInputSpec:
    if node.value is None:
        return StepInputSpec(name, node, None, True, optional=True)
    if isinstance(node.value, str):
        return StepInputSpec(name, node, node, True)
    keys = node.fields(_INPUT)
    type = keys["type"].one_of((*DATA_TYPES, *LITERAL_TYPES)) if "type" in keys else None
    mode = keys["mode"].one_of(_MODES) if "mode" in keys else None
    optional = "optional" in keys and keys["optional"].flag()
    forms = [key for key in ("path", "value", "default") if key in keys]
    if len(forms) > 1:
        raise node.wrong(f"expected one of path, value and default, got {' and '.join(forms)}; remove one")
    if "path" in keys and type in LITERAL_TYPES and only_expression(keys["path"].text()) is None:
        raise keys["path"].wrong(f"an input of type {type} has no path; write its value: `{name}: …`")
    value = keys[forms[0]] if forms else None
    if value is not None:
        value.text("a path, or a literal value")
    return StepInputSpec(name, node, value, "path" not in keys and type not in DATA_TYPES, type, mode, optional)


def _output(name: str, node: YamlNode, declared: StepOutputSpec | None = None) -> StepOutputSpec:
    _check_name(name, node)
    base = declared or StepOutputSpec(name)
    if node.value is None:
        return base
    if isinstance(node.value, str):
        return replace(base, binding=node)
    keys = node.fields(_OUTPUT)
    path = keys.get("path")
    if path is not None and only_expression(path.text()) is not None:
        return replace(base, binding=path)
    return replace(
        base,
        type=keys["type"].one_of(DATA_TYPES) if "type" in keys else base.type,
        path=path or base.path,
    )
