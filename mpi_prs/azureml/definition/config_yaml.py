"""A ParallelRunConfig as a YAML file: the parameters' names are the keys.

``environment`` is the name of a registered one, ``{name: …, version: …}``, or a whole definition; ``compute_target`` a
name; a PipelineParameter a mapping ``{pipeline_parameter: NAME, default_value: …}``. What is left out has its default.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_prs.azureml.definition.parallel_run_config import ParallelRunConfig
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.core.errors import ConfigError, PipelineError
from mpi_prs.core.files import replacing
from mpi_prs.core.words import near
from mpi_prs.job.config.yaml_reader import as_yaml, read_document

_KEYS = tuple(inspect.signature(ParallelRunConfig).parameters)
_PARAMETER = "pipeline_parameter"
_TEXT_KEYS = ("description", "environment_variables")
"""Below these keys ``1.10`` and ``true`` mean the text, as in the job config."""


def save(config: ParallelRunConfig, path: Path) -> None:
    """Write it. Raises PipelineError."""
    data = {key: _plain(getattr(config, key)) for key in _KEYS}
    shown = {key: value for key, value in data.items() if value not in (None, {})}
    try:
        with replacing(path) as file:
            file.write(as_yaml(shown).encode())
    except OSError as error:
        raise PipelineError(f"ParallelRunConfig.save_to_yaml: cannot write {path}: {error.strerror}") from error


def _plain(value: Any) -> Any:
    from mpi_prs.azureml.compute.target import ComputeTarget
    from mpi_prs.azureml.environments.environment import Environment

    if isinstance(value, PipelineParameter):
        return {_PARAMETER: value.name, "default_value": value.default_value}
    if isinstance(value, ComputeTarget):
        return value.name
    if isinstance(value, Environment):
        return value.definition()
    return value


def load(workspace: Any, path: Path) -> ParallelRunConfig:
    """Read it. Raises PipelineError."""
    try:
        data = read_document(path, (), _TEXT_KEYS, "configuration").data
    except ConfigError as error:
        raise PipelineError(str(error)).at(key="ParallelRunConfig.load_yaml") from None
    for key in data:
        if key not in _KEYS:
            raise PipelineError(f"ParallelRunConfig.load_yaml: {path}: unknown key {key!r}{near(str(key), _KEYS)}")
    given = {key: _object(path, key, value, workspace) for key, value in data.items()}
    try:
        return ParallelRunConfig(**given)
    except PipelineError as error:
        raise error.at(path=path) from None


def _object(path: Path, key: str, value: Any, workspace: Any) -> Any:
    if key == "environment":
        return _environment(path, value, workspace)
    if isinstance(value, Mapping) and _PARAMETER in value:
        if set(value) != {_PARAMETER, "default_value"}:
            raise PipelineError(
                f"ParallelRunConfig.load_yaml: {path}: {key}: a pipeline parameter has the keys {_PARAMETER} and "
                "default_value"
            )
        try:
            return PipelineParameter(value[_PARAMETER], value["default_value"])
        except PipelineError as error:
            raise error.at(path=path, key=key).at(key="ParallelRunConfig.load_yaml") from None
    return value


def _environment(path: Path, value: Any, workspace: Any) -> Any:
    from mpi_prs.azureml.environments.environment import Environment

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
