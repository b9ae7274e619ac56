"""ParallelRunConfig: what it takes, what it refuses, and its YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.definition.parallel_run_config import PROMOTED, ParallelRunConfig
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.core.errors import PipelineError, WorkspaceError
from tests.support.pipelines import make_config, make_workspace


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path)


def test_the_defaults_are_those_of_the_seeds() -> None:
    config = make_config()
    assert config.append_row_file_name == "parallel_run_step.txt"
    assert (config.logging_level, config.run_invocation_timeout, config.run_max_try) == ("INFO", 60, 3)
    assert (config.mini_batch_size, config.partition_keys, config.source_directory) == (None, None, None)
    assert (config.allowed_failed_count, config.allowed_failed_percent) == (None, None)
    assert config.environment_variables == {}
    settings = config.settings({})
    assert settings["process_count_per_node"] == 1
    assert (settings["node_count"], settings["output_action"], settings["error_threshold"]) == (2, "append_row", 10)


def test_the_block_of_the_german_seed(ws: Workspace) -> None:
    config = ParallelRunConfig(
        source_directory=".",
        entry_script="digit_identification.py",
        mini_batch_size=PipelineParameter(name="batch_size_param", default_value="5"),
        error_threshold=10,
        output_action="append_row",
        append_row_file_name="mnist_outputs.txt",
        environment=Environment(name="batch_environment"),
        compute_target=ws.compute_targets["cpucluster"],
        process_count_per_node=PipelineParameter(name="process_count_param", default_value=2),
        node_count=2,
    )
    assert config.append_row_file_name == "mnist_outputs.txt"
    assert set(config.parameters()) == {"mini_batch_size", "process_count_per_node"}
    settings = config.settings({"batch_size_param": "1", "process_count_param": 1})
    assert (settings["mini_batch_size"], settings["process_count_per_node"]) == (1, 1)
    assert config.settings({"batch_size_param": "5", "process_count_param": 2})["mini_batch_size"] == 5


def test_the_block_of_the_swedish_seed_with_the_older_defaults() -> None:
    config = make_config(
        mini_batch_size="5", node_count=4, logging_level=None, run_invocation_timeout=None, input_format="file"
    )
    assert config.settings({})["mini_batch_size"] == 5
    assert (config.logging_level, config.run_invocation_timeout, config.run_max_try) == ("INFO", 60, 3)


def test_positional_arguments_are_in_azures_order() -> None:
    config = ParallelRunConfig(
        None, "a.py", -1, "summary_only", "c", 3, 2, "10MB", "src", "about", "DEBUG", 5, 1, "o.txt"
    )
    assert (config.entry_script, config.error_threshold, config.output_action) == ("a.py", -1, "summary_only")
    assert (config.compute_target, config.node_count, config.process_count_per_node) == ("c", 3, 2)
    assert (config.mini_batch_size, config.source_directory, config.description) == ("10MB", "src", "about")
    assert (config.logging_level, config.run_invocation_timeout, config.run_max_try) == ("DEBUG", 5, 1)
    assert config.append_row_file_name == "o.txt"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("mini_batch_size", "5", 5),
        ("mini_batch_size", 1024, 1024),
        ("mini_batch_size", "1024KB", "1024KB"),
        ("mini_batch_size", "10mb", "10MB"),
        ("mini_batch_size", "1 GB", "1GB"),
        ("mini_batch_size", "5000rows", "5000rows"),
        ("node_count", "2", 2),
        ("process_count_per_node", 8, 8),
        ("error_threshold", -1, -1),
        ("error_threshold", "0", 0),
        ("output_action", "Append_Row", "append_row"),
        ("logging_level", "debug", "DEBUG"),
        ("run_invocation_timeout", "600", 600),
        ("run_invocation_timeout", 0.5, 0.5),
        ("run_max_try", 1, 1),
        ("allowed_failed_count", 0, 0),
        ("allowed_failed_percent", 12.5, 12.5),
        ("allowed_failed_percent", "3", 3.0),
        ("partition_keys", ("store", "brand"), ["store", "brand"]),
        ("partition_keys", '["store"]', ["store"]),
        ("environment_variables", {"A": 1, "B": "x"}, {"A": "1", "B": "x"}),
        ("source_directory", Path("scripts"), "scripts"),
        ("append_row_file_name", "out.csv", "out.csv"),
    ],
)
def test_values_are_put_into_one_form(name: str, value: Any, kept: Any) -> None:
    assert getattr(make_config(**{name: value}), name) == kept


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"entry_script": None}, ["entry_script is missing", "init() and run()"]),
    ({"error_threshold": None}, ["error_threshold is missing", "-1: any number"]),
    ({"output_action": None}, ["output_action is missing", "summary_only"]),
    ({"compute_target": None}, ["compute_target is missing", "AmlCompute"]),
    ({"node_count": None}, ["node_count is missing"]),
    ({"environment": "batch_env"}, ["environment", "'batch_env'", 'Environment.get(ws, "batch_env")']),
    ({"environment": 3}, ["environment", "got 3", "expected an Environment"]),
    ({"entry_script": 3}, ["entry_script", "got 3", "expected a path"]),
    ({"entry_script": " "}, ["entry_script", "not empty text"]),
    ({"entry_script": "https://x/score.py"}, ["entry_script", "not a URL"]),
    ({"error_threshold": -2}, ["error_threshold", "got -2", "at least -1"]),
    ({"error_threshold": 0.5}, ["error_threshold", "got 0.5", "whole number"]),
    ({"error_threshold": True}, ["error_threshold", "got True", "whole number"]),
    ({"output_action": "append"}, ["output_action", "'append'", "append_row, summary_only"]),
    ({"compute_target": ["cpucluster"]}, ["compute_target", "ws.compute_targets"]),
    ({"node_count": 0}, ["node_count", "got 0", "at least 1"]),
    ({"node_count": "two"}, ["node_count", "'two'", "whole number"]),
    ({"process_count_per_node": -1}, ["process_count_per_node", "at least 1"]),
    ({"mini_batch_size": 0}, ["mini_batch_size", "got 0", "10MB"]),
    ({"mini_batch_size": "ten"}, ["mini_batch_size", "'ten'", "1024KB"]),
    ({"mini_batch_size": 1.5}, ["mini_batch_size", "got 1.5"]),
    ({"mini_batch_size": True}, ["mini_batch_size", "got True"]),
    ({"logging_level": "TRACE"}, ["logging_level", "'TRACE'", "WARNING, INFO, DEBUG"]),
    ({"run_invocation_timeout": 0}, ["run_invocation_timeout", "got 0", "more than 0"]),
    ({"run_invocation_timeout": float("nan")}, ["run_invocation_timeout", "nan"]),
    ({"run_invocation_timeout": "soon"}, ["run_invocation_timeout", "'soon'"]),
    ({"run_max_try": 0}, ["run_max_try", "at least 1"]),
    ({"append_row_file_name": "a/b.txt"}, ["append_row_file_name", "without a slash or backslash"]),
    ({"append_row_file_name": ""}, ["append_row_file_name"]),
    ({"append_row_file_name": "_run.txt"}, ["append_row_file_name", "_run"]),
    ({"append_row_file_name": "x" * 251}, ["append_row_file_name", "250 bytes"]),
    ({"allowed_failed_count": -2}, ["allowed_failed_count", "at least -1"]),
    ({"allowed_failed_percent": 101}, ["allowed_failed_percent", "got 101", "from 0 to 100"]),
    ({"allowed_failed_percent": "many"}, ["allowed_failed_percent", "'many'"]),
    ({"partition_keys": "store"}, ["partition_keys", "'store'", "json.dumps"]),
    ({"partition_keys": []}, ["partition_keys", "list of names"]),
    ({"partition_keys": ["a", "a"]}, ["partition_keys", "once"]),
    ({"partition_keys": ["a", 1]}, ["partition_keys", "list of names"]),
    ({"environment_variables": ["A=1"]}, ["environment_variables", "dict"]),
    ({"environment_variables": {"A=1": "x"}}, ["environment_variables", "'A=1'"]),
    ({"environment_variables": {"A": None}}, ["environment_variables['A']", "got None"]),
    ({"mini_batch_size": 5, "partition_keys": ["a"]}, ["partition_keys and mini_batch_size exclude", "remove one"]),
    (
        {"mini_batch_size": PipelineParameter("size", "5"), "partition_keys": PipelineParameter("keys", '["a"]')},
        ["partition_keys and mini_batch_size exclude"],
    ),
    ({"node_count": PipelineParameter("nodes", "many")}, ["node_count", "'many'", "PipelineParameter 'nodes'"]),
    ({"partition_keys": PipelineParameter("keys", "store")}, ["partition_keys", "'keys'", "JSON"]),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_value_is_refused_with_its_name_and_what_was_expected(changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(PipelineError) as caught:
        make_config(**changes)
    assert str(caught.value).startswith("ParallelRunConfig: ")
    assert [words for words in said if words not in str(caught.value)] == []


def test_an_unknown_parameter_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="batch_size"):
        make_config(batch_size=3)


@pytest.mark.parametrize(
    "name",
    ["error_threshold", "output_action", "entry_script", "append_row_file_name", "compute_target", "environment"],
)
def test_a_pipeline_parameter_where_none_may_be_is_refused_with_where_it_may(name: str) -> None:
    with pytest.raises(PipelineError) as caught:
        make_config(**{name: PipelineParameter("p", "1")})
    assert f"{name} cannot be a PipelineParameter" in str(caught.value)
    assert (
        "node_count, process_count_per_node, mini_batch_size, logging_level, run_invocation_timeout, run_max_try, "
        "partition_keys"
    ) in str(caught.value)


def test_every_setting_that_may_be_a_pipeline_parameter_gets_its_value() -> None:
    defaults: dict[str, Any] = {
        "node_count": 1,
        "process_count_per_node": "2",
        "mini_batch_size": "5",
        "logging_level": "INFO",
        "run_invocation_timeout": 60,
        "run_max_try": 3,
    }
    given: dict[str, Any] = {
        "node_count": "4",
        "process_count_per_node": 1,
        "mini_batch_size": "10MB",
        "logging_level": "debug",
        "run_invocation_timeout": "5",
        "run_max_try": 1,
    }
    assert {*defaults, "partition_keys"} == set(PROMOTED)
    config = make_config(**{name: PipelineParameter(f"p_{name}", value) for name, value in defaults.items()})
    settings = config.settings({f"p_{name}": value for name, value in given.items()})
    assert {name: settings[name] for name in given} == {
        "node_count": 4,
        "process_count_per_node": 1,
        "mini_batch_size": "10MB",
        "logging_level": "DEBUG",
        "run_invocation_timeout": 5,
        "run_max_try": 1,
    }
    keys = make_config(partition_keys=PipelineParameter("keys", '["store"]'))
    assert keys.settings({"keys": '["store", "brand"]'})["partition_keys"] == ["store", "brand"]


def test_a_value_of_a_submission_that_does_not_fit_names_setting_and_parameter() -> None:
    config = make_config(node_count=PipelineParameter("nodes", 2))
    with pytest.raises(PipelineError, match=r"node_count: got 0 \(PipelineParameter 'nodes'\); .* at least 1"):
        config.settings({"nodes": 0})
    with pytest.raises(PipelineError, match="no value for the PipelineParameter 'nodes'; did you mean 'node'"):
        config.settings({"node": 2})


def test_attributes_that_were_set_later_are_checked_as_well() -> None:
    config = make_config()
    config.mini_batch_size, config.node_count = "7", 1
    assert (config.settings({})["mini_batch_size"], config.settings({})["node_count"]) == (7, 1)
    config.node_count = 0
    with pytest.raises(PipelineError, match="node_count: got 0"):
        config.settings({})
    config.node_count, config.partition_keys = 1, ["store"]
    with pytest.raises(PipelineError, match="exclude each other"):
        config.settings({})


def test_an_attribute_of_azures_that_is_not_here_says_so() -> None:
    with pytest.raises(AttributeError, match="mpi_prs's ParallelRunConfig has no 'mini_batch'"):
        make_config().mini_batch  # type: ignore[attr-defined]  # noqa: B018


# YAML


def test_what_is_saved_to_yaml_is_loaded_again(ws: Workspace, tmp_path: Path) -> None:
    environment = Environment("batch")
    environment.environment_variables = {"A": "1"}
    config = make_config(
        environment=environment,
        compute_target=ws.compute_targets["cpucluster"],
        mini_batch_size=PipelineParameter("size", "5"),
        source_directory="scripts",
        environment_variables={"LEVEL": "2"},
        allowed_failed_percent=5,
        description="Ziffern, größer",
    )
    path = tmp_path / "config.yml"
    config.save_to_yaml(path)
    loaded = ParallelRunConfig.load_yaml(ws, str(path))
    assert isinstance(loaded.environment, Environment)
    assert loaded.environment.definition() == environment.definition()
    assert loaded.compute_target == "cpucluster"
    assert isinstance(loaded.mini_batch_size, PipelineParameter)
    assert loaded.mini_batch_size.is_same(config.mini_batch_size)  # type: ignore[arg-type]
    for name in ("entry_script", "source_directory", "environment_variables", "allowed_failed_percent", "description"):
        assert getattr(loaded, name) == getattr(config, name)
    assert loaded.settings({"size": 1}) | {"environment": None, "compute_target": None} == config.settings(
        {"size": 1}
    ) | {"environment": None, "compute_target": None}


def test_a_yaml_file_by_hand_names_a_registered_environment(ws: Workspace, tmp_path: Path) -> None:
    Environment("batch").register(ws)
    path = tmp_path / "config.yml"
    text = "entry_script: score.py\nerror_threshold: 10\noutput_action: append_row\ncompute_target: cpucluster\n"
    path.write_text(text + "node_count: 2\nenvironment: batch\npartition_keys: [store]\n")
    loaded = ParallelRunConfig.load_yaml(workspace=ws, path=path)
    assert isinstance(loaded.environment, Environment)
    assert (loaded.environment.name, loaded.environment.version) == ("batch", "1")
    assert loaded.partition_keys == ["store"]
    path.write_text(text + "node_count: 2\nenvironment: {name: batch, version: 1}\n")
    assert ParallelRunConfig.load_yaml(ws, path).environment.version == "1"  # type: ignore[union-attr]
    Environment("1.10").register(ws)
    for given in ("1.10", "{name: 1.10, version: 1}"):
        path.write_text(text + f"node_count: 2\nenvironment: {given}\n")
        assert ParallelRunConfig.load_yaml(ws, path).environment.name == "1.10"  # type: ignore[union-attr]
    variables = "environmentVariables: {LEVEL: 1.10, FAST: true}"
    path.write_text(text + f"node_count: 2\nenvironment: {{name: x, {variables}, docker: {{enabled: true}}}}\n")
    environment = ParallelRunConfig.load_yaml(ws, path).environment
    assert isinstance(environment, Environment)
    assert environment.environment_variables == {"LEVEL": "1.10", "FAST": "true"}
    assert environment.docker.enabled is True
    path.write_text(text + "node_count: 2\nenvironment: bath\n")
    with pytest.raises(WorkspaceError, match="'bath'; did you mean 'batch'"):
        ParallelRunConfig.load_yaml(ws, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", ["expected a mapping"]),
        ("a: [\n", ["not valid YAML"]),
        ("entry_scrip: a.py\n", ["unknown key 'entry_scrip'", "did you mean 'entry_script'"]),
        ("entry_script: a.py\n", ["error_threshold is missing"]),
        ("mini_batch_size: {pipeline_parameter: x}\n", ["mini_batch_size", "default_value"]),
        ("mini_batch_size: {pipeline_parameter: a b, default_value: 1}\n", ["mini_batch_size", "'a b'"]),
        ("environment: [3]\n", ["environment", "name of a registered environment"]),
    ],
)
def test_a_broken_yaml_file_is_named_with_what_is_wrong(
    ws: Workspace, tmp_path: Path, text: str, said: list[str]
) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(PipelineError) as caught:
        ParallelRunConfig.load_yaml(ws, path)
    assert [words for words in (str(path), *said) if words not in str(caught.value)] == []


def test_yaml_files_that_cannot_be_read_or_written(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"nothing\.yml: no such file"):
        ParallelRunConfig.load_yaml(ws, tmp_path / "nothing.yml")
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match=r"cannot write .*file/config\.yml"):
        make_config().save_to_yaml(tmp_path / "file" / "config.yml")
    with pytest.raises(PipelineError, match=r"load_yaml: path: got a Workspace; expected a path"):
        ParallelRunConfig.load_yaml(str(tmp_path), ws)  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match=r"save_to_yaml: path: got None; expected a path"):
        make_config().save_to_yaml(None)  # type: ignore[arg-type]
