"""What expressions stand for: literals, places of data, and folders of outputs.

::

    outputs/<pipeline>/<step>/               the output folder of a step (with --output: the folder named there)
                       <step>/<output>       what ${{outputs.…}} stands for; of append_row_to: the file, or the
                                             step's folder itself
                       <other step>/…        where the outputs of the other steps are looked for
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mpi_prs.azureml.v2.bindings import Parts, only_expression, replaced, shown
from mpi_prs.azureml.v2.nodes import YamlNode
from mpi_prs.azureml.v2.parse import DATA_TYPES, PipelineSpec, StepInputSpec, StepOutputSpec, StepSpec
from mpi_prs.core.urls import is_url
from mpi_prs.core.words import near

DEFAULT_FILE = "parallel_run_step.txt"


@dataclass(frozen=True)
class Data:
    """Where data lies.

    Attributes:
        location: an absolute path, or a URL.
        type: one of DATA_TYPES.
        mode: as in Azure.
        node: what named it.
        storage: the section ``storage`` of the job config that it needs; ``None``: the job's.
        section: of ``inputs``, where a registered dataset says more than the location does.
    """

    location: str
    type: str
    mode: str
    node: YamlNode
    storage: Mapping[str, Any] | None = None
    section: Mapping[str, Any] | None = None


class Assets(Protocol):
    """What is registered somewhere: ``azureml:…``."""

    def data(self, reference: str, type: str, node: YamlNode) -> LocatedData:
        """What a reference such as ``azureml:images:1`` or ``azureml://datastores/…`` names. Raises ConfigError."""


@dataclass(frozen=True)
class LocatedData:
    """Of :class:`Data`, what an asset tells."""

    location: str
    storage: Mapping[str, Any] | None = None
    section: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Resolver:
    """Expressions of one step, in its pipeline.

    Attributes:
        pipeline: with the step.
        step: whose expressions they are.
        output: the output folder of the step.
        assets: what is registered.
        upstream: places of other steps' outputs that were asked for, with what names each.
    """

    pipeline: PipelineSpec
    step: StepSpec
    output: Path
    assets: Assets
    upstream: dict[Path, tuple[StepSpec, YamlNode]] = field(default_factory=dict)

    # Inputs

    def input(self, name: str, step: StepSpec | None = None, seen: tuple[Any, ...] = ()) -> str | Data | None:
        """The value of an input of a step (this one): a literal, data, or ``None`` where it has none.

        Raises:
            ConfigError: what it is bound to does not exist, or the data does not.
        """
        step = step or self.step
        found = step.inputs[name]
        return self._value(found, (step.name, name), seen)

    def outer(self, node: YamlNode, seen: tuple[Any, ...] = ()) -> str:
        """The text of a setting, with values of ``${{parent.…}}``. Raises ConfigError."""

        def text_of(parts: Parts) -> str:
            value = self._bound(parts, node, seen)
            if isinstance(value, str):
                return value
            what = "has no value" if value is None else "is data, and no literal value"
            raise node.wrong(f"{shown(parts)} {what}")

        return replaced(node.text(), text_of)

    def _value(self, found: StepInputSpec, name: Any, seen: tuple[Any, ...]) -> str | Data | None:
        """The value of an input of a step or the pipeline; ``name`` tells it from all others."""
        if found.value is None:
            return None
        text = found.value.text()
        if name in seen:
            raise found.node.wrong(f"{text} leads back to itself; bind it to the data itself")
        seen = (*seen, name)
        parts = only_expression(text)
        if parts is not None:
            return self._with_type(self._bound(parts, found.value, seen), found)
        text = self.outer(found.value, seen)
        return text if found.is_literal else self._data(found, text, found.value)

    def _bound(self, parts: Parts, node: YamlNode, seen: tuple[Any, ...]) -> str | Data | None:
        if parts[0] != "parent":
            raise node.wrong(
                f"{shown(parts)}: expected ${{{{parent.inputs.NAME}}}} or ${{{{parent.jobs.STEP.outputs.NAME}}}}; "
                "inputs.NAME is for program_arguments and input_data"
            )
        if len(parts) == 3 and parts[1] == "inputs":
            inputs = self.pipeline.inputs
            if parts[2] not in inputs:
                raise node.wrong(f"{shown(parts)}: the pipeline has no input {parts[2]!r}{near(parts[2], inputs)}")
            return self._value(inputs[parts[2]], parts[2], seen)
        if len(parts) == 5 and parts[1] == "jobs" and parts[3] in ("inputs", "outputs"):
            steps = self.pipeline.steps
            if parts[2] not in steps:
                raise node.wrong(f"{shown(parts)}: there is no step {parts[2]!r}{near(parts[2], steps)}")
            step, name = steps[parts[2]], parts[4]
            known: Mapping[str, Any] = step.inputs if parts[3] == "inputs" else step.outputs
            if name not in known and not step.has_component_elsewhere:
                raise node.wrong(
                    f"{shown(parts)}: the step {step.name} has no {parts[3][:-1]} {name!r}{near(name, known)}"
                )
            if parts[3] == "inputs":
                return self.input(name, step, seen) if name in known else None
            output = self.output_of(step, name)
            place = self.place_of(step, output)
            self.upstream[place] = (step, node)
            return Data(str(place), output.type, "ro_mount", node)
        raise node.wrong(
            f"{shown(parts)} is not an expression that mpi-prs knows; expected ${{{{parent.inputs.NAME}}}} or "
            "${{parent.jobs.STEP.outputs.NAME}}"
        )

    def _data(self, found: StepInputSpec, text: str, node: YamlNode) -> Data:
        type = found.type if found.type in DATA_TYPES else "uri_folder"
        place = self._locate(text, type or "uri_folder", node)
        return Data(place.location, type or "uri_folder", found.mode or "ro_mount", node, place.storage, place.section)

    def _with_type(self, value: str | Data | None, found: StepInputSpec) -> str | Data | None:
        """The same, in the mode and of the type that the one who is bound says."""
        if not isinstance(value, Data):
            return value
        type = found.type if found.type in DATA_TYPES else value.type
        return Data(
            value.location, type or value.type, found.mode or value.mode, value.node, value.storage, value.section
        )

    def _locate(self, text: str, type: str, node: YamlNode) -> LocatedData:
        if text.startswith("azureml:"):
            return self.assets.data(text, type, node)
        if is_url(text):
            return LocatedData(plain_url(text, node))
        path = node.local_path(text)
        if not os.path.exists(path):
            raise node.wrong(f"there is no {path}{_beside(path)}")
        return LocatedData(str(path))

    # Outputs

    def output_of(self, step: StepSpec, name: str) -> StepOutputSpec:
        """An output, as the pipeline's own says where it is bound to that. Raises ConfigError."""
        found = step.outputs.get(name, StepOutputSpec(name))
        if found.binding is None:
            return found
        parts = only_expression(found.binding.text())
        if parts is None or len(parts) != 3 or parts[0] not in ("parent", "parents") or parts[1] != "outputs":
            raise found.binding.wrong(
                f"got {found.binding.value!r}; an output is bound to one of the pipeline: ${{{{parent.outputs.NAME}}}}"
            )
        if parts[2] not in self.pipeline.outputs:
            raise found.binding.wrong(
                f"{shown(parts)}: the pipeline has no output {parts[2]!r}{near(parts[2], self.pipeline.outputs)}"
            )
        own = self.pipeline.outputs[parts[2]]
        return StepOutputSpec(name, own.type if own.type != "uri_folder" else found.type, own.path or found.path)

    def folder_of(self, step: StepSpec) -> Path:
        """The output folder of a step."""
        return self.output if step.name == self.step.name else self.output.parent / step.name

    def place_of(self, step: StepSpec, output: StepOutputSpec) -> Path:
        """Where an output of a step lies: a file or a folder."""
        folder = self.folder_of(step)
        if output.name == appended_output(step):
            return folder / file_name(output) if output.is_file else folder
        return folder / (file_name(output) if output.is_file else output.name)


def _beside(path: Path) -> str:
    """What is near a path that does not exist, for a message."""
    try:
        return near(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def appended_output(step: StepSpec) -> str | None:
    """The output that ``append_row_to`` of a step names; ``None``: it names none."""
    node = step.keys.get("append_row_to")
    if not step.is_parallel or node is None or not isinstance(node.value, str):
        return None
    parts = only_expression(node.value)
    return parts[1] if parts is not None and len(parts) == 2 and parts[0] == "outputs" else None


def file_name(output: StepOutputSpec) -> str:
    """The name of the file that an output is: the last one of its path, else the output's own."""
    path = output.path.text() if output.path is not None else ""
    name = replaced(path, lambda parts: output.name if parts == ("output_name",) else "").rpartition("/")[2]
    return name if name and not name.startswith(".") else output.name


def plain_url(url: str, node: YamlNode) -> str:
    """A URL as our stores know it. Raises ConfigError."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() in ("wasb", "wasbs"):
        return f"abfs{'s' if scheme.lower() == 'wasbs' else ''}://{rest}"
    if scheme.lower() == "adl":
        raise node.wrong(
            f"{url}: Azure Data Lake Storage Gen1 is no more; give the abfss:// URL of where the data is now"
        )
    if re.fullmatch(r"azureml", scheme, re.IGNORECASE):
        raise node.wrong(f"{url}: expected azureml://datastores/NAME/paths/PATH")
    return url
