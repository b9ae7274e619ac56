"""The inputs and side inputs of a step: whatever the SDK takes for one, in one form."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
from mpi_prs.azureml.datasets.outputs import OutputFileDatasetConfig, OutputTabularDatasetConfig
from mpi_prs.azureml.datastores.datastore import DataPath
from mpi_prs.azureml.definition.data import (
    InputPortBinding,
    PipelineData,
    PipelineOutputFileDataset,
    PipelineOutputTabularDataset,
)
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.words import near

_TAKEN = (
    "a DatasetConsumptionConfig, such as dataset.as_named_input('images').as_mount(), a dataset, "
    "output.as_dataset() or output.as_input('name')"
)


@dataclass(frozen=True, eq=False)
class StepInput:
    """One input or side input.

    Attributes:
        name: of the input.
        given: what the user gave.
        source: a dataset or a place on a datastore, or a PipelineParameter that stands for one; ``None``: it is an
            output of another step.
        mode: ``mount``, ``download`` or ``direct``.
        is_tabular: whether it is rows.
        upstream: the output of another step that it is, if it is one.
        view: has ``dataset_at(location)``: the dataset that ``upstream`` is once it lies somewhere.
    """

    name: str
    given: Any
    source: Any
    mode: str
    is_tabular: bool
    upstream: Any = None
    view: Any = None

    @property
    def parameter(self) -> PipelineParameter | None:
        """What stands for the data, if a parameter does."""
        return self.source if isinstance(self.source, PipelineParameter) else None

    def is_given_as(self, argument: Any) -> bool:
        """Whether ``argument`` is this: the same object, or a DatasetConsumptionConfig that says the same."""
        if isinstance(argument, DatasetConsumptionConfig) and isinstance(self.given, DatasetConsumptionConfig):
            return argument == self.given
        return any(argument is mine for mine in (self.given, self.source, self.upstream) if mine is not None)

    def dataset(self, values: Mapping[str, Any]) -> Any:
        """The dataset, or place on a datastore, of this submission; not of an output of another step.

        Raises:
            PipelineError: the parameter that stands for it has no value.
        """
        parameter = self.parameter
        if parameter is None:
            return self.source
        if parameter.name not in values:
            raise PipelineError(
                f"input {self.name!r}: there is no value for the PipelineParameter {parameter.name!r}"
                f"{near(parameter.name, values)}"
            )
        return values[parameter.name]


def is_output(value: Any) -> bool:
    """Whether this is what a step writes: a PipelineData or an OutputFileDatasetConfig."""
    return isinstance(value, (PipelineData, OutputFileDatasetConfig))


def output_key(output: Any) -> Any:
    """What two objects share that are the same output: ``as_mount``, ``as_upload`` and ``register_on_complete`` of an
    OutputFileDatasetConfig make another object, not another output."""
    return output if isinstance(output, PipelineData) else (output.name, output.destination)


def step_inputs(given: Any) -> list[StepInput]:
    """The inputs of a step: at least one, all files or all rows, each name once. Raises PipelineError."""
    inputs = list(_each(given, "inputs"))
    if not inputs:
        raise PipelineError(f"ParallelRunStep: inputs is empty; give a list of at least one input: {_TAKEN}")
    found = [_step_input(value, f"inputs[{index}]", index) for index, value in enumerate(inputs)]
    for value in found:
        if value.is_tabular != found[0].is_tabular:
            raise PipelineError(
                f"ParallelRunStep: inputs are of one type, but {found[0].name!r} is {_type(found[0])} and "
                f"{value.name!r} is {_type(value)}; make a step of each"
            )
    _check_names(found, "inputs")
    return found


def step_side_inputs(given: Any) -> list[StepInput]:
    """The side inputs of a step, each name once. Raises PipelineError."""
    found = []
    for index, value in enumerate(_each(given, "side_inputs")):
        if isinstance(value, DataPath):
            found.append(StepInput(_path_name(value), value, value, "mount", False))
        else:
            found.append(_step_input(value, f"side_inputs[{index}]", index))
    _check_names(found, "side_inputs")
    return found


def check_both(inputs: Sequence[StepInput], side_inputs: Sequence[StepInput]) -> None:
    """Refuse a name that an input and a side input share, unless they are the same. Raises PipelineError."""
    by_name = {value.name: value for value in inputs}
    for side_input in side_inputs:
        other = by_name.get(side_input.name)
        if other is not None and not other.is_given_as(side_input.given):
            raise PipelineError(
                f"ParallelRunStep: inputs and side_inputs both have one named {other.name!r}; name one of them "
                "otherwise, by as_named_input"
            )


def _each(given: Any, what: str) -> Iterator[Any]:
    if given is None:
        return
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sequence):
        raise PipelineError(f"ParallelRunStep: {what} is a list, but got {type(given).__name__}; put it into [ ]")
    yield from given


def _step_input(value: Any, where: str, index: int) -> StepInput:
    if isinstance(value, (FileDataset, TabularDataset)):
        name = re.sub(r"\W", "_", value.name or f"input_{index}", flags=re.ASCII)
        return StepInput(name, value, value, "direct", isinstance(value, TabularDataset))
    if isinstance(value, DatasetConsumptionConfig):
        if isinstance(value.dataset, PipelineParameter):
            return _parameter(value, where)
        if isinstance(value.dataset, (FileDataset, TabularDataset)):
            return StepInput(value.name, value, value.dataset, value.mode, isinstance(value.dataset, TabularDataset))
        found = _of_output(value, value.dataset)
    else:
        found = _of_output(value, value)
    if found is None:
        hint = "; write DatasetConsumptionConfig('name', parameter)" if isinstance(value, PipelineParameter) else ""
        raise PipelineError(f"ParallelRunStep: {where} is {_TAKEN}, but got {type(value).__name__}{hint}")
    return found


def _parameter(value: Any, where: str) -> StepInput:
    stands_for = value.dataset.default_value
    if not isinstance(stands_for, (FileDataset, TabularDataset)):
        raise PipelineError(
            f"ParallelRunStep: {where}: the PipelineParameter {value.dataset.name!r} has {value.dataset.kind} as its "
            "default, and cannot stand for a dataset"
        )
    return StepInput(value.name, value, value.dataset, value.mode, isinstance(stands_for, TabularDataset))


def _of_output(given: Any, output: Any) -> StepInput | None:
    """An output of another step, as whatever the user made of it; ``None``: it is none."""
    name, mode = getattr(given, "name", ""), getattr(given, "mode", "mount")
    if isinstance(output, (PipelineOutputFileDataset, PipelineOutputTabularDataset)):
        is_tabular = isinstance(output, PipelineOutputTabularDataset)
        return StepInput(name, given, None, mode, is_tabular, output.pipeline_data, output)
    if isinstance(output, InputPortBinding):
        return StepInput(
            name, given, None, output.bind_mode, False, output.bind_object, output.bind_object.as_dataset()
        )
    if isinstance(output, PipelineData):
        return StepInput(name, given, None, mode, False, output, output.as_dataset())
    if isinstance(output, OutputTabularDatasetConfig):
        return StepInput(name, given, None, "direct", True, output.output, output)
    if isinstance(output, OutputFileDatasetConfig):
        return StepInput(name, given, None, "mount" if mode == "upload" else mode, False, output, output)
    return None


def _path_name(path: Any) -> str:
    """The name that ``datastore.path(…, data_reference_name=…)`` gave, or one made of the place, always the same."""
    if path.name and re.fullmatch(r"[A-Za-z_]\w*", path.name, re.ASCII):
        return str(path.name)
    digest = hashlib.sha256(f"{path.datastore.name}\n{path.path_on_datastore}".encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', path.datastore.name)}_{digest}"


def _check_names(inputs: Sequence[StepInput], what: str) -> None:
    names = [value.name for value in inputs]
    for name in names:
        if names.count(name) > 1:
            raise PipelineError(
                f"ParallelRunStep: {what}: two are named {name!r}; name one of them otherwise, by as_named_input"
            )


def _type(value: StepInput) -> str:
    return "tabular" if value.is_tabular else "of files"
