"""ParallelRunConfig: how the mini-batches of a step are made, run and written.

::

    ParallelRunConfig(…) ── each value checked ──► attributes ── settings(values) ──► plain values of one submission
                                                       ▲ │
                                    load_yaml(ws, path) ─┘ └─► save_to_yaml(path)

In a YAML file the parameters' names are the keys. ``environment`` is the name of a registered one, ``{name: …, version:
…}``, or a whole definition; ``compute_target`` a name; a PipelineParameter a mapping ``{pipeline_parameter: NAME,
default_value: …}``. What is left out has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mpi_prs.azureml.compute.target import ComputeTarget
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.core import values as check
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import ConfigError, PipelineError
from mpi_prs.core.files import replacing
from mpi_prs.core.words import near
from mpi_prs.core.yaml import as_yaml, read_document

DEFAULT_FILE_NAME = "parallel_run_step.txt"


class _Setting(NamedTuple):
    """What one parameter takes.

    Attributes:
        check: for its value.
        promoted: whether a PipelineParameter may stand for it.
        default: where nothing or None is given.
    """

    check: check.Check
    promoted: bool = False
    default: Any = None


def _environment(value: Any) -> Environment:
    if not isinstance(value, Environment):
        hint = f'; a registered one is Environment.get(ws, "{value}")' if isinstance(value, str) else ""
        raise check.WrongValue(f"expected an Environment{hint}", value)
    return value


def _compute_target(value: Any) -> ComputeTarget | str:
    if isinstance(value, ComputeTarget) or (isinstance(value, str) and value.strip()):
        return value
    raise check.WrongValue("expected an AmlCompute, such as ws.compute_targets['cpucluster'], or its name", value)


_SETTINGS: dict[str, _Setting] = {
    "environment": _Setting(_environment),
    "entry_script": _Setting(check.path),
    "error_threshold": _Setting(check.whole_number(-1, check.HUGE)),
    "output_action": _Setting(check.one_of("append_row", "summary_only")),
    "compute_target": _Setting(_compute_target),
    "node_count": _Setting(check.whole_number(1), promoted=True),
    "process_count_per_node": _Setting(check.whole_number(1), promoted=True),
    "mini_batch_size": _Setting(check.mini_batch_size, promoted=True),
    "source_directory": _Setting(check.path),
    "description": _Setting(check.text),
    "logging_level": _Setting(check.one_of("WARNING", "INFO", "DEBUG", upper=True), promoted=True, default="INFO"),
    "run_invocation_timeout": _Setting(check.seconds, promoted=True, default=60),
    "run_max_try": _Setting(check.whole_number(1), promoted=True, default=3),
    "append_row_file_name": _Setting(check.file_name, default=DEFAULT_FILE_NAME),
    "allowed_failed_count": _Setting(check.whole_number(-1, check.HUGE)),
    "allowed_failed_percent": _Setting(check.percent),
    "partition_keys": _Setting(check.partition_keys, promoted=True),
    "environment_variables": _Setting(check.variables),
    "input_format": _Setting(check.text),
}
_REQUIRED = {
    "entry_script": "the user's script with init() and run(), such as 'score.py'",
    "error_threshold": "how many items may fail, such as 10, or -1: any number",
    "output_action": "'append_row' or 'summary_only'",
    "compute_target": "an AmlCompute, or the name of one",
    "node_count": "the number of nodes, such as 2",
}
PROMOTED = tuple(name for name, setting in _SETTINGS.items() if setting.promoted)
"""The parameters that a PipelineParameter may stand for."""


class ParallelRunConfig(Surface):
    """The settings of a ParallelRunStep; the attributes are the parameters, with their defaults filled in.

    Attributes:
        environment: an Environment; ``None``: the interpreter at hand.
        entry_script: the user's script; relative to ``source_directory`` where that is given.
        error_threshold: failed items above which the job is aborted; -1: any number may fail.
        output_action: ``append_row`` or ``summary_only``.
        compute_target: an AmlCompute, or the name of one.
        node_count: nodes; may be a PipelineParameter.
        process_count_per_node: processes on a node, default 1; may be a PipelineParameter.
        mini_batch_size: files of a FileDataset (default 10), or a size such as ``10MB`` of a TabularDataset (default
            ``1MB``); may be a PipelineParameter.
        source_directory: the folder that is copied for the run; default: that of the entry script.
        description: a note for people.
        logging_level: ``WARNING``, ``INFO`` or ``DEBUG``; may be a PipelineParameter.
        run_invocation_timeout: seconds that one ``run()`` may take; may be a PipelineParameter.
        run_max_try: tries of a mini-batch in all; may be a PipelineParameter.
        append_row_file_name: the output file.
        allowed_failed_count: failed mini-batches above which the job is aborted; ``None``: any number may fail.
        allowed_failed_percent: the same in percent.
        partition_keys: one mini-batch for each combination of these keys, instead of ``mini_batch_size``; a list, or
            its JSON text in a PipelineParameter.
        environment_variables: of the user's processes.
        input_format: of the ``azureml.contrib`` class; accepted and not used: the inputs say what they are.
    """

    def __init__(
        self,
        environment: Environment | None = None,
        entry_script: str | None = None,
        error_threshold: int | None = None,
        output_action: str | None = None,
        compute_target: ComputeTarget | str | None = None,
        node_count: int | PipelineParameter | None = None,
        process_count_per_node: int | PipelineParameter | None = None,
        mini_batch_size: int | str | PipelineParameter | None = None,
        source_directory: str | None = None,
        description: str | None = None,
        logging_level: str | PipelineParameter | None = "INFO",
        run_invocation_timeout: int | PipelineParameter | None = 60,
        run_max_try: int | PipelineParameter | None = 3,
        append_row_file_name: str | None = None,
        allowed_failed_count: int | None = None,
        allowed_failed_percent: float | None = None,
        partition_keys: list[str] | PipelineParameter | None = None,
        environment_variables: Mapping[str, str] | None = None,
        input_format: str | None = None,
    ) -> None:
        """See the class.

        Raises:
            PipelineError: a value is missing, of the wrong type or out of range, or two exclude each other.
        """
        self.environment: Environment | None = _checked("environment", environment)
        self.entry_script: str = _checked("entry_script", entry_script)
        self.error_threshold: int = _checked("error_threshold", error_threshold)
        self.output_action: str = _checked("output_action", output_action)
        self.compute_target: ComputeTarget | str = _checked("compute_target", compute_target)
        self.node_count: int | PipelineParameter = _checked("node_count", node_count)
        self.process_count_per_node: int | PipelineParameter | None = _checked(
            "process_count_per_node", process_count_per_node
        )
        self.mini_batch_size: int | str | PipelineParameter | None = _checked("mini_batch_size", mini_batch_size)
        self.source_directory: str | None = _checked("source_directory", source_directory)
        self.description: str | None = _checked("description", description)
        self.logging_level: str | PipelineParameter = _checked("logging_level", logging_level)
        self.run_invocation_timeout: int | float | PipelineParameter = _checked(
            "run_invocation_timeout", run_invocation_timeout
        )
        self.run_max_try: int | PipelineParameter = _checked("run_max_try", run_max_try)
        self.append_row_file_name: str = _checked("append_row_file_name", append_row_file_name)
        self.allowed_failed_count: int | None = _checked("allowed_failed_count", allowed_failed_count)
        self.allowed_failed_percent: float | None = _checked("allowed_failed_percent", allowed_failed_percent)
        self.partition_keys: list[str] | PipelineParameter | None = _checked("partition_keys", partition_keys)
        self.environment_variables: dict[str, str] = _checked("environment_variables", environment_variables) or {}
        self.input_format: str | None = _checked("input_format", input_format)
        self._check_one_partitioning()

    def __repr__(self) -> str:
        given = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in ("entry_script", "compute_target", "node_count")
        )
        return f"ParallelRunConfig({given}, …)"

    def parameters(self) -> dict[str, PipelineParameter]:
        """The settings that a PipelineParameter stands for."""
        values = {name: getattr(self, name) for name in PROMOTED}
        return {name: value for name, value in values.items() if isinstance(value, PipelineParameter)}

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All settings as plain values, for one submission; attributes that were set since are checked here.

        Args:
            values: pipeline parameter name → value.

        Raises:
            PipelineError: a value is missing, or does not fit the setting that it is for.
        """
        self._check_one_partitioning()
        plain = {name: _checked(name, getattr(self, name)) for name in _SETTINGS}
        for name, parameter in self.parameters().items():
            if parameter.name not in values:
                raise PipelineError(
                    f"ParallelRunConfig: {name}: there is no value for the PipelineParameter {parameter.name!r}"
                    f"{near(parameter.name, values)}"
                )
            plain[name] = _value(name, values[parameter.name], f" (PipelineParameter {parameter.name!r})")
        plain["process_count_per_node"] = plain["process_count_per_node"] or 1
        return plain

    def _check_one_partitioning(self) -> None:
        if self.mini_batch_size is not None and self.partition_keys is not None:
            raise PipelineError(
                "ParallelRunConfig: partition_keys and mini_batch_size exclude each other, since each combination of "
                "the keys is a mini-batch; remove one of the two"
            )

    def save_to_yaml(self, path: str | Path) -> None:
        """Write the settings to a YAML file: the parameters' names are its keys; see :meth:`load_yaml`.

        Raises:
            PipelineError: it cannot be written.
        """
        _save(self, _file(path, "save_to_yaml"))

    @staticmethod
    def load_yaml(workspace: Workspace, path: str | Path) -> ParallelRunConfig:
        """The settings in a YAML file that :meth:`save_to_yaml` has written, or somebody by hand.

        Args:
            workspace: where ``environment`` is looked up, which may be the name of a registered one.
            path: the file.

        Raises:
            PipelineError: the file cannot be read, or has something that is no setting.
        """
        return _load(workspace, _file(path, "load_yaml"))


def _file(path: Any, method: str) -> Path:
    try:
        return Path(check.path(path))
    except check.WrongValue as error:
        raise PipelineError(**error.fields(f"ParallelRunConfig.{method}: path")) from None


def _checked(name: str, value: Any) -> Any:
    """The attribute for a parameter. Raises PipelineError."""
    setting = _SETTINGS[name]
    if value is None:
        if name in _REQUIRED:
            raise PipelineError(f"ParallelRunConfig: {name} is missing; give {_REQUIRED[name]}")
        return setting.default
    if isinstance(value, PipelineParameter):
        if not setting.promoted:
            raise PipelineError(
                f"ParallelRunConfig: {name} cannot be a PipelineParameter; those that can are {', '.join(PROMOTED)}"
            )
        _value(name, value.default_value, f" (default of the PipelineParameter {value.name!r})")
        return value
    return _value(name, value, "")


def _value(name: str, value: Any, whose: str) -> Any:
    try:
        return _SETTINGS[name].check(value)
    except check.WrongValue as error:
        fields = error.fields(name, whose, secret=name == "environment_variables")
        raise PipelineError(**fields).at(key="ParallelRunConfig") from None


# As a YAML file


_STANDS_FOR = "pipeline_parameter"
_VARIABLES = [f"environment.{key}" for key in ("environmentVariables", "environment_variables")]
_TEXT_KEYS = ("description", "environment_variables", *_VARIABLES)
"""Below these keys ``1.10`` and ``true`` mean the text, as in the job config."""


def _save(config: ParallelRunConfig, path: Path) -> None:
    """Write it. Raises PipelineError."""
    data = {key: _plain(getattr(config, key)) for key in _SETTINGS}
    shown = {key: value for key, value in data.items() if value not in (None, {})}
    try:
        with replacing(path) as file:
            file.write(as_yaml(shown).encode())
    except OSError as error:
        raise PipelineError(f"ParallelRunConfig.save_to_yaml: cannot write {path}: {error.strerror}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, PipelineParameter):
        return {_STANDS_FOR: value.name, "default_value": value.default_value}
    if isinstance(value, ComputeTarget):
        return value.name
    if isinstance(value, Environment):
        return value.definition()
    return value


def _load(workspace: Any, path: Path) -> ParallelRunConfig:
    """Read it. Raises PipelineError."""
    try:
        data = read_document(path, (), _TEXT_KEYS, "configuration", no_numbers=["environment"]).data
    except ConfigError as error:
        raise PipelineError(str(error)).at(key="ParallelRunConfig.load_yaml") from None
    for key in data:
        if key not in _SETTINGS:
            raise PipelineError(f"ParallelRunConfig.load_yaml: {path}: unknown key {key!r}{near(str(key), _SETTINGS)}")
    given = {key: _object(path, key, value, workspace) for key, value in data.items()}
    try:
        return ParallelRunConfig(**given)
    except PipelineError as error:
        raise error.at(path=path) from None


def _object(path: Path, key: str, value: Any, workspace: Any) -> Any:
    if key == "environment":
        return _environment_of(path, value, workspace)
    if isinstance(value, Mapping) and _STANDS_FOR in value:
        if set(value) != {_STANDS_FOR, "default_value"}:
            raise PipelineError(
                f"ParallelRunConfig.load_yaml: {path}: {key}: a pipeline parameter has the keys {_STANDS_FOR} and "
                "default_value"
            )
        try:
            return PipelineParameter(value[_STANDS_FOR], value["default_value"])
        except PipelineError as error:
            raise error.at(path=path, key=key).at(key="ParallelRunConfig.load_yaml") from None
    return value


def _environment_of(path: Path, value: Any, workspace: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        return Environment.get(workspace, value)
    if not isinstance(value, Mapping):
        raise PipelineError(
            f"ParallelRunConfig.load_yaml: {path}: environment: expected the name of a registered environment, or a "
            "mapping that defines one"
        )
    if set(value) <= {"name", "version"} and isinstance(value.get("name"), str):
        version = value.get("version")
        return Environment.get(workspace, value["name"], None if version is None else str(version))
    return Environment.from_definition(dict(value))
