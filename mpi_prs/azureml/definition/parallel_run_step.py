"""ParallelRunStep: a step of a pipeline that runs an entry script over its inputs, in parallel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from mpi_prs.azureml.definition.parallel_run_config import ParallelRunConfig
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.definition.service_arguments import check_reserved, timeouts_in
from mpi_prs.azureml.definition.step_inputs import (
    StepInput,
    check_both,
    is_output,
    output_key,
    step_inputs,
    step_side_inputs,
)
from mpi_prs.azureml.models.model import Model
from mpi_prs.core import values
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.words import did_you_mean

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_BARE = (str, int, float, Path)


@dataclass(frozen=True)
class SourceCode:
    """The user's code.

    Attributes:
        folder: what the snapshot is made of, absolute.
        script: the entry script, relative to it.
    """

    folder: Path
    script: PurePosixPath


class ParallelRunStep(Surface):
    """One step of a pipeline.

    Attributes:
        name: of the step, unique in its pipeline.
        config: its :class:`ParallelRunConfig`.
        inputs: what is cut into mini-batches.
        side_inputs: reference data for every node.
        arguments: of the entry script, as they were given.
        outputs: the output (a PipelineData or an OutputFileDatasetConfig), or nothing.
        allow_reuse: whether the output of an earlier run of the same step may be used.
        models: of the ``azureml.contrib`` class: registered models that must be there; no further effect.
        earlier: the steps named by :meth:`run_after`.
        tags, properties: of the ``azureml.contrib`` class; kept, without effect.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "create_node": "a pipeline makes its graph by itself; use Pipeline(ws, steps=[step])",
        "create_module_def": "a pipeline makes its modules by itself; use Pipeline(ws, steps=[step])",
    }

    def __init__(
        self,
        name: str,
        parallel_run_config: ParallelRunConfig,
        inputs: Sequence[Any],
        output: Any = None,
        side_inputs: Sequence[Any] | None = None,
        arguments: Sequence[Any] | None = None,
        allow_reuse: bool = True,
        models: Sequence[Any] | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        add_parallel_run_step_dependencies: bool = True,
    ) -> None:
        """See the class.

        Args:
            name: 3 to 32 lower-case letters, digits and hyphens; a letter first, no hyphen last.
            parallel_run_config: the settings.
            inputs: DatasetConsumptionConfigs, datasets, or outputs of other steps; all of files, or all of rows.
            output: a PipelineData or an OutputFileDatasetConfig; ``None``: the output stays with the run.
            side_inputs: as ``inputs``, or places on a datastore; they are not cut into mini-batches.
            arguments: texts, numbers, PipelineParameters, side inputs (their path is passed) and the output (its
                folder is passed).
            allow_reuse: whether an earlier output may be used.
            models: Models, or names of models.
            tags, properties: kept, without effect.
            add_parallel_run_step_dependencies: accepted and ignored: nothing needs to be added.

        Raises:
            PipelineError: something is of the wrong type, has no good name, or does not go together.
        """
        del add_parallel_run_step_dependencies
        if not isinstance(name, str) or not 3 <= len(name) <= 32 or not _NAME.fullmatch(name):
            raise PipelineError(
                f"the name of a ParallelRunStep has 3 to 32 lower-case letters, digits and hyphens, a letter first and "
                f"no hyphen at the end, such as 'predict-digits', but got {name!r}"
            )
        if not isinstance(parallel_run_config, ParallelRunConfig):
            raise PipelineError(
                f"ParallelRunStep {name!r}: parallel_run_config is a ParallelRunConfig, but got "
                f"{type(parallel_run_config).__name__}"
            )
        if output is not None and not is_output(output):
            raise PipelineError(
                f"ParallelRunStep {name!r}: output is a PipelineData or an OutputFileDatasetConfig, but got "
                f"{type(output).__name__}"
            )
        if not isinstance(allow_reuse, bool):
            raise PipelineError(f"ParallelRunStep {name!r}: allow_reuse is True or False, but got {allow_reuse!r}")
        self.name = name
        self.config = parallel_run_config
        self.inputs: list[StepInput] = step_inputs(inputs)
        self.side_inputs: list[StepInput] = step_side_inputs(side_inputs)
        check_both(self.inputs, self.side_inputs)
        self.outputs: list[Any] = [] if output is None else [output]
        self.arguments: list[Any] = _arguments(arguments)
        self.allow_reuse = allow_reuse
        self.models: list[Any] = _models(models)
        self.tags = _pairs(name, "tags", tags)
        self.properties = _pairs(name, "properties", properties)
        self.earlier: list[ParallelRunStep] = []
        for index, argument in enumerate(self.arguments):
            self._check_argument(index, argument)
        self._check_size()
        if output is not None:
            object.__setattr__(output, "producer", self)  # an OutputFileDatasetConfig is frozen

    def __repr__(self) -> str:
        return f"ParallelRunStep(name={self.name!r})"

    def run_after(self, step: ParallelRunStep) -> None:
        """This step starts only when ``step`` has completed, though it may need none of its outputs.

        Raises:
            PipelineError: ``step`` is no step, or this one.
        """
        if not isinstance(step, ParallelRunStep) or step is self:
            raise PipelineError(f"ParallelRunStep {self.name!r}: run_after takes another step, but got {step!r}")
        if step not in self.earlier:
            self.earlier.append(step)

    def upstream(self) -> set[Any]:
        """The outputs of other steps that this one reads."""
        return {value.upstream for value in (*self.inputs, *self.side_inputs) if value.upstream is not None}

    def parameters(self) -> Iterator[PipelineParameter]:
        """Every PipelineParameter that the step uses; one that it uses twice comes twice."""
        yield from self.config.parameters().values()
        for value in (*self.inputs, *self.side_inputs):
            if value.parameter is not None:
                yield value.parameter
        yield from (argument for argument in self.arguments if isinstance(argument, PipelineParameter))

    def is_output(self, argument: Any) -> bool:
        """Whether an argument is the step's own output."""
        return is_output(argument) and output_key(argument) in map(output_key, self.outputs)

    def side_input_of(self, argument: Any) -> StepInput | None:
        """The side input that an argument is, if it is one."""
        for value in self.side_inputs:
            if value.is_given_as(argument):
                return value
        return None

    def source(self, default_source_directory: str | None = None) -> SourceCode:
        """The folder with the code, and the script in it.

        Args:
            default_source_directory: where the config names none, such as the pipeline's.

        Raises:
            PipelineError: folder or script are not there, or the script is not in the folder.
        """
        named = self.config.source_directory or default_source_directory
        script = os.path.expanduser(self.config.entry_script)
        folder = os.path.abspath(os.path.expanduser(named)) if named else os.path.dirname(os.path.abspath(script))
        whole = os.path.normpath(os.path.join(folder, script)) if named else os.path.abspath(script)
        if named and not os.path.isdir(folder):
            raise PipelineError(f"step {self.name!r}: source_directory: there is no folder {folder}; correct the path")
        relative = os.path.relpath(whole, folder)
        if relative.startswith(".."):
            relative = os.path.relpath(os.path.realpath(whole), os.path.realpath(folder))
        if relative.startswith(".."):
            raise PipelineError(
                f"step {self.name!r}: entry_script: {script} is not in the source_directory {folder}; give a path "
                "relative to it"
            )
        if not os.path.isfile(whole):
            beside = (path.name for path in Path(whole).parent.glob("*.py"))
            hint = did_you_mean(Path(whole).name, beside, "write it, or correct entry_script or source_directory")
            raise PipelineError(f"step {self.name!r}: entry_script: there is no file {whole}; {hint}")
        return SourceCode(Path(folder), PurePosixPath(relative))

    def _check_argument(self, index: int, argument: Any) -> None:
        if isinstance(argument, _BARE):  # a bool is an int
            return
        if isinstance(argument, PipelineParameter):
            if isinstance(argument.default_value, _BARE):
                return
            raise PipelineError(
                f"ParallelRunStep {self.name!r}: arguments[{index}]: the PipelineParameter {argument.name!r} stands "
                f"for {argument.kind}; pass the side input that is made of it: DatasetConsumptionConfig('name', …)"
            )
        if self.is_output(argument) or self.side_input_of(argument) is not None:
            return
        where = f"ParallelRunStep {self.name!r}: arguments[{index}]"
        if any(value.is_given_as(argument) for value in self.inputs):
            raise PipelineError(
                f"{where} is an input, which run() gets in mini-batches; to pass its path as well, put it into "
                "side_inputs too"
            )
        what = repr(argument) if is_output(argument) else f"of type {type(argument).__name__}"
        raise PipelineError(
            f"{where} is {what}; expected a text, a number, a PipelineParameter, the output, or one of the "
            "side_inputs: the same object that stands there"
        )

    def _check_size(self) -> None:
        size = self.config.mini_batch_size
        if size is not None:
            check_size(size.default_value if isinstance(size, PipelineParameter) else size, self.inputs, self.name)


def check_size(size: Any, inputs: Sequence[StepInput], step: str) -> None:
    """Refuse a size in bytes for files. Raises PipelineError."""
    if not inputs[0].is_tabular and not str(size).strip().isdigit():
        raise PipelineError(
            f"step {step!r}: mini_batch_size: got {size!r}; the input {inputs[0].name!r} is a FileDataset, so expected "
            "a number of files such as 10; sizes such as 10MB are for TabularDatasets"
        )


def _arguments(given: Any) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sequence):
        raise PipelineError(
            f"ParallelRunStep: arguments is a list, such as ['--threshold', 0.5], but got {type(given).__name__}"
        )
    check_reserved(given)
    if not any(isinstance(argument, PipelineParameter) for argument in given):
        timeouts_in(map(str, given))
    return list(given)


def _pairs(step: str, what: str, given: Any) -> dict[str, str]:
    try:
        return {} if given is None else values.tags(given)
    except values.WrongValue as error:
        raise PipelineError(**error.fields(what)).at(key=f"ParallelRunStep {step!r}") from None


def _models(given: Any) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise PipelineError(f"ParallelRunStep: models is a list of Models, but got {type(given).__name__}")
    for model in given:
        if not isinstance(model, (Model, str)):
            raise PipelineError(f"ParallelRunStep: models has Models, or their names, but got {type(model).__name__}")
    return list(given)
