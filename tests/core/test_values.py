"""The same value through every door: one table, and each door that takes such a value gives or refuses the same.

What was decided, where doors disagreed:

- sizes in any case, with a blank before the unit or none (``10mb``, ``10 MB``, ``5ROWS``, `` 5 ``);
- a whole number may be written ``5.0``, or as the text of one; ``5.5``, truth values and other digits than 0 to 9 not;
- numbers and truth values become text as they are written where they stand, in variables, tags and arguments: Python's
  ``True`` is ``True``, YAML's ``true`` is ``true``;
- no NUL anywhere; file names without a backslash, and not blank;
- YAML is 1.2: ``010`` is 10, ``1:30`` and ``NO`` are text.

What is refused, is refused with the same words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mpi_prs.azureml.compute.target import AmlCompute
from mpi_prs.azureml.definition.parallel_run_config import ParallelRunConfig
from mpi_prs.azureml.environments.environment import Environment, RunConfiguration
from mpi_prs.azureml.v2.loading import load
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.core import values
from mpi_prs.core.errors import MpiPrsError
from mpi_prs.job.config.model import load_config
from tests.support.pipelines import make_config, make_workspace

JOB = """
name: predict-digits
entry_script: score.py
inputs: [{table: data/a.csv}]
output: out
error_threshold: 10
"""
CONFIG = """
entry_script: score.py
error_threshold: 10
output_action: append_row
compute_target: cpucluster
node_count: 2
"""
STEP = """
type: parallel
inputs: {rows: {type: mltable, path: ./data}}
input_data: ${{inputs.rows}}
task: {type: run_function, code: ., entry_script: score.py}
resources: {instance_count: 1}
retry_settings: {timeout: 60}
mpi_prs: {output_action: append_row}
"""
_V2 = {
    "node_count": "resources.instance_count",
    "process_count_per_node": "max_concurrency_per_instance",
    "allowed_failed_count": "mini_batch_error_threshold",
    "run_invocation_timeout": "retry_settings.timeout",
    "append_row_file_name": "mpi_prs.append_row_file_name",
    "allowed_failed_percent": "mpi_prs.allowed_failed_percent",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in {
        "score.py": "def run(mini_batch):\n    return mini_batch\n",
        "data/a.csv": "x\n1\n",
        "data/MLTable": "paths: [{file: ./a.csv}]\ntransformations: [{read_delimited: {delimiter: ','}}]\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ws(folder: Path) -> Workspace:
    return make_workspace(folder / "ws")


class Door(NamedTuple):
    """A way in; ``enter`` gets the name of the setting, its YAML and the same in Python, and returns what is kept."""

    takes: tuple[str, ...]
    enter: Callable[[Path, Workspace, str, str, Any], Any]


_IN_JOB = (
    *("mini_batch_size", "error_threshold", "node_count", "process_count_per_node", "run_invocation_timeout"),
    *("allowed_failed_count", "allowed_failed_percent", "append_row_file_name", "environment_variables", "run_max_try"),
    "description",
)


def _with(text: str, name: str, value: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith(f"{name}:")]
    return "\n".join([*lines, f"{name}: {value}", ""])


def _job(folder: Path, _ws: Workspace, name: str, text: str, _value: Any) -> Any:
    file = folder / "job.yaml"
    file.write_text(_with(JOB, name, text))
    return getattr(load_config(file), name)


def _override(folder: Path, _ws: Workspace, name: str, text: str, _value: Any) -> Any:
    file = folder / "job.yaml"
    file.write_text(JOB)
    return getattr(load_config(file, [f"{name}={text}"]), name)


def _config(_folder: Path, _ws: Workspace, name: str, _text: str, value: Any) -> Any:
    return getattr(make_config(**{name: value}), name)


def _config_yaml(folder: Path, ws: Workspace, name: str, text: str, _value: Any) -> Any:
    file = folder / "config.yaml"
    file.write_text(_with(CONFIG, name, text))
    return getattr(ParallelRunConfig.load_yaml(ws, file), name)


def _v2(folder: Path, _ws: Workspace, name: str, text: str, _value: Any) -> Any:
    file = folder / "step.yml"
    file.write_text(STEP)
    loaded = load(file, [f"{_V2.get(name, name)}={text}"], output=str(folder / "out"))
    return getattr(loaded.config, name)


def _environment(_folder: Path, _ws: Workspace, name: str, _text: str, value: Any) -> Any:
    environment = Environment("plain")
    setattr(environment, name, value)
    carried = RunConfiguration()
    setattr(carried, name, value)
    assert getattr(carried, name) == getattr(environment, name)
    return getattr(environment, name)


def _compute(_folder: Path, _ws: Workspace, name: str, _text: str, value: Any) -> Any:
    where = "max_nodes" if name == "node_count" else name
    return getattr(AmlCompute.provisioning_configuration("STANDARD_D2_V2", **{where: value}), where)


def _tags(_folder: Path, _ws: Workspace, name: str, _text: str, value: Any) -> Any:
    return text_pairs(name, value)


DOORS = {
    "job.yaml": Door(_IN_JOB, _job),
    "--set": Door(_IN_JOB, _override),
    "ParallelRunConfig": Door(_IN_JOB, _config),
    "load_yaml": Door(_IN_JOB, _config_yaml),
    "v2": Door(tuple(name for name in _IN_JOB if name not in ("run_max_try",)), _v2),
    "Environment": Door(("environment_variables",), _environment),
    "compute": Door(("node_count", "description", "tags"), _compute),
    "tags": Door(("tags",), _tags),
}


class Refused(NamedTuple):
    """The words that every door has for it."""

    words: str


class Row(NamedTuple):
    name: str
    text: str
    """As YAML."""
    value: Any
    """The same from Python."""
    expected: Any


WHOLE = Refused("expected a whole number")
SIZE = Refused("expected a whole number such as 10 or, for tables, a size such as 1024KB, 10MB, 1GB or 5000rows")
NAME = Refused("expected the name of a file in the output folder, without a slash or backslash")
NUL = Refused("expected text without the character NUL")


def _same(name: str, value: Any, expected: Any) -> Row:
    """What is the same in JSON."""
    return Row(name, json.dumps(value), value, expected)


VALUES = [
    *(
        _same("mini_batch_size", value, expected)
        for value, expected in [
            (5, 5),
            (5.0, 5),
            ("5", 5),
            (" 5 ", 5),
            ("10MB", "10MB"),
            ("10mb", "10MB"),
            ("10 MB", "10MB"),
            ("5ROWS", "5rows"),
            ("5 rows", "5rows"),
            ("007KB", "7KB"),
            (0, SIZE),
            (-1, SIZE),
            ("0MB", SIZE),
            (5.5, SIZE),
            ("ten", SIZE),
            ("10TB", SIZE),
            ("１０MB", SIZE),
            ("", SIZE),
            (2**31, SIZE),
            ("9999999999999999GB", SIZE),
        ]
    ),
    Row("mini_batch_size", "true", True, SIZE),
    *(
        _same(name, value, expected)
        for name in ("node_count", "process_count_per_node", "error_threshold", "allowed_failed_count")
        for value, expected in [
            (5, 5),
            (5.0, 5),
            ("5", 5),
            ("5.0", 5),
            (" 5 ", 5),
            (5.5, WHOLE),
            ("５", WHOLE),
            ("1_0", WHOLE),
            ("five", WHOLE),
            ("", WHOLE),
            (-2, WHOLE),
        ]
    ),
    *(_same(name, value, -1) for name in ("error_threshold", "allowed_failed_count") for value in (-1, "-1", -1.0)),
    *(_same(name, -1, WHOLE) for name in ("node_count", "process_count_per_node")),
    _same("error_threshold", 10**12, 10**12),
    _same("node_count", 2**31, WHOLE),
    Row("node_count", "true", True, WHOLE),
    Row("node_count", "010", 10, 10),
    Row("error_threshold", "010", 10, 10),
    Row("run_invocation_timeout", "1:30", "1:30", Refused("expected a number of seconds, more than 0")),
    _same("run_invocation_timeout", 90, 90),
    _same("run_invocation_timeout", "0.5", 0.5),
    _same("run_invocation_timeout", "1e1", 10),
    _same("run_invocation_timeout", 0, Refused("expected a number of seconds, more than 0")),
    _same("run_invocation_timeout", "９", Refused("expected a number of seconds, more than 0")),
    _same("run_invocation_timeout", 10**9, Refused("expected a number of seconds, at most 31536000")),
    _same("allowed_failed_percent", "12.5", 12.5),
    _same("allowed_failed_percent", 101, Refused("expected a number from 0 to 100")),
    _same("allowed_failed_percent", "nan", Refused("expected a number from 0 to 100")),
    _same("append_row_file_name", "rows of May.csv", "rows of May.csv"),
    _same("append_row_file_name", "a\\b", NAME),
    _same("append_row_file_name", "a/b", NAME),
    _same("append_row_file_name", " ", NAME),
    _same("append_row_file_name", "", NAME),
    _same("append_row_file_name", "..", NAME),
    _same("append_row_file_name", "a\0b", NAME),
    _same("append_row_file_name", "_run.txt", Refused("names that start with _run")),
    _same("append_row_file_name", "é" * 126, Refused("expected at most 250 bytes")),
    _same("environment_variables", {"K": "a b", "L": ""}, {"K": "a b", "L": ""}),
    _same("environment_variables", {"K": 3}, {"K": "3"}),
    Row("environment_variables", "{K: 1.10}", {"K": "1.10"}, {"K": "1.10"}),
    Row("environment_variables", "{COUNTRY: NO}", {"COUNTRY": "NO"}, {"COUNTRY": "NO"}),
    Row("environment_variables", "{K: True}", {"K": True}, {"K": "True"}),
    Row("environment_variables", "{K: true}", {"K": "true"}, {"K": "true"}),
    _same("environment_variables", {"K": "a\0b"}, NUL),
    _same("environment_variables", {"K": []}, Refused("expected text")),
    _same("environment_variables", {"A=B": "c"}, Refused("'A=B' is no name of an environment variable")),
    _same("environment_variables", {"": "c"}, Refused("'' is no name of an environment variable")),
    _same("description", "of May", "of May"),
    Row("description", "1.10", "1.10", "1.10"),
    _same("description", "a\0b", NUL),
    Row("tags", "", {"a": 1, "b": True, "c": 1.5, "d": "e"}, {"a": "1", "b": "True", "c": "1.5", "d": "e"}),
    Row("tags", "", {"a": None}, Refused("expected text")),
    Row("tags", "", {"a": "b\0"}, NUL),
    Row("tags", "", {3: "x"}, Refused("expected text for the name of a tag")),
    Row("tags", "", ["a"], Refused("expected a dict of texts, such as {'pretrained': 'mnist'}")),
]


@pytest.mark.parametrize(
    ("door", "row"),
    [(door, row) for row in VALUES for door, each in DOORS.items() if row.name in each.takes],
    ids=lambda each: each if isinstance(each, str) else f"{each.name}={each.value!r:.30}",
)
def test_every_door_takes_and_refuses_the_same(folder: Path, ws: Workspace, door: str, row: Row) -> None:
    enter = DOORS[door].enter
    if not isinstance(row.expected, Refused):
        assert enter(folder, ws, row.name, row.text, row.value) == row.expected
        return
    with pytest.raises(MpiPrsError) as caught:
        enter(folder, ws, row.name, row.text, row.value)
    assert row.expected.words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"), [("10mb", 10 * 2**20), ("2 KB", 2048), (5.0, 5), ("1gb", 2**30), (" 7 ", 7)]
)
def test_bytes_are_written_like_sizes(folder: Path, given: Any, expected: int) -> None:
    assert values.byte_size(given) == expected
    file = folder / "job.yaml"
    file.write_text(_with(JOB, "scratch_limit", json.dumps(given)))
    assert load_config(file).scratch_limit == expected


@pytest.mark.parametrize("given", ["5rows", 0, True, "5.5", "9" * 18 + "GB", None])
def test_what_is_no_number_of_bytes_is_refused(given: Any) -> None:
    with pytest.raises(values.WrongValue, match="expected a number of bytes such as 500MB or 10GB"):
        values.byte_size(given)


def test_a_size_is_of_bytes_or_of_rows() -> None:
    assert values.size("10 kb") == values.Size(bytes=10240)
    assert values.size("50ROWS") == values.Size(rows=50)
    assert values.size(7) == values.Size(bytes=7, bare=True)


def test_a_value_that_may_be_secret_is_not_shown() -> None:
    with pytest.raises(MpiPrsError) as caught:
        make_config(environment_variables={"TOKEN": ["hunter2"]})
    assert "hunter2" not in str(caught.value)
    assert "environment_variables['TOKEN']: got a list; expected text" in str(caught.value)
