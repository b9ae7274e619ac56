"""The inputs and side inputs of a step as sections of a job config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpi_prs.errors import PipelineError
from mpi_prs.pipeline.data import PipelineOutputTabularDataset
from mpi_prs.pipeline.step_inputs import StepInput

if TYPE_CHECKING:
    from mpi_prs.pipeline.compiling import StepPlace

_BELOW = re.compile(r"/\*\*(/\*)?$")
_GLOB = re.compile(r"[*?[]")


def input_section(value: StepInput, values: Mapping[str, Any], place: StepPlace) -> dict[str, Any]:
    """An entry of the job config's ``inputs``.

    A FileDataset in the mode ``direct`` is mounted, as the service does: ``run()`` gets paths.

    Raises:
        PipelineError: there is no value or place for it.
    """
    dataset = _dataset(value, values, place)
    section: dict[str, Any] = dict(dataset.to_input())
    if not value.is_tabular:
        section["mode"] = _mode(value)
    return _with_storage(section, value, place)


def side_input_section(value: StepInput, values: Mapping[str, Any], place: StepPlace) -> dict[str, Any]:
    """An entry of the job config's ``side_inputs``.

    Raises:
        PipelineError: it is not one file or one folder; or there is no value or place for it.
    """
    from mpi_prs.workspace.data_path import DataPath

    if value.upstream is not None:
        return _with_storage({"path": _location(value, place), "mode": _mode(value)}, value, place)
    dataset = value.dataset(values)
    if isinstance(dataset, DataPath):
        section: dict[str, Any] = {"path": dataset.url, "mode": _mode(value)}
        return section if dataset.datastore.is_folder else {**section, "storage": dataset.datastore.storage_section()}
    given = dataset.to_input()
    paths = [given["files"]] if isinstance(given["files"], str) else list(given["files"])
    path = _BELOW.sub("", paths[0])
    if len(paths) != 1 or _GLOB.search(path):
        shown = ", ".join(paths[:3]) + (" …" if len(paths) > 3 else "")
        raise PipelineError(
            f"side input {value.name!r}: a side input is one file or one folder, but the dataset has {shown}; make a "
            "dataset of each file, or of the folder that they are in"
        )
    section = {"path": path, "mode": _mode(value)}
    return {**section, "storage": given["storage"]} if "storage" in given else section


def definition_of(value: StepInput, values: Mapping[str, Any], place: StepPlace) -> dict[str, Any] | None:
    """What makes the dataset again in the script; ``None``: it is no dataset, but a place on a datastore."""
    dataset = _dataset(value, values, place)
    definition = getattr(dataset, "definition", None)
    return None if definition is None else dict(definition())


def _dataset(value: StepInput, values: Mapping[str, Any], place: StepPlace) -> Any:
    if value.upstream is None:
        return value.dataset(values)
    from mpi_prs.workspace.dataset import Dataset

    location = _location(value, place)
    if not isinstance(value.given, PipelineOutputTabularDataset):
        return Dataset.File.from_files(path=location, validate=False)
    rows = value.given
    if rows.file_extension:
        location = f"{location.rstrip('/')}/**/*{rows.file_extension}"
    make = {
        "delimited": Dataset.Tabular.from_delimited_files,
        "parquet": Dataset.Tabular.from_parquet_files,
    }[rows.format]
    table = make(path=location, validate=False, **rows.options)
    if rows.kept is not None:
        table = table.keep_columns(rows.kept)
    return table.drop_columns(rows.dropped) if rows.dropped else table


def _location(value: StepInput, place: StepPlace) -> str:
    output = value.upstream
    if output not in place.upstream:
        raise PipelineError(f"input {value.name!r}: it is not known where the output {output!r} lies")
    return place.upstream[output]


def _mode(value: StepInput) -> str:
    return "mount" if value.mode == "direct" else value.mode


def _with_storage(section: dict[str, Any], value: StepInput, place: StepPlace) -> dict[str, Any]:
    """With how to get at the store of an earlier output."""
    storage = place.upstream_storage.get(value.upstream) if value.upstream is not None else None
    return {**section, "storage": dict(storage)} if storage else section
