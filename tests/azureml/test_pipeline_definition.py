"""Parameters, outputs, steps and pipelines: what they take, what they refuse, and what they make of it."""

from __future__ import annotations

import itertools
import os
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
from mpi_prs.azureml.datasets.outputs import OutputFileDatasetConfig
from mpi_prs.azureml.definition.data import (
    InputPortBinding,
    PipelineData,
    PipelineOutputFileDataset,
    PipelineOutputTabularDataset,
)
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.definition.pipeline import Pipeline, StepSequence
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.core.errors import MpiPrsError, PipelineError
from tests.support.pipelines import make_config, make_files, make_source, make_step, make_table, make_workspace


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Any:
    return make_files(tmp_path)


@pytest.fixture
def table(tmp_path: Path) -> Any:
    return make_table(tmp_path)


def said_by(call: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as caught:
        call()
    return str(caught.value)


# PipelineParameter


@pytest.mark.parametrize(
    ("default", "given", "value"),
    [
        ("5", "1", "1"),
        ("5", 1, "1"),
        ("x", 0.5, "0.5"),
        ("x", True, "True"),
        (2, 1, 1),
        (2, "1", 1),
        (2, " -3 ", -3),
        (2, 5.0, 5),
        (0.5, 1, 1.0),
        (0.5, "1e-3", 0.001),
        (True, False, False),
        (True, "false", False),
    ],
)
def test_a_value_is_taken_as_the_kind_of_the_default(default: Any, given: Any, value: Any) -> None:
    found = PipelineParameter("p", default).checked(given)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("default", "given", "said"),
    [
        (2, "two", "takes a whole number, as its default 2, but got 'two'"),
        (2, 1.5, "whole number"),
        (2, "１２", "whole number"),
        (2, "1_0", "whole number"),
        (0.5, "nan", "takes a number"),
        (0.5, float("inf"), "takes a number"),
        (2, True, "whole number"),
        (2, None, "but got None"),
        (0.5, "half", "takes a number"),
        (True, "yes", "True or False"),
        (True, 1, "True or False"),
        ("x", None, "takes a text"),
        ("x", ["a"], "takes a text, as its default 'x', but got a list"),
        ("x", "a\nb", "single line"),
    ],
)
def test_a_value_of_another_kind_is_refused(default: Any, given: Any, said: str) -> None:
    message = said_by(lambda: PipelineParameter("p", default).checked(given))
    assert message.startswith("PipelineParameter 'p' ")
    assert said in message


def test_datasets_and_paths_are_values_of_their_own_kind(ws: Workspace, files: Any, table: Any) -> None:
    path = ws.get_default_datastore().path("x")
    for default, others in ((files, (table, path, "x")), (table, (files, path)), (path, (files, "x"))):
        parameter = PipelineParameter("data", default)
        assert parameter.checked(default) is default
        for other in others:
            assert "'data' takes a " in said_by(lambda other=other, parameter=parameter: parameter.checked(other))


@pytest.mark.parametrize("name", ["", "1st", "a b", "a\n", None, 3])
def test_a_parameter_has_a_plain_name(name: Any) -> None:
    assert "name of a PipelineParameter" in said_by(lambda: PipelineParameter(name, 1))


@pytest.mark.parametrize(("default", "said"), [(None, "got None"), (["a"], "json.dumps"), ({}, "a dict")])
def test_a_default_is_something_that_can_be_given(default: Any, said: str) -> None:
    assert said in said_by(lambda: PipelineParameter("p", default))


# PipelineData


def test_pipeline_data_keeps_what_it_is_given(ws: Workspace) -> None:
    store = ws.get_default_datastore()
    data = PipelineData("inferences", store, "out", "upload", "mnist/results", True, "AnyFile", True, "result")
    assert (data.name, data.datastore, data.output_name, data.output_mode) == ("inferences", store, "out", "upload")
    assert (data.output_path_on_compute, data.output_overwrite, data.data_type) == ("mnist/results", True, "AnyFile")
    assert (data.is_directory, data.pipeline_output_name) == (True, "result")
    plain = PipelineData(name="inferences", datastore=store, output_path_on_compute="mnist/results")
    assert (plain.output_name, plain.output_mode, plain.pipeline_output_name) == ("inferences", "mount", None)
    assert len({data, plain, PipelineData("inferences")}) == 3  # each is an output of its own


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a-b"}, "'a-b'"),
        ({"name": ""}, "letters, digits and underscores"),
        ({"name": 3}, "got 3"),
        ({"name": "a", "output_mode": "direct"}, "'mount' or 'upload', but got 'direct'"),
        ({"name": "a", "datastore": "workspaceblobstore"}, "ws.get_default_datastore()"),
        ({"name": "a", "output_name": "x y"}, "'x y'"),
        ({"name": "a", "pipeline_output_name": "x/y"}, "'x/y'"),
    ],
)
def test_pipeline_data_refuses(given: dict[str, Any], said: str) -> None:
    assert said in said_by(lambda: PipelineData(**given))


def test_the_datasets_of_an_output_are_changed_copies() -> None:
    data = PipelineData("images")
    dataset = data.as_dataset()
    assert isinstance(dataset, PipelineOutputFileDataset)
    changed = dataset.as_named_input("pictures").as_download()
    assert (changed.name, changed.mode, dataset.name, dataset.mode) == ("pictures", "download", "images", "mount")
    assert changed.pipeline_data is data
    rows = changed.parse_delimited_files(separator=" ", header=False, file_extension=".txt").keep_columns("a")
    assert isinstance(rows, PipelineOutputTabularDataset)
    assert (rows.name, rows.kept, rows.dropped, rows.file_extension) == ("pictures", ["a"], [], ".txt")
    assert rows.as_named_input("rows").drop_columns(["b", "c"]).dropped == ["b", "c"]
    assert dataset.parse_parquet_files().file_extension == ".parquet"
    with pytest.raises(AttributeError, match=r"no 'register'; when the run has completed, make a dataset of"):
        dataset.register("name")  # type: ignore[attr-defined]
    assert "letter or underscore first" in said_by(lambda: dataset.as_named_input("1st"))
    assert "name of a column" in said_by(lambda: rows.keep_columns([]))


def test_an_output_is_bound_to_an_input() -> None:
    data = PipelineData("images")
    for binding, mode in ((data.as_mount(), "mount"), (data.as_download(), "download")):
        assert isinstance(binding, InputPortBinding)
        assert (binding.name, binding.bind_mode, binding.bind_object) == ("images", mode, data)
    assert data.as_input("pictures").name == "pictures"
    assert data.create_input_binding("p", "download").bind_mode == "download"
    assert "bind_object is a PipelineData" in said_by(lambda: InputPortBinding("x", 3))  # type: ignore[arg-type]


# ParallelRunStep


def test_the_block_of_the_german_seed(ws: Workspace, files: Any) -> None:
    pipeline_param = PipelineParameter(name="mnist_param", default_value=files)
    consumption = DatasetConsumptionConfig("minist_param_config", pipeline_param).as_mount()
    output_dir = PipelineData(name="inferences", datastore=ws.get_default_datastore())
    step = ParallelRunStep(
        name="predict-digits-mnist",
        parallel_run_config=make_config(mini_batch_size=PipelineParameter("batch_size_param", "5")),
        inputs=[consumption],
        output=output_dir,
        allow_reuse=True,
    )
    pipeline = Pipeline(workspace=ws, steps=[step])
    assert (step.name, step.outputs, step.allow_reuse) == ("predict-digits-mnist", [output_dir], True)
    assert pipeline.values() == {"mnist_param": files, "batch_size_param": "5"}
    single = make_files(Path(str(ws.folder)), 1)
    given = {"mnist_param": single, "batch_size_param": "1"}
    assert pipeline.values(given) == given


def test_the_block_of_the_swedish_seed_with_models(ws: Workspace, files: Any, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("w")
    model = Model.register(model_path=str(tmp_path / "weights"), model_name="mnist", workspace=ws)
    named = files.register(ws, "mnist_sample_data", create_new_version=True).as_named_input("mnist_sample_data")
    step = ParallelRunStep(
        name="batch-mnist",
        models=[model],
        parallel_run_config=make_config(mini_batch_size="5"),
        inputs=[named],
        output=PipelineData(name="inferences", output_path_on_compute="mnist/results"),
        arguments=[],
        allow_reuse=True,
    )
    assert step.models == [model]
    assert [value.name for value in step.inputs] == ["mnist_sample_data"]


@pytest.mark.parametrize("name", ["ab", "a" * 33, "Predict", "1st", "a_b", "a-", "", "ab\n", None])
def test_the_name_of_a_step_follows_the_rule(files: Any, name: Any) -> None:
    assert "3 to 32 lower-case letters" in said_by(lambda: make_step(name, [files], output=None))


@pytest.mark.parametrize("name", ["abc", "a" * 32, "predict-digits-2", "a--b"])
def test_names_that_the_rule_allows(files: Any, name: str) -> None:
    assert make_step(name, [files], output=None).name == name


def test_inputs_are_whatever_the_sdk_takes_for_one(files: Any, table: Any) -> None:
    data = PipelineData("earlier")
    named = files.as_named_input("named").as_download()
    step = make_step("abc", [named, files, data.as_dataset(), data.as_input("again")])
    assert [(value.name, value.mode) for value in step.inputs] == [
        ("named", "download"),
        ("input_1", "direct"),
        ("earlier", "mount"),
        ("again", "mount"),
    ]
    assert step.upstream() == {data}
    rows = make_step("abc", [table.as_named_input("rows"), data.as_dataset().parse_delimited_files()])
    assert [value.is_tabular for value in rows.inputs] == [True, True]


def test_the_output_of_another_step_may_be_an_output_file_dataset_config(ws: Workspace, files: Any) -> None:
    output = OutputFileDatasetConfig("between", destination=(ws.get_default_datastore(), "between"))
    first = make_step("first", [files], output=output.as_upload(), arguments=["--out", output])
    rows = output.read_delimited_files(path_glob="*.csv")
    second = make_step("second", [rows.as_input("rows")], side_inputs=[output.as_input("between")])
    third = make_step("third", [output])
    assert second.upstream() == third.upstream() == {output}
    assert (second.inputs[0].is_tabular, second.side_inputs[0].mode) == (True, "mount")
    pipeline = Pipeline(ws, [third, second, first])
    assert names(pipeline) == ["first", "third", "second"]
    assert pipeline.needs(third) == [first]
    listed_by_none = OutputFileDatasetConfig("more")
    make_step("before", [files], output=listed_by_none)
    assert names(Pipeline(ws, [make_step("after", [listed_by_none.as_input()])])) == ["before", "after"]
    tagged = OutputFileDatasetConfig("tagged").register_on_complete("name", tags={"a": "b"})
    make_step("before", [files], output=tagged)
    assert names(Pipeline(ws, [make_step("after", [tagged.as_input()])])) == ["before", "after"]


def wrong_steps(files: Any, table: Any, data: PipelineData) -> list[tuple[dict[str, Any], list[str]]]:
    named = files.as_named_input("named")
    return [
        ({"parallel_run_config": {}}, ["parallel_run_config is a ParallelRunConfig", "dict"]),
        ({"inputs": []}, ["inputs is empty"]),
        ({"inputs": named}, ["inputs is a list", "put it into [ ]"]),
        ({"inputs": "data"}, ["inputs is a list", "str"]),
        ({"inputs": [3]}, ["inputs[0]", "DatasetConsumptionConfig", "int"]),
        (
            {"inputs": [PipelineParameter("p", files)]},
            ["inputs[0]", "write DatasetConsumptionConfig('name', parameter)"],
        ),
        ({"inputs": [files, table]}, ["of one type", "of files", "tabular", "make a step of each"]),
        ({"inputs": [named, files.as_named_input("named")]}, ["two are named 'named'"]),
        ({"output": "out"}, ["output is a PipelineData", "str"]),
        ({"output": [data]}, ["output is a PipelineData", "list"]),
        ({"allow_reuse": "yes"}, ["allow_reuse is True or False"]),
        ({"tags": "night"}, ["tags: got 'night'", "expected a dict"]),
        ({"properties": [1]}, ["properties: got [1]; expected a dict", "[1]"]),
        ({"side_inputs": named}, ["side_inputs is a list"]),
        ({"side_inputs": ["labels"]}, ["side_inputs[0]", "str"]),
        ({"arguments": "--a b"}, ["arguments is a list"]),
        ({"arguments": [None]}, ["arguments[0]", "NoneType"]),
        ({"arguments": ["--out", data]}, ["arguments[1]", "PipelineData(name='earlier')", "side_inputs"]),
        ({"inputs": [named], "arguments": ["--in", named]}, ["arguments[1] is an input", "side_inputs too"]),
        ({"arguments": ["--out", table]}, ["arguments[1]", "TabularDataset", "side_inputs"]),
        (
            {"inputs": [named], "side_inputs": [table.as_named_input("named")]},
            ["inputs and side_inputs", "'named'", "as_named_input"],
        ),
        (
            {"arguments": [PipelineParameter("d", files)]},
            ["arguments[0]", "'d' stands for a FileDataset", "side input"],
        ),
        ({"arguments": ["--output", "x"]}, ["--output is a reserved name", "mini_batch_size"]),
        ({"arguments": ["--mini_batch_size=3"]}, ["--mini_batch_size is a reserved name"]),
        ({"arguments": ["--input_fds_0", "x"]}, ["--input_fds_0 is a reserved name"]),
        ({"arguments": ["--progress_update_timeout", "soon"]}, ["--progress_update_timeout", "'soon'"]),
        ({"models": "mnist"}, ["models is a list"]),
        ({"models": [3]}, ["models has Models", "int"]),
        ({"parallel_run_config": make_config(mini_batch_size="10MB")}, ["mini_batch_size", "FileDataset", "10MB"]),
        (
            {"parallel_run_config": make_config(mini_batch_size=PipelineParameter("s", "10MB"))},
            ["mini_batch_size", "FileDataset"],
        ),
    ]


def test_a_wrong_step_is_refused_with_what_was_expected(files: Any, table: Any) -> None:
    for changes, said in wrong_steps(files, table, PipelineData("earlier")):
        given = {"name": "abc", "parallel_run_config": make_config(), "inputs": [files], **changes}
        message = said_by(lambda given=given: ParallelRunStep(**given))
        assert [words for words in said if words not in message] == [], message


@pytest.mark.parametrize(
    "name",
    [
        "client_sdk_version",
        "scoring_module_name",
        "mini_batch_size",
        "error_threshold",
        "output_action",
        "logging_level",
        "run_invocation_timeout",
        "run_max_try",
        "create_snapshot_at_runtime",
        "append_row_file_name",
        "output",
        "process_count_per_node",
        "partition_keys",
        "allowed_failed_count",
        "allowed_failed_percent",
    ],
)
def test_what_the_service_passes_is_reserved(files: Any, name: str) -> None:
    assert f"--{name} is a reserved name" in said_by(lambda: make_step("abc", [files], arguments=[f"--{name}", 1]))


def test_arguments_that_only_look_like_reserved_ones_are_taken(files: Any) -> None:
    arguments = ["--output_dir", "x", "--outputs=1", "output", "-o", "--input_fds", 3, 0.5, True, Path("x")]
    assert make_step("abc", [files], arguments=arguments).arguments == arguments


def test_side_inputs_and_the_output_are_arguments(ws: Workspace, files: Any) -> None:
    labels = DatasetConsumptionConfig("labels", PipelineParameter("labels_param", files)).as_mount()
    data, output = PipelineData("earlier"), PipelineData("result")
    path = ws.get_default_datastore().path("words.txt", data_reference_name="words")
    step = make_step(
        "abc",
        [files],
        output=output,
        side_inputs=[labels, data, path],
        arguments=["--labels", labels, "--data", data, "--words", path, "--out", output, PipelineParameter("k", 3)],
    )
    assert [value.name for value in step.side_inputs] == ["labels", "earlier", "words"]
    assert step.upstream() == {data}
    assert sorted(parameter.name for parameter in step.parameters()) == ["k", "labels_param"]


def test_a_place_on_a_datastore_without_a_name_gets_one_that_stays(ws: Workspace, files: Any) -> None:
    store = ws.get_default_datastore()
    names = [make_step("abc", [files], side_inputs=[store.path(p)]).side_inputs[0].name for p in ("a", "a", "b")]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("workspaceblobstore_")


def test_run_after_takes_another_step(files: Any) -> None:
    first, second = make_step("first", [files]), make_step("second", [files])
    second.run_after(first)
    second.run_after(first)
    assert second.earlier == [first]
    assert "takes another step" in said_by(lambda: second.run_after(second))
    assert "takes another step" in said_by(lambda: second.run_after("first"))  # type: ignore[arg-type]


# The source directory


def test_the_script_is_relative_to_the_source_directory(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(tmp_path)
    (source / "deep").mkdir()
    (source / "deep" / "inner.py").write_text("")
    monkeypatch.chdir(tmp_path)

    def found(default: str | None = None, **changes: Any) -> tuple[Path, str]:
        step = make_step("abc", [files], output=None, parallel_run_config=make_config(**changes))
        source = step.source(default)
        return source.folder, str(source.script)

    assert found(source_directory="source") == (source, "score.py")
    assert found(source_directory=str(source), entry_script="deep/inner.py") == (source, "deep/inner.py")
    assert found(source_directory="source", entry_script=str(source / "score.py")) == (source, "score.py")
    assert found(entry_script="source/score.py") == (source, "score.py")
    assert found(entry_script="source/deep/inner.py") == (source / "deep", "inner.py")
    assert found("source") == (source, "score.py")
    monkeypatch.chdir(source)
    assert found(source_directory=".") == (source, "score.py")
    assert found() == (source, "score.py")
    os.symlink(source, tmp_path / "link")
    assert found(source_directory=str(tmp_path / "link"), entry_script=str(source / "score.py"))[1] == "score.py"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source_directory": "nowhere"}, ["source_directory", "there is no folder", "nowhere"]),
        ({"source_directory": "source", "entry_script": "scor.py"}, ["there is no file", "did you mean score.py?"]),
        ({"source_directory": "source", "entry_script": "zzz.py"}, ["there is no file", "write it, or correct"]),
        ({"source_directory": "source", "entry_script": "../other.py"}, ["is not in the source_directory"]),
        ({"source_directory": "source", "entry_script": "deep"}, ["there is no file"]),
    ],
)
def test_code_that_is_not_there_is_named(
    tmp_path: Path, files: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: list[str]
) -> None:
    (make_source(tmp_path) / "deep").mkdir()
    (tmp_path / "other.py").write_text("")
    monkeypatch.chdir(tmp_path)
    message = said_by(make_step("abc", [files], output=None, parallel_run_config=make_config(**changes)).source)
    assert [words for words in ("step 'abc'", *said) if words not in message] == []


# Pipeline


def names(pipeline: Pipeline) -> list[str]:
    return [step.name for step in pipeline.steps_in_order()]


def test_steps_come_after_those_whose_outputs_they_read(ws: Workspace, files: Any) -> None:
    a, b, c = PipelineData("a"), PipelineData("b"), PipelineData("c")
    first = make_step("first", [files], output=a)
    second = make_step("second", [a.as_dataset()], output=b)
    third = make_step("third", [files], output=c, side_inputs=[b.as_mount()])
    last = make_step("last", [c.as_dataset().parse_delimited_files()], output=None)
    for steps in itertools.permutations([first, second, third, last]):
        assert names(Pipeline(ws, list(steps))) == ["first", "second", "third", "last"]
    pipeline = Pipeline(ws, [last, third, second, first])
    assert pipeline.needs(third) == [second]
    assert pipeline.needs(first) == []


def test_steps_that_need_nothing_of_each_other_keep_their_order(ws: Workspace, files: Any) -> None:
    steps = [make_step(f"step-{number}", [files], output=None) for number in range(20)]
    random.Random(1).shuffle(steps)
    assert Pipeline(ws, steps).steps_in_order() == steps


def test_lists_in_lists_and_a_step_that_is_named_twice(ws: Workspace, files: Any) -> None:
    a, b, c = (make_step(name, [files]) for name in ("aaa", "bbb", "ccc"))
    assert names(Pipeline(ws, [[a, [b]], (c, a)])) == ["aaa", "bbb", "ccc"]


def test_steps_that_others_read_from_are_brought_in(ws: Workspace, files: Any) -> None:
    a, b = PipelineData("a"), PipelineData("b")
    first = make_step("first", [files], output=a)
    make_step("second", [a.as_dataset()], output=b)
    last = make_step("last", [b.as_dataset()], output=None)
    last.run_after(make_step("before", [files]))
    pipeline = Pipeline(ws, [last])
    assert sorted(names(pipeline)) == ["before", "first", "last", "second"]
    assert names(pipeline)[-1] == "last"
    assert first in pipeline.steps_in_order()
    with pytest.raises(PipelineError, match="reads the output 'b', which no step of the pipeline writes"):
        Pipeline(ws, [last], resolve_closure=False)


def test_the_step_that_the_pipeline_lists_writes_the_output_even_if_another_was_made_later(
    ws: Workspace, files: Any
) -> None:
    data = PipelineData("a")
    listed = make_step("first", [files], output=data)
    make_step("first", [files], output=data)  # as when a notebook's cell is run again
    assert Pipeline(ws, [listed, make_step("last", [data.as_dataset()])]).steps_in_order()[0] is listed


def test_run_after_and_step_sequences_order_steps(ws: Workspace, files: Any) -> None:
    a, b, c = (make_step(name, [files]) for name in ("aaa", "bbb", "ccc"))
    a.run_after(b)
    assert names(Pipeline(ws, [a, b, c])) == ["bbb", "aaa", "ccc"]
    a, b, c = (make_step(name, [files]) for name in ("aaa", "bbb", "ccc"))
    pipeline = Pipeline(ws, StepSequence([c, [b, a]]))  # type: ignore[arg-type]
    assert names(pipeline) == ["ccc", "bbb", "aaa"]
    assert pipeline.needs(a) == [c]


def test_a_circle_is_named(ws: Workspace, files: Any) -> None:
    a, b = PipelineData("a"), PipelineData("b")
    first = make_step("first", [files], output=a, side_inputs=[b])
    second = make_step("second", [a.as_dataset()], output=b)
    other = make_step("other", [a.as_dataset()])
    message = said_by(lambda: Pipeline(ws, [other, first, second]))
    assert message.endswith("first → second → first") or message.endswith("second → first → second")
    own = PipelineData("own")
    assert "selfish → selfish" in said_by(lambda: Pipeline(ws, [make_step("selfish", [own.as_dataset()], output=own)]))


def test_what_is_no_pipeline(ws: Workspace, files: Any) -> None:
    step, data = make_step("first", [files]), PipelineData("x")
    both = [make_step("first", [files], output=data), make_step("second", [files], output=data)]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"steps": []}, "steps is empty"),
        ({"steps": step}, "put the step into [ ]"),
        ({"steps": "abc"}, "is a list of steps"),
        ({"steps": [step, "abc"]}, "made of ParallelRunSteps, but got str"),
        ({"steps": [step, make_step("first", [files])]}, "two steps are named 'first'"),
        ({"steps": both}, "'first' and 'second' have the same output 'x'"),
        ({"steps": [make_step("abc", [PipelineData("y").as_dataset()])]}, "reads the output 'y', which no step"),
        ({"workspace": "ws"}, "workspace is a Workspace, but got str"),
        ({"default_datastore": "blob"}, "default_datastore is a Datastore"),
        ({"nonsense": 1}, "no parameter 'nonsense'"),
    ]
    for changes, said in wrong:
        given = {"workspace": ws, "steps": [step], **changes}
        assert said in said_by(lambda given=given: Pipeline(**given))
    assert Pipeline(ws, [step], _workflow_provider=None).steps == [step]


# Values


def test_values_are_the_defaults_and_what_is_given(ws: Workspace, files: Any) -> None:
    size = PipelineParameter("size", "5")
    step = make_step(
        "abc",
        [files],
        parallel_run_config=make_config(mini_batch_size=size, node_count=PipelineParameter("nodes", 2)),
        arguments=["--size", size, "--rate", PipelineParameter("rate", 0.5)],
    )
    pipeline = Pipeline(ws, [step])
    assert set(pipeline.parameters()) == {"size", "nodes", "rate"}
    assert pipeline.values() == {"size": "5", "nodes": 2, "rate": 0.5}
    assert pipeline.values({"size": 1, "nodes": "3"}) == {"size": "1", "nodes": 3, "rate": 0.5}


def test_a_value_for_a_parameter_that_no_step_uses_is_refused_with_the_near_ones(ws: Workspace, files: Any) -> None:
    config = make_config(mini_batch_size=PipelineParameter("batch_size_param", "5"))
    pipeline = Pipeline(ws, [make_step("abc", [files], parallel_run_config=config)])
    message = said_by(lambda: pipeline.values({"batch_size": "1"}))
    assert "no step uses a PipelineParameter 'batch_size'; did you mean 'batch_size_param'?" in message
    assert "takes a text" in said_by(lambda: pipeline.values({"batch_size_param": [1]}))
    assert "is a dict" in said_by(lambda: pipeline.values([1]))  # type: ignore[arg-type]


def test_two_parameters_of_one_name_have_one_default(ws: Workspace, files: Any) -> None:
    def step(name: str, default: Any) -> ParallelRunStep:
        return make_step(name, [files], arguments=[PipelineParameter("rate", default)])

    assert Pipeline(ws, [step("aaa", 1), step("bbb", 1)]).values() == {"rate": 1}
    message = said_by(lambda: Pipeline(ws, [step("aaa", 1), step("bbb", 2)]))
    assert "two PipelineParameters are named 'rate', with the defaults 1 and 2" in message
    assert "two PipelineParameters" in said_by(lambda: Pipeline(ws, [step("aaa", 1), step("bbb", "1")]))


# validate, publish


def test_a_pipeline_that_may_be_submitted_has_no_problems(ws: Workspace, files: Any, tmp_path: Path) -> None:
    config = make_config(source_directory=str(make_source(tmp_path)))
    assert Pipeline(ws, [make_step("abc", [files], parallel_run_config=config)]).validate() == []


def test_validate_tells_all_that_is_wrong(ws: Workspace, files: Any, tmp_path: Path) -> None:
    source = str(make_source(tmp_path))
    steps = [
        make_step("abc", [files], parallel_run_config=make_config(source_directory=source, compute_target="cpuclustr")),
        make_step("def", [files], parallel_run_config=make_config(source_directory=source, node_count=5)),
        make_step("ghi", [files], parallel_run_config=make_config(source_directory=source + "s"), models=["mnist"]),
    ]
    problems = Pipeline(ws, steps).validate()
    expected = [
        ["compute target 'cpuclustr'", "'cpucluster'"],
        ["step 'def'", "node_count: got 5", "'cpucluster' has at most 4", "max_nodes"],
        ["step 'ghi'", "there is no folder"],
        ["no model 'mnist'"],
    ]
    assert len(problems) == len(expected), problems
    for problem, said in zip(problems, expected, strict=True):
        assert [words for words in said if words not in problem] == [], problem


def test_submit_is_the_experiments(ws: Workspace, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Experiment:
        def __init__(self, workspace: Workspace, name: str) -> None:
            self.given = (workspace, name)

        def submit(self, pipeline: Pipeline, **kwargs: Any) -> Any:
            return (*self.given, pipeline, kwargs)

    module = types.ModuleType("mpi_prs.azureml.experiment")
    module.Experiment = Experiment  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mpi_prs.azureml.experiment", module)
    pipeline = Pipeline(ws, [make_step("abc", [files])])
    assert pipeline.submit("digits", {"a": 1}, regenerate_outputs=True, parent_run_id="x", tags={"t": "1"}) == (
        ws,
        "digits",
        pipeline,
        {
            "pipeline_parameters": {"a": 1},
            "continue_on_step_failure": False,
            "regenerate_outputs": True,
            "tags": {"t": "1"},
        },
    )


def test_publishing_is_refused_with_what_to_do(ws: Workspace, files: Any) -> None:
    pipeline = Pipeline(ws, [make_step("abc", [files])])
    assert "pipeline_parameters" in said_by(lambda: pipeline.publish("name"))
    with pytest.raises(AttributeError, match="Pipeline has no 'load_yaml'"):
        Pipeline.load_yaml  # type: ignore[attr-defined]  # noqa: B018
    assert issubclass(PipelineError, MpiPrsError)
