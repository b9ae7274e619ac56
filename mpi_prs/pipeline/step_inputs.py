"""The inputs and side inputs of a step: whatever the SDK takes for one, in one form.

Standard library only at import: entry scripts may import this module in another interpreter than ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpi_prs.errors import PipelineError
from mpi_prs.pipeline.data import (
    InputPortBinding,
    PipelineData,
    PipelineOutputFileDataset,
    PipelineOutputTabularDataset,
)
from mpi_prs.pipeline.parameter import PipelineParameter
from mpi_prs.workspace.records import near

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
        source: a dataset, a PipelineParameter that stands for one, or an output of another step.
        mode: ``mount``, ``download`` or ``direct``.
        is_tabular: whether it is rows.
    """

    name: str
    given: Any
    source: Any
    mode: str
    is_tabular: bool

    @property
    def parameter(self) -> PipelineParameter | None:
        """What stands for the data, if a parameter does."""
        return self.source if isinstance(self.source, PipelineParameter) else None

    @property
    def upstream(self) -> Any | None:
        """The output of another step that it is, if it is one."""
        return self.source if is_output(self.source) else None

    def dataset(self, values: Mapping[str, Any]) -> Any:
        """The dataset (or DataPath) of this submission.

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
    from mpi_prs.workspace.consumption import OutputFileDatasetConfig

    return isinstance(value, PipelineData | OutputFileDatasetConfig)


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
    from mpi_prs.workspace.data_path import DataPath

    found = []
    for index, value in enumerate(_each(given, "side_inputs")):
        if isinstance(value, DataPath):
            found.append(StepInput(_path_name(value), value, value, "mount", False))
        else:
            found.append(_step_input(value, f"side_inputs[{index}]", index))
    _check_names(found, "side_inputs")
    return found


def _each(given: Any, what: str) -> Iterator[Any]:
    if given is None:
        return
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence):
        raise PipelineError(f"ParallelRunStep: {what} is a list, but got {type(given).__name__}; put it into [ ]")
    yield from given


def _step_input(value: Any, where: str, index: int) -> StepInput:
    from mpi_prs.workspace.consumption import DatasetConsumptionConfig
    from mpi_prs.workspace.dataset import FileDataset, TabularDataset

    if isinstance(value, DatasetConsumptionConfig):
        return _consumption(value, where)
    if isinstance(value, FileDataset | TabularDataset):
        name = re.sub(r"\W", "_", value.name or f"input_{index}", flags=re.ASCII)
        return StepInput(name, value, value, "mount", isinstance(value, TabularDataset))
    if isinstance(value, PipelineOutputFileDataset | PipelineOutputTabularDataset):
        is_tabular = isinstance(value, PipelineOutputTabularDataset)
        return StepInput(value.name, value, value.pipeline_data, value.mode, is_tabular)
    if isinstance(value, InputPortBinding):
        return StepInput(value.name, value, value.bind_object, value.bind_mode, False)
    if is_output(value):
        return StepInput(value.name, value, value, "mount", False)
    hint = ""
    if isinstance(value, PipelineParameter):
        hint = f"; write DatasetConsumptionConfig('name', {value.name})"
    raise PipelineError(f"ParallelRunStep: {where} is {_TAKEN}, but got {type(value).__name__}{hint}")


def _consumption(value: Any, where: str) -> StepInput:
    from mpi_prs.workspace.dataset import FileDataset, TabularDataset

    source = value.dataset
    stands_for = source.default_value if isinstance(source, PipelineParameter) else source
    if not isinstance(stands_for, FileDataset | TabularDataset) and not is_output(stands_for):
        raise PipelineError(
            f"ParallelRunStep: {where}: the PipelineParameter {source.name!r} has {source.kind} as its default, and "
            "cannot stand for a dataset"
        )
    return StepInput(value.name, value, source, value.mode, isinstance(stands_for, TabularDataset))


def _path_name(path: Any) -> str:
    """A name for a place on a datastore, always the same."""
    name = getattr(path, "data_reference_name", None)
    if isinstance(name, str) and name:
        return name
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
