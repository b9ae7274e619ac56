"""The fingerprint: what belongs to the identity of a run, and how a difference reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import ScriptError
from mpi_prs.job.config.model import JobConfig
from mpi_prs.job.run.fingerprint import changes_manifest, differences, fingerprint, sealed


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "score.py"
    path.write_text("def run(mini_batch):\n    return mini_batch\n")
    return path


def config_of(script: Path, **changes: Any) -> JobConfig:
    settings = {"name": "digits", "inputs": ["/data/*.png"], "output": "/out", "error_threshold": 10, **changes}
    return JobConfig.model_validate({"entry_script": script, **settings})


DECIDES: list[tuple[dict[str, Any], str]] = [
    ({"inputs": ["/data/*.jpg"]}, 'inputs: [{"files": ["/data/*.png"]}] then, [{"files": ["/data/*.jpg"]}] now'),
    (
        {"inputs": [{"files_from": "/l.txt"}]},
        'inputs: [{"files": ["/data/*.png"]}] then, [{"files_from": "/l.txt"}] now',
    ),
    ({"mini_batch_size": 5}, "mini_batch_size: 10 then, 5 now"),
    ({"output_action": "summary_only"}, "output_action: append_row then, summary_only now"),
    ({"append_row_file_name": "a.txt"}, "append_row_file_name: parallel_run_step.txt then, a.txt now"),
    ({"output_order": "input"}, "output_order: arrival then, input now"),
    ({"to_csv": {"header": True}}, "to_csv.header: false then, true now"),
    ({"arguments": ["--rate", 2]}, 'arguments: [] then, ["--rate", "2"] now'),
    ({"environment_variables": {"LEVEL": "3"}}, "environment_variables.LEVEL: not set then, 3 now"),
    ({"loaders": 3}, "loaders: not set then, true now"),
    ({"environment": "/usr/bin/python9"}, "environment: not set then, /usr/bin/python9 now"),
]


@pytest.mark.parametrize(("change", "line"), DECIDES, ids=lambda value: str(value)[:40])
def test_what_decides_the_output_is_in_the_fingerprint_and_its_change_reads_well(
    script: Path, change: dict[str, Any], line: str
) -> None:
    assert differences(fingerprint(config_of(script)), fingerprint(config_of(script, **change))) == [line]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other-name"},
        {"description": "second try"},
        {"output": "/elsewhere"},
        {"error_threshold": -1},
        {"allowed_failed_count": 1},
        {"allowed_failed_percent": 1},
        {"run_max_try": 9},
        {"run_invocation_timeout": 9},
        {"init_timeout": 9},
        {"task_overhead_timeout": 9},
        {"progress_update_timeout": 9},
        {"heartbeat_timeout": 9},
        {"stop_grace": 9},
        {"node_count": 9},
        {"process_count_per_node": 9},
        {"processes_per_rank": 9},
        {"logging_level": "DEBUG"},
        {"azureml": "always"},
        {"slurm": {"partition": "gpu"}},
        {"loaders_ahead": 9},
        {"loaders_memory": "9GB"},
        {"mini_batches_in_flight": 9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_decides_how_the_job_runs_may_change_between_two_starts(script: Path, change: dict[str, Any]) -> None:
    assert fingerprint(config_of(script)) == fingerprint(config_of(script, **change))


def test_every_key_of_the_config_is_on_one_side_or_the_other(script: Path) -> None:
    """A new key must be sorted in here, or a changed setting would silently continue an old run."""
    decides = set(fingerprint(config_of(script))) - {"entry_script_sha256"}
    assert set(JobConfig.model_fields) - decides == {
        *("verify_output", "storage", "output_url", "scratch", "scratch_limit"),
        *("name", "description", "output", "source_directory", "logging_level", "azureml", "slurm"),
        *("error_threshold", "allowed_failed_count", "allowed_failed_percent", "run_max_try"),
        *("bisect_on_failure", "speculative_copies"),
        *("run_invocation_timeout", "init_timeout", "task_overhead_timeout", "progress_update_timeout"),
        *("loaders_ahead", "loaders_memory", "mini_batches_in_flight"),
        *("heartbeat_timeout", "stop_grace", "node_count", "process_count_per_node", "processes_per_rank"),
    }


def test_a_changed_script_is_noticed_by_its_content(script: Path) -> None:
    old = fingerprint(config_of(script))
    script.write_text("def run(mini_batch):\n    return []\n")
    assert differences(old, fingerprint(config_of(script))) == [
        f"entry_script: the file's content has changed ({script})"
    ]


def test_another_script_is_one_difference_not_two(script: Path) -> None:
    other = script.with_name("b.py")
    other.write_text("def run(b): return b\n")
    lines = differences(fingerprint(config_of(script)), fingerprint(config_of(other)))
    assert len(lines) == 1
    assert lines[0].startswith("entry_script: ")
    assert lines[0].endswith("b.py now")


def test_a_script_that_is_gone_is_a_mistake_of_the_user(script: Path) -> None:
    script.unlink()
    with pytest.raises(ScriptError, match=r"score\.py"):
        fingerprint(config_of(script))


@pytest.mark.parametrize(
    "name", ["API_KEY", "HF_TOKEN", "client_secret", "PASSWORD", "DB_PASSWD", "AZURE_STORAGE_CONNECTION_STRING", "SAS"]
)
def test_values_with_secret_names_are_not_in_the_fingerprint_yet_their_change_is_noticed(
    script: Path, name: str
) -> None:
    old, new = (fingerprint(config_of(script, environment_variables={name: value})) for value in ("hunter2", "hunter3"))
    assert "hunter" not in json.dumps([old, new])
    assert differences(old, new) == [f"environment_variables.{name}: its value has changed"]
    without = fingerprint(config_of(script))
    assert differences(without, new) == [f"environment_variables.{name}: not set then, set now"]


def test_what_looks_secret_by_its_value_is_not_shown_and_a_run_of_a_version_that_did_goes_on(script: Path) -> None:
    given = {
        "arguments": ["--url", "https://host/m.bin?sv=1&sig=hunter2"],
        "environment_variables": {"DATABASE": "postgres://me:hunter2@host/db"},
        "side_inputs": {"model": "/models/sig=3"},
    }
    config = config_of(script, **given)
    old = fingerprint(config)
    new = fingerprint(config_of(script, **{**given, "arguments": ["--url", "https://host/m.bin?sv=1&sig=hunter3"]}))
    assert "hunter" not in json.dumps([old, new])
    assert old["side_inputs"] == {"model": "/models/sig=3"}
    assert differences(old, new) == ["arguments: its value has changed"]
    raw = {**old, "arguments": list(config.arguments), "environment_variables": dict(config.environment_variables)}
    assert sealed(raw) == old
    assert sealed({"arguments": 5, "environment_variables": [[]], "inputs": [{"a": None}]}) is not None


def test_plain_variables_are_kept_readable(script: Path) -> None:
    found = fingerprint(config_of(script, environment_variables={"MODEL": "small", "OMP_NUM_THREADS": 4}))
    assert found["environment_variables"] == {"MODEL": "small", "OMP_NUM_THREADS": "4"}


@pytest.mark.parametrize("arguments", [["--api-key", "hunter2"], ["--api-key=hunter2"]])
def test_secret_arguments_are_not_in_the_fingerprint_yet_their_change_is_noticed(
    script: Path, arguments: list[str]
) -> None:
    old = fingerprint(config_of(script, arguments=[*arguments, "plain"]))
    new = fingerprint(config_of(script, arguments=[*(text.replace("2", "3") for text in arguments), "plain"]))
    assert "hunter" not in json.dumps([old, new])
    assert old["arguments"][-1] == "plain"
    assert len(differences(old, new)) == 1
    assert "hunter" not in str(differences(old, new))


def test_an_option_after_a_secret_flag_without_value_stays_readable(script: Path) -> None:
    found = fingerprint(config_of(script, arguments=["--use-token", "--model", "m"]))
    assert found["arguments"] == ["--use-token", "--model", "m"]


def test_in_long_lists_only_what_differs_is_shown(script: Path) -> None:
    names = [f"/data/{n:04}.png" for n in range(1000)]
    changed = [*names[:500], "/data/other.png", *names[501:]]
    old, new = (fingerprint(config_of(script, inputs=[{"files": files}])) for files in (names, changed))
    assert differences(old, new) == ["inputs.0.files.500: /data/0500.png then, /data/other.png now"]
    fewer = fingerprint(config_of(script, inputs=[{"files": names[:10]}]))
    lines = differences(old, fewer)
    assert lines[0] == "inputs.0.files.10: /data/0010.png then, not set now"
    assert lines[-1] == "inputs: and 985 more differences"
    assert len(lines) == 6


def test_a_long_value_is_shown_shortened_with_its_end() -> None:
    long = "/very" * 100 + "/end.txt"
    line = differences({"environment": None}, {"environment": long})[0]
    assert len(line) < 130
    assert line.endswith("/end.txt now")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"mini_batch_size": 3}, True),
        ({"inputs": ["/other"]}, True),
        ({"arguments": ["x"]}, False),
        ({"append_row_file_name": "x"}, False),
    ],
)
def test_only_inputs_and_mini_batch_size_change_the_manifest(
    script: Path, change: dict[str, Any], expected: bool
) -> None:
    assert changes_manifest(fingerprint(config_of(script)), fingerprint(config_of(script, **change))) is expected


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
paths = st.text("ab/*.é ", min_size=1, max_size=12).filter(str.strip)
configs = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(paths, min_size=1, max_size=3),
        "mini_batch_size": st.integers(1, 1000),
        "arguments": st.lists(st.one_of(texts, st.integers(), st.sampled_from(["--token", "--key=1"])), max_size=4),
        "environment_variables": st.dictionaries(st.text("ABKEY_", min_size=1, max_size=6), texts, max_size=4),
        "to_csv": st.fixed_dictionaries({"header": st.booleans(), "sep": st.sampled_from(",;\t ")}),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(changes=configs)
def test_the_same_config_has_the_same_fingerprint_also_after_a_round_trip_through_json(
    script: Path, changes: dict[str, Any]
) -> None:
    first = fingerprint(config_of(script, **changes))
    variables = dict(reversed(changes.get("environment_variables", {}).items()))
    again = fingerprint(config_of(script, **{**changes, "environment_variables": variables}))
    stored = json.loads(json.dumps(first))
    assert stored == first == again
    assert json.dumps(first) == json.dumps(again)
    assert differences(stored, again) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(old=configs, new=configs)
def test_two_fingerprints_that_differ_always_show_a_difference(
    script: Path, old: dict[str, Any], new: dict[str, Any]
) -> None:
    before, after = fingerprint(config_of(script, **old)), fingerprint(config_of(script, **new))
    assert (before == after) is (differences(before, after) == [])
