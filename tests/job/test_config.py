"""The job config: what it accepts, what it makes of it, and what it says about everything else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpi_prs.core import yaml as yaml_reading
from mpi_prs.core.errors import EXIT_USAGE, ConfigError, ScriptError, UserMistake
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.listing import FileInput
from mpi_prs.job.config.model import (
    JobConfig,
    SlurmSection,
    check_entry_script,
    config_schema,
    default_config,
    hints,
    load_config,
)

MINIMAL = {
    "name": "predict-digits",
    "entry_script": "score.py",
    "inputs": ["data/*.png"],
    "output": "out",
    "error_threshold": 10,
}


def text_of(**changes: Any) -> str:
    """A minimal config file with changes; a value of ``...`` takes the key out."""
    data = {key: value for key, value in {**MINIMAL, **changes}.items() if value is not ...}
    return yaml.safe_dump(data, sort_keys=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "score.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    return tmp_path


def load(folder: Path, text: str | None = None, *overrides: str, output: str | None = None) -> JobConfig:
    file = folder / "job.yaml"
    file.write_text(text_of() if text is None else text, encoding="utf-8")
    return load_config(file, overrides, output)


# What a good config becomes


def test_a_minimal_config_gets_the_defaults_of_parallel_run_step(folder: Path) -> None:
    config = load(folder)
    expected = {
        "description": "",
        "mini_batch_size": None,
        "error_threshold": 10,
        "allowed_failed_count": None,
        "allowed_failed_percent": None,
        "output_action": "append_row",
        "append_row_file_name": "parallel_run_step.txt",
        "output_order": "arrival",
        "verify_output": True,
        "logging_level": "INFO",
        "azureml": "auto",
        "run_invocation_timeout": 60,
        "run_max_try": 3,
        "init_timeout": 600,
        "task_overhead_timeout": 60,
        "progress_update_timeout": None,
        "process_count_per_node": 1,
        "node_count": 1,
        "processes_per_rank": 1,
        "arguments": (),
        "environment_variables": {},
        "environment": None,
        "stop_grace": 30,
        "heartbeat_timeout": 120,
        "slurm": SlurmSection(),
    }
    assert {key: getattr(config, key) for key in expected} == expected
    assert config.to_csv.model_dump() == {"sep": " ", "header": False, "index": False}


def test_paths_are_relative_to_the_config_file_wherever_the_program_is_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    config = load(folder)
    assert config.entry_script == folder / "score.py"
    assert config.source_directory == folder
    assert config.output == folder / "out"
    assert config.inputs[0].files == (f"{folder}/data/*.png",)


def test_the_entry_script_is_relative_to_the_source_directory_where_there_is_one(folder: Path) -> None:
    (folder / "code" / "sub").mkdir(parents=True)
    (folder / "code" / "sub" / "main.py").touch()
    config = load(folder, text_of(source_directory="code", entry_script="sub/main.py"))
    assert (config.source_directory, config.entry_script) == (folder / "code", folder / "code/sub/main.py")
    config = load(folder, text_of(entry_script="code/sub/main.py"))
    assert (config.source_directory, config.entry_script) == (folder / "code/sub", folder / "code/sub/main.py")


def test_home_and_variables_in_paths_are_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("SCRATCH", "/scratch/$HOME")  # what a variable holds is not expanded again
    monkeypatch.setenv("CODE", str(folder / "score.py"))
    text = text_of(output="~/out", inputs=["${SCRATCH}/a", "$SCRATCH/b*"], entry_script="$CODE")
    config = load(folder, text)
    assert config.output == Path("/home/someone/out")
    assert [section.files for section in config.inputs] == [("/scratch/$HOME/a",), ("/scratch/$HOME/b*",)]
    assert (config.entry_script, config.source_directory) == (folder / "score.py", folder)


def test_two_dollars_in_a_path_are_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = load(folder, text_of(output="/a$$HOME/$$$$b/$HOME$$", inputs=["/$${HOME}/*.png"]))
    assert config.output == Path("/a$HOME/$$b/home/someone$")
    assert config.inputs[0].files == ("/${HOME}/*.png",)


def test_dots_are_taken_out_of_paths_unless_a_link_gives_them_another_meaning(folder: Path) -> None:
    (folder / "elsewhere" / "deep").mkdir(parents=True)
    (folder / "link").symlink_to("elsewhere/deep")
    config = load(folder, text_of(inputs=["./x/../data/*.png", "link/../data"]))
    assert config.inputs[0].files == (f"{folder}/data/*.png",)
    assert config.inputs[1].files == (f"{folder}/link/../data",)


def test_a_folder_with_glob_characters_in_its_name_is_taken_literally(folder: Path) -> None:
    odd = folder / "run[1]"
    odd.mkdir()
    (odd / "score.py").touch()
    config = load(odd, text_of(inputs=["*.png", "a.png"]))
    assert [section.files for section in config.inputs] == [(f"{folder}/run[[]1]/*.png",), (f"{odd}/a.png",)]


@pytest.mark.parametrize(
    ("written", "files"),
    [
        ("a", [["a"]]),
        ({"files": "a"}, [["a"]]),
        ({"files": ["a", "b/**/*.png"]}, [["a", "b/**/*.png"]]),
    ],
)
def test_an_input_may_be_written_short_or_long(folder: Path, written: object, files: list[list[str]]) -> None:
    config = load(folder, text_of(inputs=[written]))
    assert [list(each.input.files) for each in config.datasets()] == [[f"{folder}/{file}" for file in files[0]]]


@pytest.mark.parametrize(
    ("table", "format", "separator"),
    [
        ("in/part-?.csv", "delimited", ","),
        ("run#1/x.parquet", "parquet", None),
        ("https://host/x.parquet?version=a.csv", "parquet", None),
        (["a.tsv", "b.tsv.gz"], "delimited", "\t"),
        ("all.tsv.files/x.csv", "delimited", ","),
    ],
)
def test_the_suffix_of_a_table_tells_its_format_and_separator(
    folder: Path, table: object, format: str, separator: str | None
) -> None:
    config = load(folder, text_of(inputs=[{"table": table}], mini_batch_size="1MB"))
    (dataset,) = config.datasets()
    assert isinstance(dataset, InputTable)
    assert type(dataset.format).__name__.lower() == format
    assert getattr(dataset.format, "separator", None) == separator


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (["a.csv", "b.parquet"], ["a.csv", "b.parquet", "two formats", "an input of each"]),
        (["a.csv", "b.tsv"], [".tsv", "an input of each", "separator"]),
        ("a.xlsx", ["the table", "a.xlsx is an Excel workbook", "pandas.read_excel(FILE).to_parquet(FILE.parquet)"]),
        ("a.dta", ["a.dta is a Stata file", "pandas.read_stata"]),
        ("a.zip", ["a.zip does not show in its suffix", "delimited, parquet"]),
        ("a.strange", ["a.strange does not show in its suffix", "delimited, parquet"]),
    ],
)
def test_files_that_are_no_one_table_are_refused_with_advice(folder: Path, table: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text_of(inputs=[{"table": table}], mini_batch_size="1MB"))
    for word in words:
        assert word in str(caught.value)


def test_a_list_of_files_is_read_relative_to_its_own_folder(folder: Path) -> None:
    config = load(folder, text_of(inputs=[{"files_from": "lists/all.txt"}, "a"]))
    assert tuple(each.input for each in config.datasets()) == (
        FileInput(files_from=folder / "lists/all.txt", base=folder / "lists"),
        FileInput(files=(f"{folder}/a",)),
    )


def test_arguments_and_environment_variables_reach_the_script_as_written(folder: Path) -> None:
    text = text_of() + (
        "arguments: [--rate, 1e-3, --version, 1.10, --id, 007, --flag, true, --at, 02:00]\n"
        "environment_variables: {LEVEL: 010, DEBUG: yes, VERSION: 1.10, EMPTY: ''}\n"
    )
    config = load(folder, text)
    assert config.arguments == (
        *("--rate", "1e-3", "--version", "1.10"),
        *("--id", "007", "--flag", "true", "--at", "02:00"),
    )
    assert config.environment_variables == {"LEVEL": "010", "DEBUG": "yes", "VERSION": "1.10", "EMPTY": ""}


def test_arguments_given_in_python_become_text() -> None:
    config = JobConfig.model_validate({**MINIMAL, "arguments": [1, 0.5, True, "x"], "environment_variables": {"N": 4}})
    assert config.arguments == ("1", "0.5", "True", "x")
    assert config.environment_variables == {"N": "4"}


@pytest.mark.parametrize("written", ["mini_batch_size: 5", "mini_batch_size: '5'", "mini_batch_size: 05"])
def test_the_mini_batch_size_may_be_a_string_of_digits(folder: Path, written: str) -> None:
    assert load(folder, text_of() + written).mini_batch_size == 5


def test_the_slurm_section_keeps_what_slurm_understands(folder: Path) -> None:
    text = text_of() + (
        "slurm:\n"
        "  {partition: gpu, account: 0123, time: 02:00:00, mem: 64G, gpus_per_process: 1,\n"
        "   setup: [module load cuda], extra: [--exclusive]}\n"
    )
    slurm = load(folder, text).slurm
    assert (slurm.partition, slurm.account, slurm.time, slurm.mem) == ("gpu", "0123", "02:00:00", "64G")
    assert (slurm.gpus_per_process, slurm.cpus_per_process) == (1, None)
    assert (slurm.setup, slurm.extra) == (("module load cuda",), ("--exclusive",))


def test_an_interpreter_is_a_path_or_a_program_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "venv" / "bin").mkdir(parents=True)
    python = folder / "venv" / "bin" / "mypython"
    python.symlink_to(sys.executable)
    assert load(folder, text_of(environment="venv/bin/mypython")).environment == python
    monkeypatch.setenv("PATH", str(python.parent))
    assert load(folder, text_of(environment="mypython")).environment == python


def test_yaml_anchors_and_merge_keys_work(folder: Path) -> None:
    text = text_of() + "slurm: &base {partition: gpu}\nto_csv: {<<: {header: true}, sep: ','}\n"
    config = load(folder, text)
    assert config.to_csv.header is True
    assert config.to_csv.sep == ","


def test_a_config_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(folder).name = "other"  # type: ignore[misc]


def test_values_that_may_be_secret_are_not_in_the_text_of_a_config(folder: Path) -> None:
    config = load(folder, text_of(environment_variables={"API_KEY": "hunter2"}, arguments=["--token", "hunter2"]))
    assert "hunter2" not in repr(config)


# Overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("mini_batch_size=5", "mini_batch_size", 5),
        ("slurm.partition=gpu", "slurm", SlurmSection(partition="gpu")),
        ("slurm={partition: gpu}", "slurm", SlurmSection(partition="gpu")),
        ("arguments=[--rate, 1e-3]", "arguments", ("--rate", "1e-3")),
        ("arguments.1=1.10", "arguments", ("--model", "1.10")),
        ("environment_variables.A=x=y", "environment_variables", {"A": "x=y"}),
        ("allowed_failed_count=null", "allowed_failed_count", None),
        ("name=other", "name", "other"),
    ],
)
def test_an_override_replaces_one_value(folder: Path, override: str, key: str, value: object) -> None:
    text = text_of(arguments=["--model", "x"], allowed_failed_count=3)
    assert getattr(load(folder, text, override), key) == value


def test_an_override_reaches_into_the_list_of_inputs(folder: Path) -> None:
    config = load(folder, text_of(inputs=["a", {"files": "b"}]), "inputs.0=c", "inputs.1.files=[d, e]")
    assert [each.files for each in config.inputs] == [(f"{folder}/c",), (f"{folder}/d", f"{folder}/e")]


def test_the_last_of_two_overrides_wins(folder: Path) -> None:
    assert load(folder, None, "run_max_try=5", "run_max_try=7").run_max_try == 7


def test_an_override_does_not_touch_its_neighbours(folder: Path) -> None:
    config = load(folder, text_of(slurm={"partition": "cpu", "qos": "low"}), "slurm.partition=gpu")
    assert config.slurm == SlurmSection(partition="gpu", qos="low")


def test_the_output_of_the_command_line_is_relative_to_the_working_directory_and_literal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    assert load(folder, text_of(output=...), output="$x/../o").output == folder / "here" / "o"
    assert load(folder, None, "output=set", output="~").output == folder / "here" / "~"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    arguments=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=4),
    size=st.integers(1, 10**6),
)
def test_whatever_is_written_as_json_arrives_through_an_override_unchanged(
    folder: Path, arguments: list[str], size: int
) -> None:
    config = load(folder, None, f"arguments={json.dumps(arguments)}", f"mini_batch_size={size}")
    assert list(config.arguments) == arguments
    assert config.mini_batch_size == size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(text=st.text(st.sampled_from("ab:-[]{}&*!|>'\"%@`#,\n\t ~0.=<")), override=st.text("an.:=[]{}&*' \n0"))
def test_no_text_whatever_gets_more_than_a_user_mistake(folder: Path, text: str, override: str) -> None:
    for attempt in ((text,), (None, override), (None, f"inputs={text}")):
        try:
            load(folder, *attempt)
        except UserMistake as mistake:
            assert str(mistake)


# Bad input: one clear message each

LONG = "x" * 300
BAD_VALUES: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "Digits"}, ["line 1", "name", "'Digits'", "lower-case"]),
    ({"name": "ab"}, ["name", "'ab'", "3 to 32"]),
    ({"name": "a" * 33}, ["name", "3 to 32"]),
    ({"name": "digits-"}, ["name", "no hyphen at the end"]),
    ({"name": "digits\n"}, ["name", "lower-case"]),
    ({"name": 123}, ["name", "got 123", "expected text"]),
    ({"name": ...}, ["name: missing", "add it, such as `name: predict-digits`"]),
    ({"error_threshold": ...}, ["error_threshold: missing", "`error_threshold: 10`", "-1"]),
    ({"error_threshold": -2}, ["line 6", "error_threshold", "got -2", "at least -1"]),
    ({"error_threshold": "many"}, ["error_threshold", "'many'", "a whole number"]),
    ({"error_threshold": None}, ["error_threshold", "got nothing", "a whole number"]),
    ({"mini_batch_size": 0}, ["line 7", "mini_batch_size", "got 0", "at least 1", "default 10"]),
    ({"mini_batch_size": 2.5}, ["mini_batch_size", "got 2.5", "a whole number"]),
    ({"mini_batch_size": "10KB"}, ["mini_batch_size", "'10KB'", "a whole number"]),
    ({"mini_batch_size": True}, ["mini_batch_size", "got true", "a number"]),
    ({"mini_batch_size": 10**12}, ["mini_batch_size", "at most 2147483647"]),
    ({"mini_batch_size": [5]}, ["mini_batch_size", "got a list", "a whole number"]),
    ({"loaders": 0}, ["loaders", "got 0", "at least 1, or auto"]),
    ({"mini_batches_in_flight": 5000}, ["mini_batches_in_flight", "from 1 to 4096"]),
    ({"loaders": "many"}, ["loaders", "'many'", "or auto"]),
    ({"inputs": [{"table": "a.csv"}], "loaders": 2}, ["loaders", "loaders are for files", "remove the key"]),
    ({"allowed_failed_count": -2}, ["allowed_failed_count", "at least -1"]),
    ({"allowed_failed_percent": 101}, ["allowed_failed_percent", "got 101", "from 0 to 100"]),
    ({"run_invocation_timeout": 0}, ["run_invocation_timeout", "more than 0", "seconds"]),
    ({"run_invocation_timeout": "60s"}, ["run_invocation_timeout", "'60s'", "a number", "seconds"]),
    ({"run_invocation_timeout": float("inf")}, ["run_invocation_timeout", "a finite number"]),
    ({"init_timeout": 1e12}, ["init_timeout", "at most 31536000"]),
    ({"heartbeat_timeout": float("nan")}, ["heartbeat_timeout", "a finite number"]),
    ({"stop_grace": -1}, ["stop_grace", "at least 0"]),
    ({"run_max_try": 0}, ["run_max_try", "at least 1"]),
    ({"node_count": 0}, ["node_count", "at least 1"]),
    ({"output_action": "append"}, ["output_action", "'append'", "'append_row' or 'summary_only'"]),
    ({"output": "/"}, ["output", "a folder of its own"]),
    ({"output_order": "sorted"}, ["output_order", "'arrival' or 'input'"]),
    ({"logging_level": "LOUD"}, ["logging_level", "'WARNING', 'INFO' or 'DEBUG'"]),
    ({"azureml": "sometimes"}, ["azureml", "'auto', 'always' or 'never'"]),
    ({"append_row_file_name": "a/b.txt"}, ["append_row_file_name", "'a/b.txt'", "without a slash"]),
    ({"append_row_file_name": ""}, ["append_row_file_name", "''", "name of a file"]),
    ({"append_row_file_name": "."}, ["append_row_file_name", "'.'", "name of a file"]),
    ({"append_row_file_name": ".."}, ["append_row_file_name", "'..'", "name of a file"]),
    ({"append_row_file_name": "_run"}, ["append_row_file_name", "'_run'", "run directory"]),
    ({"append_row_file_name": LONG}, ["append_row_file_name", "at most 250 bytes"]),
    ({"to_csv": {"sep": "::"}}, ["to_csv.sep", "'::'", "a single character"]),
    ({"to_csv": {"header": "perhaps"}}, ["to_csv.header", "'perhaps'", "true or false"]),
    ({"to_csv": {"seb": ","}}, ["to_csv.seb", "unknown key", "did you mean sep?"]),
    ({"inputs": ...}, ["inputs: missing", "`inputs: [data/**/*.png]`"]),
    ({"inputs": []}, ["inputs", "at least one"]),
    ({"inputs": "data/*.png"}, ["inputs", "'data/*.png'", "expected a list"]),
    ({"inputs": [3]}, ["inputs.0", "got 3", "a mapping"]),
    ({"inputs": [{}]}, ["inputs.0", "exactly one", "files_from"]),
    ({"inputs": [{"files": []}]}, ["inputs.0.files", "at least one"]),
    ({"inputs": [{"files": "a", "files_from": "b"}]}, ["inputs.0", "exactly one"]),
    ({"inputs": ["a", {"files": ["b", ""]}]}, ["inputs.1.files.1", "not empty text"]),
    ({"inputs": [{"files_from": "abfs://c/x"}]}, ["inputs.0.files_from", "'abfs://c/x'", "not a URL"]),
    ({"inputs": [{"table": "a.csv", "mode": "mount"}]}, ["inputs.0", "mode has no meaning", "format delimited"]),
    ({"inputs": [{"table": "a.csv", "dataset": "x"}]}, ["inputs.0", "dataset has no meaning", "format delimited"]),
    (
        {"inputs": [{"table": "a.dat"}]},
        ["inputs.0", "a.dat", "key format", "delimited, parquet, orc, arrow, avro, json_lines, json, hdf5"],
    ),
    ({"inputs": [{"table": "a.csv", "format": "xls"}]}, ["inputs.0.format", "'xls'", "'delimited', 'parquet'"]),
    ({"inputs": [{"table": "a.csv", "files": "b"}]}, ["inputs.0", "exactly one of", "table"]),
    ({"inputs": ["a", {"table": "a.csv"}]}, ["inputs", "do not mix"]),
    ({"inputs": [{"table": "a.csv"}], "mini_batch_size": "10 MBytes"}, ["'10 MBytes'", "10MB", "5000rows"]),
    ({"partition_keys": ["user"], "mini_batch_size": 3}, ["partition_keys", "exclude each other", "remove one"]),
    (
        {"partition_keys": ["user"], "bisect_on_failure": True},
        ["bisect_on_failure", "partition_keys exclude each other", "remove one"],
    ),
    ({"arguments": ["${side_inputs.model}"]}, ["arguments", "side_inputs.model"]),
    ({"environment_variables": {"M": "${side_inputs.model}"}}, ["environment_variables", "side_inputs.model"]),
    ({"inputs": ["az://c/x?sig=abc"]}, ["inputs.0.files.0", "SAS token", "sas_token_file"]),
    ({"output": "az://c/x?sig=abc"}, ["output_url", "SAS token", "sas_token_file"]),
    ({"scratch_limit": 0}, ["scratch_limit", "got 0", "500MB", "at least 1"]),
    ({"scratch_limit": "5000rows"}, ["scratch_limit", "'5000rows'", "500MB"]),
    ({"scratch_limit": True}, ["scratch_limit", "got true", "500MB"]),
    ({"storage": {"connection_string": ["SECRET"]}}, ["storage.connection_string", "got a list"]),
    ({"inputs": [{"files": "$NOT_SET_ANYWHERE/x"}]}, ["NOT_SET_ANYWHERE is not set"]),
    ({"output": ...}, ["output: missing"]),
    ({"output": ""}, ["output", "not empty text"]),
    ({"output": "~nobody-of-this-name/x"}, ["output", "home folder of ~nobody-of-this-name"]),
    ({"output": "${NOT_SET_ANYWHERE}"}, ["output", "NOT_SET_ANYWHERE is not set"]),
    ({"entry_script": ...}, ["entry_script: missing"]),
    ({"entry_script": ["a.py"]}, ["entry_script", "expected a path"]),
    ({"entry_script": "$NOT_SET_ANYWHERE/a.py"}, ["entry_script", "NOT_SET_ANYWHERE is not set"]),
    ({"source_directory": "nowhere"}, ["line 7", "source_directory", "nowhere", "no folder"]),
    ({"environment": "venv/bin/python"}, ["environment", "venv/bin/python", "Python interpreter"]),
    ({"environment": "no-such-python"}, ["environment", "'no-such-python'", "PATH"]),
    ({"environment": "./score.py"}, ["environment", "score.py", "not a program"]),
    ({"environment": "/"}, ["environment", "not a program"]),
    ({"arguments": "--model x"}, ["arguments", "expected a list"]),
    ({"arguments": ["a", None]}, ["arguments.1", "got nothing", "expected text"]),
    ({"arguments": ["a\0b"]}, ["arguments.0", "NUL"]),
    ({"environment_variables": ["A=b"]}, ["environment_variables", "a mapping"]),
    ({"environment_variables": {"MPI_PRS_TABLES_IN_FILES": "yes"}}, ["'MPI_PRS_TABLES_IN_FILES'", "from 0 to 1"]),
    ({"environment_variables": {"A": None}}, ["environment_variables.A", "got nothing"]),
    ({"environment_variables": {"A=B": "c"}}, ["environment_variables.A=B", "no `=`"]),
    ({"slurm": "gpu"}, ["slurm", "a mapping"]),
    ({"slurm": {"partitoin": "gpu"}}, ["slurm.partitoin", "did you mean partition?"]),
    ({"slurm": {"time": "2 hours"}}, ["slurm.time", "'2 hours'", "02:00:00"]),
    ({"slurm": {"mem": "64 GB"}}, ["slurm.mem", "'64 GB'", "64G"]),
    ({"slurm": {"partition": "gpu\nrm -rf x"}}, ["slurm.partition", "one line"]),
    ({"slurm": {"gpus_per_process": -1}}, ["slurm.gpus_per_process", "at least 0"]),
    ({"slurm": {"setup": "module load x"}}, ["slurm.setup", "a list"]),
    ({"mini_batch_sise": 5}, ["line 7", "mini_batch_sise", "unknown key", "did you mean mini_batch_size"]),
    ({"mini-batch-size": 5}, ["unknown key", "did you mean mini_batch_size"]),
    ({"partition": "gpu"}, ["unknown key", "did you mean partition below slurm?"]),
    ({"zzzz": 5}, ["zzzz", "unknown key", "the keys here are name,"]),
    ({"retry_settings": {"timeout": 5}}, ["unknown key", "is here run_max_try (one more than max_retries)"]),
    ({"max_concurrency_per_instance": 2}, ["unknown key", "is here process_count_per_node"]),
]


def test_a_side_input_may_have_a_store_of_its_own(folder: Path) -> None:
    key_file = {"account_name": "theirs", "account_key_file": "key.txt"}
    side_inputs = {"model": "az://c/model", "labels": {"path": "az://c/labels", "storage": key_file}}
    config = load(folder, text_of(side_inputs=side_inputs, storage={"account_name": "ours"}))
    stores = {side.name: side.storage for side in config.side_input_list()}
    assert stores["model"] == config.storage.storage()
    assert stores["labels"].account_name == "theirs"
    assert stores["labels"].account_key_file == str(folder / "key.txt")


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ["az://c/x?se=1&sig=S3CRET"]},
        {"inputs": [{"files": "a", "storage": {"connection_string": ["S3CRET"]}}]},
        {"inputs": [{"files": "a", "storage": {"options": "S3CRET"}}]},
        {"output_url": "https://me:S3CRET@host/x"},
        {"side_inputs": {"model": "az://c/x?sig=S3CRET"}},
        {"side_inputs": {"model": {"path": "az://c/x", "storage": {"connection_string": ["S3CRET"]}}}},
    ],
)
def test_no_secret_of_a_store_is_in_a_message(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text_of(**changes))
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(("changes", "words"), BAD_VALUES, ids=lambda value: str(value)[:50])
def test_a_bad_value_gets_a_message_with_place_key_value_and_what_is_expected(
    folder: Path, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text_of(**changes))
    message = str(caught.value)
    assert message.startswith(str(folder / "job.yaml"))
    assert [word for word in words if word not in message] == []
    assert "\n" not in message
    assert caught.value.exit_code == EXIT_USAGE


BAD_FILES = [
    ("", ["empty", "name: my-job"]),
    ("# nothing but a comment\n", ["empty"]),
    ("- name: x\n", ["expected a mapping", "found a list"]),
    ("just words\n", ["expected a mapping", "found a single value"]),
    ("name: digits\nnote: a: b\n", ["line 2, column 8", "not valid YAML", "\n    note: a: b\n           ^"]),
    ("name: digits\n\tnote: x\n", ["line 2", "not valid YAML", "spaces, not tabs"]),
    ("inputs: [a, b\n", ["not valid YAML", "close what is open"]),
    ("name: *unknown\n", ["line 1", "undefined alias"]),
    ("name: a\n---\nname: b\n", ["single document"]),
    ("name: !!python/object/apply:os.getcwd []\n", ["line 1", "could not determine a constructor"]),
    ("name: !!int abc\n", ["cannot be read"]),
    ("? [a]\n: b\n", ["unhashable"]),
    ("1: x\n", ["Keys should be strings"]),
    ('name: digits\nnote: "\\ud800"\n', ["line 2", "half a surrogate pair"]),
    ("name: a\x07b\n", ["line 1", "not valid YAML", "special characters"]),
    ("name: " + "[" * 5000, ["nested too deeply"]),
    (text_of() + "name: again\n", ["line 7", "the key name is there twice", "first in line 1"]),
    (text_of() + "slurm: {time: 1, time: 2}\n", ["line 7", "the key time is there twice"]),
    (text_of(inputs=...) + "inputs: &a [*a]\n", ["inputs.0", "got a list"]),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES, ids=lambda value: str(value)[:30])
def test_a_file_that_is_no_config_gets_a_message_with_the_line(folder: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "job.yaml"))
    assert [word for word in words if word not in message] == []


BAD_OVERRIDES = [
    ("mini_batch_size", ["--set mini_batch_size", "expected key=value"]),
    ("=5", ["--set =5", "expected key=value"]),
    ("slurm..time=5", ["expected key=value"]),
    ("mini_batch_size=[5", ["--set mini_batch_size", "not valid YAML"]),
    ("run_max_try=", ["--set run_max_try", "got nothing", "a whole number"]),
    ("mini_batch_size=abc", ["--set mini_batch_size: got 'abc'", "a whole number"]),
    ("mini_batch_sise=5", ["--set mini_batch_sise: unknown key; did you mean mini_batch_size"]),
    ("name=X", ["--set name: got 'X'", "lower-case"]),
    ("inputs.3=x", ["--set inputs.3", "a list of 1", "'3'"]),
    ("inputs.first=x", ["--set inputs.first", "a list of 1", "'first'"]),
    ("name.x=1", ["--set name.x", "name is a single value", "set name itself"]),
    ("slurm={time: 1, time: 2}", ["--set slurm", "the key time is there twice"]),
]


@pytest.mark.parametrize(("override", "words"), BAD_OVERRIDES, ids=lambda value: str(value)[:30])
def test_a_bad_override_gets_a_message_that_names_it(folder: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, None, override)
    assert [word for word in words if word not in str(caught.value)] == []


def test_all_problems_come_in_one_message_in_the_order_of_the_file(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text_of(name="X", output=..., node_count=0, nodecount=3), "run_max_try=x")
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("job.yaml: 5 things to correct:")
    starts = ["line 1: name:", "line 6: node_count:", "line 7: nodecount:", "--set run_max_try: got", "output: missing"]
    assert [line.strip()[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a folder"):
        load_config(tmp_path)


def test_a_config_that_is_not_utf8_is_refused_with_the_position(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes("name: dïgits".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 7 is not UTF-8"):
        load_config(tmp_path / "job.yaml")


def test_a_config_saved_with_a_byte_order_mark_is_read(folder: Path) -> None:
    (folder / "bom.yaml").write_text(text_of(), encoding="utf-8-sig")
    assert load_config(folder / "bom.yaml").name == "predict-digits"


def test_a_config_that_the_system_will_not_let_us_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "job.yaml").touch()
    monkeypatch.setattr(yaml_reading, "read_regular", refuse)
    with pytest.raises(ConfigError, match=r"job\.yaml: .*cannot be read: Permission denied"):
        load_config(tmp_path / "job.yaml")


def test_a_config_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job.yaml")
    with pytest.raises(ConfigError, match=r"job\.yaml: .*cannot be read: no regular file"):
        load_config(tmp_path / "job.yaml")


def test_an_empty_output_on_the_command_line_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--output"):
        load(folder, output="")


@pytest.mark.parametrize(
    "text",
    [
        text_of(environment_variables={"API_KEY": ["hunter2"]}),
        text_of(environment_variables="API_KEY=hunter2"),
        text_of(arguments="--token hunter2"),
        "environment_variables: {API_KEY: hunter2: x}\n",
    ],
)
def test_no_message_shows_a_value_that_may_be_secret(folder: Path, text: str) -> None:
    for attempt in ((text,), (None, "environment_variables.API_KEY=[hunter2"), (None, "arguments.TOKEN=hunter2")):
        with pytest.raises(ConfigError) as caught:
            load(folder, *attempt)
        assert "hunter2" not in str(caught.value)


def test_aliases_that_would_unfold_to_billions_of_values_are_refused_at_once(folder: Path) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 15))
    with pytest.raises(ConfigError, match="unknown key"):
        load(folder, text_of() + "l0: &l0 [x]\n" + levels)


def test_a_missing_entry_script_is_named_with_a_near_one(folder: Path) -> None:
    with pytest.raises(ScriptError) as caught:
        load(folder, text_of(entry_script="scores.py"))
    message = str(caught.value)
    words = ["job.yaml, line 2: entry_script", f"{folder}/scores.py", "config file's folder", "did you mean score.py?"]
    assert [word for word in words if word not in message] == []
    with pytest.raises(ScriptError, match="relative to source_directory"):
        load(folder, text_of(source_directory=".", entry_script="x/main.py"))
    with pytest.raises(ScriptError, match="not a file"):
        load(folder, text_of(entry_script="."))


# What may not be meant


def test_a_name_and_its_value_in_one_argument_get_a_hint(folder: Path) -> None:
    (hint,) = hints(load(folder, text_of(arguments=["--thr 0.5", "--thr", "0.5", "--text=a b", "a -b c", "- x"])))
    assert hint.startswith("arguments[0] is one argument with a blank in it, '--thr 0.5'; ")
    assert hint.endswith("they are two: [--thr, 0.5]")


# The default config


def test_the_default_config_is_the_named_one_else_that_of_the_folder_else_the_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    monkeypatch.setattr("mpi_prs.job.config.model.__file__", str(checkout / "mpi_prs" / "job" / "config" / "model.py"))
    work = tmp_path / "work"
    work.mkdir()
    assert default_config(work, {}) is None
    digits = checkout / "configs" / "digits.yaml"
    digits.parent.mkdir(parents=True)
    digits.touch()
    assert default_config(work, {"MPI_PRS_CONFIG": ""}) == digits
    (work / "mpi_prs.yaml").touch()
    assert default_config(work, {}) == work / "mpi_prs.yaml"
    assert default_config(work, {"MPI_PRS_CONFIG": "not/there.yaml"}) == work / "not/there.yaml"
    assert default_config(work, {"MPI_PRS_CONFIG": "/a.yaml"}) == Path("/a.yaml")


# The JSON Schema


def test_the_schema_describes_every_key_and_allows_no_other() -> None:
    schema = config_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["required"]) == {"name", "entry_script", "inputs", "output", "error_threshold"}
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        assert [key for key, value in section["properties"].items() if not value.get("description")] == []


def test_the_schema_knows_the_short_forms_and_the_limits() -> None:
    schema = config_schema()
    keys = schema["properties"]
    assert keys["inputs"]["items"]["anyOf"] == [{"type": "string"}, {"$ref": "#/$defs/InputSection"}]
    files = schema["$defs"]["InputSection"]["properties"]["files"]["anyOf"]
    assert [choice["type"] for choice in files] == ["string", "array"]
    assert keys["error_threshold"]["minimum"] == -1
    assert keys["run_max_try"]["minimum"] == 1
    assert keys["run_invocation_timeout"]["exclusiveMinimum"] == 0
    assert keys["mini_batch_size"]["anyOf"][1]["type"] == "string"


def test_every_description_states_its_default_or_that_the_key_is_required() -> None:
    for key, field in JobConfig.model_fields.items():
        assert field.description is not None
        if field.is_required():
            assert field.description.endswith("required"), key
        elif isinstance(field.default, int | str) and field.default != "":
            assert field.description.endswith(f"default {json.dumps(field.default)}".replace(chr(34), "")), key


# The entry script, without running it


def script_with(folder: Path, source: str | bytes, **changes: Any) -> JobConfig:
    (folder / "score.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    return load(folder, text_of(**changes))


GOOD_SCRIPTS = [
    "def run(mini_batch):\n    return mini_batch\n",
    "def run(mini_batch, context):\n    return []\n",
    "raise SystemExit('not run by the check')\ndef run(b): return b\n",
    "if True:\n    def run(b): return b\n",
    "if False:\n    pass\nelse:\n    def run(b): return b\n",
    "try:\n    import fast\nexcept ImportError:\n    def run(b): return b\n",
    "with open('x'):\n    def run(b): return b\n",
    "match 1:\n    case 1:\n        def run(b): return b\n",
    "run = print\n",
    "run: object = print\n",
    "init, run = print, print\n",
    "from helpers import run\n",
    "from helpers import predict as run\n",
    "import helpers as run\n",
    "from helpers import *\n",
    "import re\nx = '\\d'\ndef run(b): return b\n",  # an invalid escape is a warning, not an error
    "# -*- coding: latin-1 -*-\nx = 'é'\ndef run(b): return b\n".encode("latin-1"),
    "\ufeffdef run(b): return b\n",
]


@pytest.mark.parametrize("source", [*GOOD_SCRIPTS, "async def run(b): return b\n"])
def test_a_script_that_defines_run_in_any_way_passes(folder: Path, source: str | bytes) -> None:
    check_entry_script(script_with(folder, source))


BAD_SCRIPTS: list[tuple[str | bytes, list[str]]] = [
    ("", ["no function run", "def run(mini_batch):"]),
    ("def Run(b): return b\n", ["no function run", "there is Run"]),
    ("def init(): pass\nclass A:\n    def run(self, b): return b\n", ["no function run"]),
    ("def outer():\n    def run(b): return b\n", ["no function run"]),
    ("run: object\n", ["no function run"]),
    ("class run: pass\n", ["line 1", "run is a class"]),
    ("def run(b)\n    return b\n", ["syntax error", "line 1", "def run(b)", "^", "SyntaxError:"]),
    ("def run(b):\n    x = (1,\n", ["syntax error", "line 2", "was never closed"]),
    ("def run(b):\nreturn b\n", ["syntax error", "line 2", "IndentationError"]),
    ("return 3\ndef run(b): pass\n", ["syntax error", "line 1", "outside function"]),
    (b"def run(b): return b\0\n", ["NUL"]),
    ("x = 1\ny = 'é'\n".encode("latin-1"), ["line 2", "not utf-8", "0xe9"]),
    ("x = 1\n\n\ny = 'é'\n".encode("latin-1"), ["line 4", "not utf-8", "save it as UTF-8"]),
    (b"# -*- coding: martian -*-\n", ["encoding", "martian"]),
    ("(" * 500 + ")" * 500, ["score.py", "nested"]),
]


@pytest.mark.parametrize(("source", "words"), BAD_SCRIPTS)
def test_a_script_that_cannot_work_is_refused_with_the_reason(
    folder: Path, source: str | bytes, words: list[str]
) -> None:
    with pytest.raises(ScriptError) as caught:
        check_entry_script(script_with(folder, source))
    message = str(caught.value)
    assert message.startswith(str(folder / "score.py"))
    assert [word for word in words if word not in message] == []
    assert "mpi_prs/job" not in message


def test_what_another_interpreter_can_compile_is_not_judged_here(folder: Path) -> None:
    other = folder / "python99"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    check_entry_script(script_with(folder, "syntax of the future\n", environment=str(other)))
    with pytest.raises(ScriptError):
        check_entry_script(script_with(folder, "syntax of the future\n", environment=sys.executable))


def test_a_script_that_vanishes_or_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(folder)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(ScriptError, match=r"score\.py: .*cannot be read: Permission denied"):
            check_entry_script(config)
    config.entry_script.unlink()
    with pytest.raises(ScriptError, match=r"score\.py: .*does not exist"):
        check_entry_script(config)
    config.entry_script.mkdir()
    with pytest.raises(ScriptError, match=r"score\.py: this is a folder"):
        check_entry_script(config)
