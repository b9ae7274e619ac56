"""The inputs and side inputs of a step as sections of a job config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mpi_prs.azureml.datastores.datastore import DataPath
from mpi_prs.azureml.definition.step_inputs import StepInput, output_key
from mpi_prs.azureml.submit.step_paths import StepPaths
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.urls import is_glob, is_url
from mpi_prs.core.words import near

_BELOW = re.compile(r"/\*\*(/\*)?$")


def input_section(value: StepInput, values: Mapping[str, Any], place: StepPaths) -> dict[str, Any]:
    """An entry of the job config's ``inputs``.

    A FileDataset in the mode ``direct`` is mounted, as by the service: ``run()`` gets paths.

    Raises:
        PipelineError: there is no value or place for it.
        WorkspaceError: a datastore is not registered any more, or a job cannot have this dataset.
    """
    section: dict[str, Any] = dict(_dataset(value, values, place).to_input())
    if value.mode == "download":
        section["mode"] = "download"
    return _with_storage(section, section.get("files") or section["table"], value, place)


def check_partition_keys(
    keys: Sequence[str], inputs: Sequence[StepInput], values: Mapping[str, Any], place: StepPaths
) -> None:
    """Refuse keys that an input does not have; those of Hive-style folders are known only from the folders.

    Raises:
        PipelineError: it names the input, the key and the near ones.
    """
    for value in inputs:
        dataset = _dataset(value, values, place)
        if dataset.partition_format is None:
            raise PipelineError(
                f"partition_keys: the input {value.name!r} has no partition_format, so there are no keys; make its "
                "dataset with one, such as partition_format='{user}/{name}.wav', or with partition_by"
            )
        known = dataset.keys if dataset.partition_format == "hive" else dataset.partition_keys
        for key in keys:
            if known and key not in known:
                raise PipelineError(
                    f"partition_keys: the input {value.name!r} has no partition key {key!r}{near(key, known)}"
                )


def side_input_section(value: StepInput, values: Mapping[str, Any], place: StepPaths) -> dict[str, Any]:
    """An entry of the job config's ``side_inputs``.

    Raises:
        PipelineError: it is not one file or one folder; or there is no value or place for it.
        WorkspaceError: a datastore is not registered any more.
    """
    mode = {"mode": "download" if value.mode == "download" else "mount"}
    if value.upstream is not None:
        path = location_of(value, place)
        return _with_storage({"path": path, **mode}, [path], value, place)
    found = value.dataset(values)
    if isinstance(found, DataPath):
        paths, storage = [found.url], found.datastore.storage_section()
    else:
        paths, storage = [source.pattern() for source in found.sources], found.storage_section()
    path = _BELOW.sub("", paths[0])
    if len(paths) != 1 or is_glob(path) or getattr(found, "is_cut", False):
        shown = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
        raise PipelineError(
            f"side input {value.name!r}: a side input is one file or one folder, but this is part of {shown}; give the "
            "file or the folder itself, or copy what is wanted into a folder of its own"
        )
    section = {"path": path, **mode, "storage": storage} if storage else {"path": path, **mode}
    return _with_storage(section, [path], value, place)


def definition_of(value: StepInput, values: Mapping[str, Any], place: StepPaths) -> dict[str, Any] | None:
    """What makes the dataset again in the script; ``None``: it is no dataset, but a place on a datastore."""
    dataset = _dataset(value, values, place)
    return None if isinstance(dataset, DataPath) else dict(dataset.definition())


def location_of(value: StepInput, place: StepPaths) -> str:
    """The folder or URL of an output of another step. Raises PipelineError."""
    for output, location in place.upstream.items():
        if output_key(output) == output_key(value.upstream):
            return location
    raise PipelineError(f"input {value.name!r}: it is not known where the output {value.upstream.name!r} lies")


def _dataset(value: StepInput, values: Mapping[str, Any], place: StepPaths) -> Any:
    if value.upstream is None:
        return value.dataset(values)
    return value.view.dataset_at(location_of(value, place))


def _with_storage(section: dict[str, Any], places: Sequence[str], value: StepInput, place: StepPaths) -> dict[str, Any]:
    """With how to get at its store. What needs nothing said of it must not take the credentials of the output's."""
    if value.upstream is not None:
        for output, storage in place.upstream_storage.items():
            if storage and output_key(output) == output_key(value.upstream):
                return {**section, "storage": dict(storage)}
    if "storage" not in section and place.output_storage and any(map(is_url, places)):
        return {**section, "storage": {}}
    return section
