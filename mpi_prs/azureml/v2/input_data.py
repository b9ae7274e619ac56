"""``input_data``: the one input that becomes mini-batches, as a section of the job config's ``inputs``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.azureml.v2.bindings import only_expression, shown
from mpi_prs.azureml.v2.mltable import FILE_NAME, read_mltable, section_of
from mpi_prs.azureml.v2.nodes import YamlNode
from mpi_prs.azureml.v2.parse import StepSpec
from mpi_prs.azureml.v2.resolving import Assets, Data, LocatedData, Resolver, plain_url
from mpi_prs.core.urls import is_url
from mpi_prs.core.words import near
from mpi_prs.job.config.inputs import StorageSection
from mpi_prs.storage.credentials import Storage

_MODES = {"download": "download", "eval_download": "download", "direct": "direct"}


@dataclass(frozen=True)
class InputData:
    """What becomes mini-batches.

    Attributes:
        section: of ``inputs``.
        node: what named the data.
        notes: what a person should know.
    """

    section: dict[str, Any]
    node: YamlNode
    notes: list[str]


def input_data(resolver: Resolver) -> InputData:
    """The ``input_data`` of the resolver's step.

    Raises:
        ConfigError: it is missing, is no data, or its MLTable cannot be used.
    """
    name, node = name_of_input_data(resolver.step)
    data = resolver.input(name)
    if data is None:
        given = resolver.step.inputs[name].node
        raise given.wrong(f"it has no data; name it with --set {given.shown_key}.path=DATA")
    if isinstance(data, str):
        raise node.wrong(
            f"the input {name} is the text {data!r}; expected data: `{name}: {{type: uri_folder, path: …}}`"
        )
    notes = []
    if data.type != "mltable" and not is_url(data.location) and os.path.isfile(Path(data.location, FILE_NAME)):
        notes.append(
            f"{data.location} has an MLTable file, but the input {name} is of type {data.type}: its files are read as "
            "they are"
        )
    return InputData(_section(data, resolver.assets), data.node, notes)


def name_of_input_data(step: StepSpec) -> tuple[str, YamlNode]:
    """Which input of a step it is, and what says so. Raises ConfigError."""
    node = step.keys.get("input_data")
    if node is None:
        example = next(iter(step.inputs), "data")
        raise step.node.wrong(f"input_data is missing; add it, such as `input_data: ${{{{inputs.{example}}}}}`")
    parts = only_expression(node.text("an expression such as ${{inputs.data}}"))
    if parts is None or len(parts) != 2 or parts[0] != "inputs":
        raise node.wrong(f"got {node.value!r}; expected one of the step's inputs, such as ${{{{inputs.data}}}}")
    if parts[1] not in step.inputs:
        raise node.wrong(f"{shown(parts)}: the step has no input {parts[1]!r}{near(parts[1], step.inputs)}")
    return parts[1], node


def mode_of(data: Data) -> str:
    """How the data comes to the script: ``mount``, ``download`` or ``direct``."""
    return _MODES.get(data.mode, "mount")


def place_of(data: Data) -> str | Path:
    """Its URL or path; that is no text, since text would be expanded."""
    return data.location if is_url(data.location) else Path(data.location)


def _section(data: Data, assets: Assets) -> dict[str, Any]:
    mode = mode_of(data)
    if data.section is not None:
        return {**data.section, **({"mode": mode} if "files" in data.section else {})}
    if data.type == "mltable":

        def locate(text: str, node: YamlNode) -> LocatedData:
            if text.startswith("azureml:"):
                return assets.data(text, "uri_folder", node)
            return LocatedData(plain_url(text, node))

        root = read_mltable(data.location, _storage(data.storage), data.node)
        return section_of(root, locate, mode, data.storage)
    section: dict[str, Any] = {"files": [place_of(data)], "mode": mode}
    return section if data.storage is None else {**section, "storage": dict(data.storage)}


def _storage(section: Mapping[str, Any] | None) -> Storage:
    return StorageSection.model_validate(dict(section or {})).storage()
