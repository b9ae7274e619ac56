"""The job config: what the user asked for, validated once, by rank 0 alone.

::

    YAML file ─► nodes ─► --set overrides ─► JobConfig ─► every path absolute, every value of its type
                                   │
                                   └► ConfigError: one message with file, line, key, value and what was expected

The keys bear the names of Azure ML's ParallelRunConfig where it has them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator

from mpi_prs.child.rows.row_format import Form, default_to_csv, form_of
from mpi_prs.core import values
from mpi_prs.core.environ import CONFIG, HERE, OF_USER_PROCESSES
from mpi_prs.core.errors import ConfigError, ScriptError
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.words import did_you_mean
from mpi_prs.core.yaml import Document, read_document
from mpi_prs.inputs.datasets import InputDataset
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.near.side_inputs import SideInput, substitute
from mpi_prs.job.config import entry_script_check
from mpi_prs.job.config.errors import validation_error
from mpi_prs.job.config.inputs import InputSection, Section, SideInputSection, StorageSection, output_parts
from mpi_prs.job.config.types import (
    AnyPath,
    ByteSize,
    Count,
    CountFromZero,
    CountOrAuto,
    FileName,
    Grace,
    InFlight,
    Interpreter,
    JobName,
    MiniBatchSize,
    OneLine,
    Percent,
    Seconds,
    Separator,
    SignalLead,
    SlurmMem,
    SlurmTime,
    Text,
    Threshold,
    Url,
    VariableName,
    absolute,
    expand,
    folder_of,
    path_text,
)

_OPTION = re.compile(r"--?[A-Za-z][A-Za-z0-9_-]*")
_NOT_IN_YAML = re.compile("[\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""What JSON leaves as it is and YAML has as an escape alone."""

TEXT_KEYS = ("arguments", "description", "environment_variables", "slurm")
"""Below these keys ``1.10`` and ``007`` mean the text, not the number."""


class CsvSection(Section):
    """How the rows of a DataFrame are written; the names are those of ``pandas.DataFrame.to_csv``."""

    sep: Separator = Field(
        default=" ", description="the character between two values; default: a space, in .csv a comma"
    )
    header: bool = Field(
        default=False, description="true: the file starts with the column names; default false, in .csv true"
    )
    index: bool = Field(default=False, description="true: each row starts with its index; default false")


class SlurmSection(Section):
    """What the job asks Slurm for; what is not given is left to the cluster's defaults."""

    partition: OneLine | None = Field(default=None, description="Slurm partition; default: the cluster's")
    account: OneLine | None = Field(default=None, description="Slurm account to charge; default: the user's")
    qos: OneLine | None = Field(default=None, description="Slurm quality of service; default: the user's")
    time: SlurmTime | None = Field(default=None, description="time limit as Slurm writes it; default: the partition's")
    mem: SlurmMem | None = Field(
        default=None, description="memory of a node in MiB, or with K, M, G or T; default: the cluster's"
    )
    constraint: OneLine | None = Field(default=None, description="features the nodes must have; default: none")
    reservation: OneLine | None = Field(default=None, description="reservation to run in; default: none")
    gpus_per_process: CountFromZero | None = Field(default=None, description="GPUs of a user process; default: none")
    cpus_per_process: Count | None = Field(default=None, description="cores of a user process; default: the cluster's")
    setup: tuple[Text, ...] = Field(
        default=(), description="list of shell lines to run before the job, such as module load"
    )
    extra: tuple[OneLine, ...] = Field(default=(), description="list of further sbatch options, such as --exclusive")
    max_requeues: CountFromZero = Field(
        default=100, description="times that a stopped job goes back into the queue by itself; default 100"
    )
    signal_lead: SignalLead | None = Field(
        default=None,
        description="seconds before the time limit at which Slurm warns the job; default: what run() calls and "
        "stop_grace need",
    )
    mpi: OneLine | None = Field(
        default=None,
        description="how MPI is started: mpirun, or a type that `srun --mpi=list` shows, such as pmi2 or pmix; "
        "default: srun with the cluster's default",
    )


class JobConfig(Section):
    """The settings of one job. Every path in it is absolute; times are in seconds."""

    name: JobName = Field(description="the job's name; required", examples=["predict-digits"])
    description: Text = Field(default="", description="a note for people; default: none")
    source_directory: AnyPath = Field(
        default=cast(Path, None), description="the folder with the user's code; default: the entry script's folder"
    )
    entry_script: AnyPath = Field(
        description="the Python file with init() and run(), relative to source_directory where that is given; required",
        examples=["score.py"],
    )
    inputs: tuple[InputSection, ...] = Field(
        min_length=1,
        description="list of inputs, each a path, folder or glob or one of `files: …`, `files_from: …`; required",
        examples=[["data/**/*.png"]],
    )
    output: AnyPath = Field(description="the output folder; required", examples=["outputs/predict-digits"])
    storage: StorageSection = Field(
        default=StorageSection(), description="how to get at remote stores; default: from the environment"
    )
    side_inputs: dict[VariableName, SideInputSection] = Field(
        default_factory=dict,
        description="reference data for every node, by name; its path stands for ${side_inputs.NAME} in arguments and "
        "environment_variables",
    )
    output_url: Url | None = Field(
        default=None,
        description="where the output file is uploaded to once it is complete; `output: URL` sets it; default: nowhere",
    )
    mini_batch_size: MiniBatchSize | None = Field(
        default=None,
        description="what one run() call gets: a number of files (default 10); of tables a size such as 10MB or "
        "5000rows (default 1MB)",
    )
    partition_keys: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        description="one mini-batch for each combination of these partition keys, instead of mini_batch_size",
    )
    scratch: Text | None = Field(
        default=None,
        description="node-local folder for fetched files and working directories; default: $SLURM_TMPDIR, $TMPDIR "
        "or /tmp",
    )
    scratch_limit: ByteSize = Field(
        default="10GB",
        validate_default=True,
        description="bytes of scratch that fetched mini-batches of a worker may take; default 10GB",
    )
    error_threshold: Threshold = Field(
        description="failed items above which the job is aborted, -1: any number may fail; required",
        examples=[10],
    )
    allowed_failed_count: Threshold | None = Field(
        default=None,
        description="failed mini-batches above which the job is aborted; items with bisect_on_failure; default: any",
    )
    allowed_failed_percent: Percent | None = Field(
        default=None,
        description="percent of failed mini-batches, or items, above which the job is aborted; default: any",
    )
    output_action: Literal["append_row", "summary_only"] = Field(
        default="append_row",
        description="what to do with the rows: write them to one file, or only count them; default append_row",
    )
    append_row_file_name: FileName = Field(
        default="parallel_run_step.txt",
        description="the output file in the output folder, lines of text or, by its suffix, .csv, .jsonl, .parquet, "
        ".h5; default parallel_run_step.txt",
    )
    output_order: Literal["arrival", "input"] = Field(
        default="arrival", description="order of the rows: as they arrive, or that of the inputs; default arrival"
    )
    verify_output: bool = Field(
        default=True,
        description="read the rows once more before the output gets its name, and compare them with the journal; "
        "default true",
    )
    to_csv: CsvSection = Field(
        default=CsvSection(),
        validate_default=True,
        description="how DataFrame rows are written: sep, header, index",
    )
    logging_level: Literal["WARNING", "INFO", "DEBUG"] = Field(
        default="INFO", description="the least severe messages that are logged; default INFO"
    )
    run_invocation_timeout: Seconds = Field(default=60, description="seconds that one run() call may take; default 60")
    run_max_try: Count = Field(default=3, description="tries of a mini-batch in all; default 3")
    bisect_on_failure: bool = Field(
        default=False,
        description="halve a mini-batch that has failed all its tries, and its failing halves, down to single items: "
        "only those that fail alone are lost; default false",
    )
    speculative_copies: bool = Field(
        default=False,
        description="when nothing else is left to do, give what runs for more than 1.5 times as long as 95 % of the "
        "mini-batches to an idle process as well; the first answer counts; default false",
    )
    init_timeout: Seconds = Field(default=600, description="seconds that init() may take; default 600")
    task_overhead_timeout: Seconds = Field(
        default=60,
        description="seconds for preparing a mini-batch and encoding what run() returned; of computing, with one more "
        "a MB of the file, for reading a part of a table; default 60",
    )
    loaders: CountOrAuto | None = Field(
        default=None,
        description="threads of each user process that call the script's load(item) ahead of run(), which then gets "
        "what it returned: a number, or auto (as many as the process has cores); default: none",
    )
    loaders_ahead: Count = Field(
        default=2, description="mini-batches that may be loaded ahead of the one that runs; default 2"
    )
    loaders_memory: ByteSize = Field(
        default="1GB",
        validate_default=True,
        description="bytes that what is loaded ahead may take in a user process, as far as its size is known; "
        "default 1GB",
    )
    mini_batches_in_flight: InFlight = Field(
        default=8,
        description="mini-batches that a user process works on at once where the script has `async def run`; default 8",
    )
    progress_update_timeout: Seconds | None = Field(
        default=None,
        description="seconds without a finished mini-batch after which the job stops, resumable; default: off",
    )
    process_count_per_node: Count = Field(default=1, description="user processes on a node; default 1")
    node_count: Count = Field(default=1, description="nodes of the job; default 1")
    processes_per_rank: Count = Field(default=1, description="user processes under one MPI rank; default 1")
    arguments: tuple[Text, ...] = Field(
        default=(), repr=False, description="list of arguments of the entry script; default: none"
    )
    environment_variables: dict[VariableName, Text] = Field(
        default_factory=dict, repr=False, description="environment variables of the user processes; default: none"
    )
    environment: Interpreter | None = Field(
        default=None,
        description="the Python interpreter of the user processes; default: the one that runs this program",
    )
    azureml: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="when the script's `import azureml` means mpi_prs: auto (where Azure's package is not installed), "
        "always, never; default auto",
    )
    stop_grace: Grace = Field(
        default=30, description="seconds that running mini-batches may go on after a stop signal; default 30"
    )
    heartbeat_timeout: Seconds = Field(
        default=120, description="seconds of silence after which a worker counts as lost; default 120"
    )
    slurm: SlurmSection = Field(
        default=SlurmSection(), description="what the job asks Slurm for; default: the cluster's defaults"
    )

    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """Where it was read from; ``None``: it was made by a program."""
        return self._file

    @field_validator("to_csv", mode="before")
    @classmethod
    def _default_by_suffix(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.data.get("append_row_file_name")
        given = value.model_dump(exclude_unset=True) if isinstance(value, CsvSection) else value
        if not isinstance(given, dict) or name is None:
            return value
        unused = [key for key in ("sep", "header") if key in given]
        if unused and form_of(name) is not Form.TEXT:
            raise ValueError(f"{' and '.join(unused)} has no use for {name}, whose rows are not separated text")
        return {**default_to_csv(name), **given}

    @model_validator(mode="before")
    @classmethod
    def _source_directory_from_entry_script(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        data = output_parts(data, folder_of(info))
        if data.get("source_directory") is not None:
            return data
        try:
            script = Path(absolute(folder_of(info), path_text(data.get("entry_script"))))
        except ValueError:  # the entry_script's own check tells what is wrong with it
            return {**data, "source_directory": folder_of(info)}
        return {**data, "entry_script": script, "source_directory": script.parent}

    @field_validator("entry_script", mode="before")
    @classmethod
    def _below_source_directory(cls, value: Any, info: ValidationInfo) -> Any:
        folder = info.data.get("source_directory")
        if isinstance(value, str) and value.strip() and folder is not None:
            return Path(folder, expand(value))
        return value

    @field_validator("output")
    @classmethod
    def _is_no_root(cls, value: Path) -> Path:
        if Path(os.path.normpath(value)) == Path(value.anchor):
            raise ValueError("expected a folder of its own, and not the root of all folders")
        return value

    @field_validator("inputs")
    @classmethod
    def _do_not_mix(cls, value: tuple[InputSection, ...]) -> tuple[InputSection, ...]:
        if len({bool(section.table) for section in value}) > 1:
            raise ValueError("files and tables do not mix in one job, since run() gets one or the other")
        if len({section.file_column is None for section in value}) > 1:
            raise ValueError("inputs with the key file_column and others do not mix in one job; make a job of each")
        return value

    @field_validator("mini_batch_size")
    @classmethod
    def _fits_the_inputs(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        inputs = info.data.get("inputs")
        if isinstance(value, str) and inputs and not inputs[0].table:
            raise ValueError(
                "expected a whole number of files such as 10; sizes such as 10MB or 5000rows are for tables"
            )
        return value

    @field_validator("partition_keys")
    @classmethod
    def _instead_of_a_size(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("mini_batch_size") is not None:
            raise ValueError(
                "partition_keys and mini_batch_size exclude each other, since each combination of the keys is a "
                "mini-batch; remove one of the two"
            )
        return value

    @field_validator("loaders")
    @classmethod
    def _are_for_files(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        inputs = info.data.get("inputs")
        if value is not None and inputs and inputs[0].table:
            raise ValueError("loaders are for files: the rows of tables are read ahead of run() anyway; remove the key")
        return value

    @field_validator("bisect_on_failure")
    @classmethod
    def _not_of_partitions(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("partition_keys") is not None:
            raise ValueError(
                "bisect_on_failure and partition_keys exclude each other, since a part would not be all of its "
                "partition; remove one of the two"
            )
        return value

    @field_validator("arguments")
    @classmethod
    def _names_known_side_inputs(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        substitute(value, dict.fromkeys(info.data.get("side_inputs", ()), ""))
        return value

    @field_validator("environment_variables")
    @classmethod
    def _name_known_side_inputs(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        substitute(list(value.values()), dict.fromkeys(info.data.get("side_inputs", ()), ""))
        for name in value.keys() & OF_USER_PROCESSES.keys():
            try:
                OF_USER_PROCESSES[name].check(value[name])
            except values.WrongValue as wrong:
                raise wrong.at(name) from None
        return value

    def datasets(self) -> tuple[InputDataset, ...]:
        """The inputs as datasets."""
        default = self.storage.storage()
        return tuple(section.to_dataset(default) for section in self.inputs)

    def side_input_list(self) -> list[SideInput]:
        """The side inputs as the workers take them."""
        default = self.storage.storage()
        return [section.to_side_input(name, default) for name, section in self.side_inputs.items()]

    def batch_size(self) -> int | BatchSize | None:
        """Files in a mini-batch, or the size of a table's; ``None`` with ``partition_keys``."""
        if self.partition_keys is not None:
            return None
        size = self.mini_batch_size or self.default_size
        if self.inputs[0].file_column is not None:
            return BatchSize(rows=int(size))
        return BatchSize.parse(str(size)) if self.inputs[0].table else int(size)

    def as_yaml(self) -> str:
        """A config file that says the same, with every text in quotes: JSON is YAML, too."""
        values = self.model_dump(mode="json", exclude_unset=True, context={"as_written": True})
        text = json.dumps(values, ensure_ascii=False, indent=2)
        return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"

    @property
    def default_size(self) -> int | str:
        """The ``mini_batch_size`` where none is given."""
        return "1MB" if self.inputs[0].table else 10


def load_config(path: Path, overrides: Sequence[str] = (), output: str | None = None) -> JobConfig:
    """The job config in the YAML file ``path``.

    Args:
        path: the config file; relative paths in it are relative to its folder.
        overrides: ``key=value`` each, with dotted keys (``slurm.partition=gpu``, ``inputs.0.files=data``) and YAML
            values; their relative paths are relative to the config file's folder as well.
        output: the output folder in place of the config's, relative to the working directory, taken literally.

    Raises:
        ConfigError: with all that is wrong, each with its line, key and value.
        ScriptError: the entry script is not there.
    """
    document = read_document(path, overrides, TEXT_KEYS)
    data = dict(document.data)
    if output is not None:
        if not output.strip():
            raise ConfigError("--output: expected the path of the output folder, got nothing")
        data["output"] = Path(absolute(Path.cwd(), output))
    return make_config(data, path, document)


def make_config(data: Mapping[str, Any], path: Path, document: Document) -> JobConfig:
    """The job config that ``data`` is; relative paths in it are relative to the folder of ``path``.

    Args:
        data: values of the config's keys.
        path: the file that messages name.
        document: tells where each value was written.

    Raises:
        ConfigError: with all that is wrong, each with its place, key and value.
        ScriptError: the entry script is not there.
    """
    try:
        config = JobConfig.model_validate(dict(data), context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise validation_error(str(path), error.errors(include_url=False), JobConfig, document) from None
    _check_code_is_there(config, str(path), document)
    config._file = path.absolute()
    return config


def _check_code_is_there(config: JobConfig, source: str, document: Document) -> None:
    def at(key: str) -> str:
        place = document.place((key,))
        return f"{source}, {place.label}: {key}" if place else f"{source}: {key}"

    if config.environment is not None:
        if not config.environment.exists():
            raise ConfigError(
                f"{at('environment')}: there is no {config.environment}; "
                "give the path of a Python interpreter, such as venv/bin/python, or leave the key out to use this one"
            )
        if config.environment.is_dir() or not os.access(config.environment, os.X_OK):
            raise ConfigError(
                f"{at('environment')}: {config.environment} is not a program that can be run; "
                "give the path of a Python interpreter, such as venv/bin/python"
            )
    script, folder = config.entry_script, config.source_directory
    is_folder_named = document.place(("source_directory",)) is not None
    if is_folder_named and not folder.is_dir():
        raise ConfigError(f"{at('source_directory')}: there is no folder {folder}; correct the path")
    if script.is_file():
        return
    if script.exists():
        raise ScriptError(f"{at('entry_script')}: {script} is not a file; give the Python file that defines run()")
    hint = did_you_mean(script.name, (file.name for file in script.parent.glob("*.py")), "correct the path")
    based_on = "source_directory" if is_folder_named else "the config file's folder"
    raise ScriptError(f"{at('entry_script')}: there is no file {script} (relative to {based_on}); {hint}")


def default_config(cwd: Path, environ: Mapping[str, str] = HERE) -> Path | None:
    """The job config to use when none is named, or None where there is none.

    ``MPI_PRS_CONFIG`` (relative to ``cwd``; not checked to exist), else ``mpi_prs.yaml`` in ``cwd``, else the digits
    config of the checkout that this package is in.
    """
    if named := CONFIG.of(environ):
        return cwd / Path(named).expanduser()
    digits = Path(__file__).resolve().parents[3] / "configs" / "digits.yaml"
    return next((path for path in (cwd / "mpi_prs.yaml", digits) if path.is_file()), None)


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, for editors: what may be written, short forms included."""
    schema = JobConfig.model_json_schema()
    section = schema["$defs"]["InputSection"]
    files = section["properties"]["files"]
    files["anyOf"] = [files["items"], {key: files.pop(key) for key in ("type", "items", "minItems")}]
    schema["properties"]["inputs"]["items"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/InputSection"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def hints(config: JobConfig) -> list[str]:
    """What may not be meant, a line each."""
    found = []
    for number, argument in enumerate(config.arguments):
        name, blank, value = argument.partition(" ")
        if blank and _OPTION.fullmatch(name):
            found.append(
                f"arguments[{number}] is one argument with a blank in it, {scrub(argument)!r}; if a name and its value "
                f"are meant, they are two: [{name}, {scrub(value)}]"
            )
    may_load = config.loaders is None and not config.inputs[0].table
    if may_load and entry_script_check.has_unused_load(entry_script_check.read_script(config.entry_script)):
        found.append(
            f"{config.entry_script.name} defines load(), and nobody calls it: with `loaders: auto` in the job config "
            "threads call load(item) ahead of run(), which gets what it returned"
        )
    return found


def check_entry_script(config: JobConfig) -> None:
    """Check without running it that the entry script can be read, compiles and defines ``run``.

    What another interpreter can compile is not known here, so with ``environment`` set to one only reading is checked.
    Raises ScriptError.
    """
    source = entry_script_check.read_script(config.entry_script)
    if config.environment is None or os.path.realpath(config.environment) == os.path.realpath(sys.executable):
        entry_script_check.check_source(config.entry_script, source)
