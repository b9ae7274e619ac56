"""Steps compiled into job configs, each written as YAML and read by the job's own loader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datasets.outputs import OutputFileDatasetConfig
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.definition.pipeline import Pipeline
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.submit.compiling import define_step
from mpi_prs.azureml.submit.step_paths import StepPaths
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.script_context import ScriptContext
from mpi_prs.core.errors import PipelineError, WorkspaceError
from mpi_prs.core.yaml import Document
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.job.config.model import JobConfig, load_config
from mpi_prs.job.config.model import make_config as make_job_config
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path)


Compiled = Callable[..., JobConfig]


@pytest.fixture
def compiled(ws: Workspace, tmp_path: Path, source: Path) -> Compiled:
    """Compile a step, write the job config, and load it as a job does."""

    def compile_(step: ParallelRunStep, parameters: dict[str, Any] | None = None, **place: Any) -> JobConfig:
        values = Pipeline(ws, [step]).values(parameters)
        made = {
            "run_id": "run-1",
            "experiment": "digits",
            "workspace": ws,
            "output": tmp_path / "output",
            "source_directory": source,
            "script": "score.py",
            **place,
        }
        path = tmp_path / "job.yaml"
        config = make_job_config(define_step(step, values, ws).job(StepPaths(**made)), path, Document({}, {}))
        path.write_text(config.as_yaml(), encoding="utf-8")
        assert load_config(path) == config
        return config

    return compile_


def test_the_step_of_the_german_seed(
    ws: Workspace, files: Any, compiled: Compiled, source: Path, tmp_path: Path
) -> None:
    (source / "digit_identification.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    parameter = PipelineParameter(name="mnist_param", default_value=files)
    step = ParallelRunStep(
        name="predict-digits-mnist",
        parallel_run_config=make_config(
            source_directory=str(source),
            entry_script="digit_identification.py",
            mini_batch_size=PipelineParameter(name="batch_size_param", default_value="5"),
            append_row_file_name="mnist_outputs.txt",
            process_count_per_node=PipelineParameter(name="process_count_param", default_value=2),
        ),
        inputs=[DatasetConsumptionConfig("minist_param_config", parameter).as_mount()],
        output=PipelineData(name="inferences", datastore=ws.get_default_datastore()),
        allow_reuse=True,
    )
    job = compiled(step, script=None)
    assert job.name == "predict-digits-mnist"
    assert (job.source_directory, job.entry_script) == (source, source / "digit_identification.py")
    assert (job.batch_size(), job.process_count_per_node, job.node_count) == (5, 2, 2)
    assert (job.output, job.append_row_file_name) == (tmp_path / "output", "mnist_outputs.txt")
    assert (job.error_threshold, job.output_action, job.azureml) == (10, "append_row", "always")
    assert (job.run_invocation_timeout, job.run_max_try, job.logging_level) == (60, 3, "INFO")
    assert job.inputs[0].mode == "mount"
    assert sorted(Path(path).name for path in job.datasets()[0].files()) == ["0.txt", "1.txt", "2.txt"]

    single = Dataset.File.from_files(path=str(tmp_path / "data" / "0.txt"), validate=False)
    given = {"mnist_param": single, "batch_size_param": "1", "process_count_param": 1}
    job = compiled(step, given, script=None)
    assert (job.batch_size(), job.process_count_per_node) == (1, 1)
    assert [Path(path).name for path in job.datasets()[0].files()] == ["0.txt"]


def test_the_services_arguments_come_first_as_existing_scripts_expect(
    files: Any, compiled: Compiled, tmp_path: Path
) -> None:
    config = make_config(process_count_per_node=2, allowed_failed_count=3, allowed_failed_percent=5)
    arguments = ["--threshold", 0.5, "--name", "a b", "--flag", True, "--rate", PipelineParameter("rate", 3)]
    job = compiled(make_step("abc", [files], parallel_run_config=config, arguments=arguments), {"rate": "4"})
    words = list(job.arguments)
    mine = ["--threshold", "0.5", "--name", "a b", "--flag", "True", "--rate", "4"]
    assert words[-len(mine) :] == mine
    service = words[: -len(mine)]
    named = dict(zip(service[::2], service[1::2], strict=True))
    assert named.pop("--client_sdk_version")
    assert named == {
        "--scoring_module_name": "score.py",
        "--mini_batch_size": "10",
        "--error_threshold": "10",
        "--output_action": "append_row",
        "--logging_level": "INFO",
        "--run_invocation_timeout": "60",
        "--run_max_try": "3",
        "--create_snapshot_at_runtime": "True",
        "--allowed_failed_count": "3",
        "--allowed_failed_percent": "5.0",
        "--append_row_file_name": "parallel_run_step.txt",
        "--output": str(tmp_path / "output"),
        "--process_count_per_node": "2",
    }
    assert (job.allowed_failed_count, job.allowed_failed_percent) == (3, 5.0)


def test_partition_keys_take_the_place_of_a_size(compiled: Compiled) -> None:
    config = make_config(partition_keys=PipelineParameter("keys", '["store"]'))
    table = Dataset.Tabular.from_delimited_files(
        path="/nowhere/**/x.csv", partition_format="{store}/{brand}/x.csv", validate=False
    )
    job = compiled(make_step("abc", [table], parallel_run_config=config), {"keys": '["store", "brand"]'})
    assert (job.partition_keys, job.batch_size()) == (("store", "brand"), None)
    assert "--mini_batch_size" not in job.arguments
    assert json.loads(job.arguments[job.arguments.index("--partition_keys") + 1]) == ["store", "brand"]


def test_sizes_of_files_and_of_tables(files: Any, table: Any, compiled: Compiled) -> None:
    def size(inputs: Any, value: Any) -> Any:
        return compiled(make_step("abc", inputs, parallel_run_config=make_config(mini_batch_size=value))).batch_size()

    assert (size([files], None), size([files], "5"), size([files], 7)) == (10, 5, 7)
    assert (size([table], None), size([table], "10mb")) == (BatchSize(bytes=2**20), BatchSize(bytes=10 * 2**20))
    assert (size([table], "1024"), size([table], "50rows")) == (BatchSize(bytes=1024), BatchSize(rows=50))
    step = make_step("abc", [files], parallel_run_config=make_config(mini_batch_size=PipelineParameter("size", "5")))
    with pytest.raises(PipelineError, match=r"step 'abc': mini_batch_size: got '10MB'; .* is a FileDataset"):
        compiled(step, {"size": "10MB"})
    with pytest.raises(PipelineError, match=r"step 'abc': .*mini_batch_size: got 'ten'"):
        compiled(step, {"size": "ten"})


def test_files_are_mounted_or_downloaded_and_direct_means_paths_all_the_same(files: Any, compiled: Compiled) -> None:
    named = files.as_named_input("images")
    inputs = [named, named.as_mount(), named.as_download(), named.as_direct()]
    modes = [compiled(make_step("abc", [value])).inputs[0].mode for value in inputs]
    assert modes == ["mount", "mount", "download", "mount"]


def test_several_inputs_of_tables(table: Any, tmp_path: Path, compiled: Compiled) -> None:
    other = tmp_path / "other.csv"
    other.write_text("store;price\nc;3\n")
    second = Dataset.Tabular.from_delimited_files(path=str(other), separator=";", validate=False)
    job = compiled(make_step("abc", [table.as_named_input("a"), second.as_named_input("b")]))
    assert [section.table_format() for section in job.inputs] == ["delimited", "delimited"]
    assert job.inputs[1].separator == ";"
    assert [Path(path).name for dataset in job.datasets() for path in dataset.files()] == ["table.csv", "other.csv"]


def test_side_inputs_become_paths_in_the_arguments(
    ws: Workspace, files: Any, table: Any, compiled: Compiled, tmp_path: Path
) -> None:
    labels = DatasetConsumptionConfig("labels", PipelineParameter("labels_param", files)).as_download()
    direct = files.as_named_input("direct")
    passed = files.as_named_input("passed")
    words = ws.get_default_datastore().path("words.txt", "words")
    output = PipelineData("result")
    step = make_step(
        "abc",
        [files],
        output=output,
        side_inputs=[labels, direct, passed, words, table.as_named_input("prices")],
        arguments=["--labels", labels, "--words", words, "--passed", passed, "--out", output],
    )
    other = tmp_path / "other"
    other.mkdir()
    job = compiled(step, {"labels_param": Dataset.File.from_files(path=str(other), validate=False)})
    assert job.arguments[-8:] == (
        *("--labels", "${side_inputs.labels}", "--words", "${side_inputs.words}"),
        *("--passed", "${side_inputs.passed}", "--out", str(tmp_path / "output")),
    )
    store = ws.get_default_datastore().folder
    assert store is not None
    assert {name: (side.path, side.mode) for name, side in job.side_inputs.items()} == {
        "labels": (str(other), "download"),
        "words": (str(store / "words.txt"), "mount"),
        "passed": (str(tmp_path / "data"), "mount"),
    }
    variables = job.environment_variables
    assert variables["AZUREML_DATAREFERENCE_labels"] == "${side_inputs.labels}"
    assert variables["AZUREML_DATAREFERENCE_result"] == str(tmp_path / "output")
    context = ScriptContext.of(variables)
    assert context is not None
    told = context.named_inputs
    assert set(told) == {"input_0", "labels", "direct", "passed", "words", "prices"}
    assert told["labels"]["variable"] == "AZUREML_DATAREFERENCE_labels"
    assert (told["direct"]["mode"], told["direct"]["variable"]) == ("direct", None)
    assert told["words"]["definition"] is None
    assert told["prices"]["definition"]


def test_a_side_input_is_one_file_or_one_folder(files: Any, tmp_path: Path, compiled: Compiled) -> None:
    def path_of(path: Any) -> str:
        dataset = Dataset.File.from_files(path=path, validate=False).as_named_input("side").as_mount()
        return compiled(make_step("abc", [files], side_inputs=[dataset])).side_inputs["side"].path

    data = tmp_path / "data"
    assert path_of(str(data)) == str(data)
    assert path_of(f"{data}/**") == str(data)
    assert path_of(str(data / "1.txt")) == str(data / "1.txt")
    for several in (f"{data}/*.txt", [str(data / "0.txt"), str(data / "1.txt")]):
        with pytest.raises(PipelineError, match="side input 'side': a side input is one file or one folder"):
            path_of(several)


def test_a_dollar_in_a_path_is_a_dollar(
    compiled: Compiled, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    data, earlier = PipelineData("earlier"), tmp_path / "$HOME" / "earlier"
    make_step("make", [make_files(tmp_path)], output=data)
    step = make_step(
        "take",
        [Dataset.File.from_files(str(tmp_path / "${x} $HOME" / "*.txt"), validate=False), data],
        side_inputs=[Dataset.File.from_files(f"{tmp_path}/$HOME/model", validate=False).as_named_input("m").as_mount()],
        arguments=["$HOME", "${x}", "$$"],
    )
    code = tmp_path / "$code"
    source.rename(code)
    config = compiled(
        step, source_directory=code, output=tmp_path / "$out", upstream={data: str(earlier)}, interpreter=sys.executable
    )
    assert [section.files for section in config.inputs] == [(f"{tmp_path}/${{x}} $HOME/*.txt",), (str(earlier),)]
    assert config.side_inputs["m"].path == f"{tmp_path}/$HOME/model"
    assert (config.source_directory, config.output) == (code, tmp_path / "$out")
    assert config.arguments[-3:] == ("$HOME", "${x}", "$$")


def test_an_earlier_output_is_an_input_a_side_input_and_a_table(compiled: Compiled, tmp_path: Path) -> None:
    data = PipelineData("between")
    make_step("first", [make_files(tmp_path)], output=data)
    upstream = {data: str(tmp_path / "between")}
    (tmp_path / "between" / "_run").mkdir(parents=True)
    (tmp_path / "between" / "_run" / "run.json").write_text("{}")
    (tmp_path / "between" / "a.txt").write_text("a 1\n")

    job = compiled(
        make_step("abc", [data.as_dataset().as_download()], side_inputs=[data.as_mount("side")]), upstream=upstream
    )
    assert job.inputs[0].mode == "download"
    assert [Path(path).name for path in job.datasets()[0].files()] == ["a.txt"]
    assert job.side_inputs["side"].path == upstream[data]

    rows = data.as_dataset().parse_delimited_files(separator=" ", header=False, file_extension=".txt")
    job = compiled(make_step("abc", [rows]), upstream=upstream)
    assert (job.inputs[0].separator, job.inputs[0].header) == (" ", "no_header")
    assert [Path(path).name for path in job.datasets()[0].files()] == ["a.txt"]

    with pytest.raises(PipelineError, match="not known where the output 'between' lies"):
        compiled(make_step("abc", [data.as_dataset()]))


def test_an_earlier_output_in_a_store_brings_its_own_credentials(
    files: Any, compiled: Compiled, tmp_path: Path
) -> None:
    data = PipelineData("between")
    make_step("first", [files], output=data)
    (tmp_path / "key").write_text("a2V5")
    storage = {"account_name": "other", "account_key_file": str(tmp_path / "key")}
    job = compiled(
        make_step("abc", [data.as_dataset()], side_inputs=[data.as_mount("side")]),
        upstream={data: "abfs://container/azureml/run/between"},
        upstream_storage={data: storage},
        output_url="abfs://results/azureml/run/out",
        output_storage={"account_name": "ours"},
    )
    assert job.inputs[0].files == ("abfs://container/azureml/run/between",)
    assert job.inputs[0].storage is not None
    assert job.inputs[0].storage.account_name == "other"
    side = job.side_inputs["side"].storage
    assert side is not None
    assert side.account_name == "other"
    assert (job.output_url, job.storage.account_name) == ("abfs://results/azureml/run/out", "ours")


def test_data_of_elsewhere_is_not_read_with_the_credentials_of_the_output(compiled: Compiled) -> None:
    images = Dataset.File.from_files(path="abfs://public@elsewhere.dfs.core.windows.net/images", validate=False)
    side = images.as_named_input("side").as_mount()
    ours = {"output_url": "abfs://results/run", "output_storage": {"account_name": "ours"}}
    job = compiled(make_step("abc", [images], side_inputs=[side]), **ours)
    for section in (job.inputs[0], job.side_inputs["side"]):
        assert section.storage is not None
        assert section.storage.account_name is None
    assert compiled(make_step("abc", [images])).inputs[0].storage is None


def test_the_output_of_another_kind_of_output(compiled: Compiled, files: Any, tmp_path: Path) -> None:
    output = OutputFileDatasetConfig("between")
    make_step("first", [files], output=output)
    folder = tmp_path / "between"
    folder.mkdir()
    (folder / "a.csv").write_text("x;y\n1;2\n")
    rows = output.read_delimited_files(separator=";", path_glob="*.csv").keep_columns("x").as_input("rows")
    step = make_step("abc", [rows], side_inputs=[output.as_input("side")])
    job = compiled(step, upstream={output.as_upload(): str(folder)})
    assert (job.inputs[0].separator, job.inputs[0].columns) == (";", ("x",))
    assert job.side_inputs["side"].path == str(folder)


def test_a_dataset_in_a_blob_datastore(ws: Workspace, compiled: Compiled) -> None:
    store = Datastore.register_azure_blob_container(
        ws,
        datastore_name="mnist_datastore",
        container_name="sampledata",
        account_name="pipelinedata",
        overwrite=True,
        skip_validation=True,
    )
    images = Dataset.File.from_files(path=store.path("mnist/"), validate=False)
    side = images.as_named_input("side").as_mount()
    job = compiled(make_step("abc", [images.as_named_input("images")], side_inputs=[side, store.path("labels", "l")]))
    for storage in (job.inputs[0].storage, job.side_inputs["side"].storage, job.side_inputs["l"].storage):
        assert storage is not None
        assert storage.account_name == "pipelinedata"
    assert job.inputs[0].files[0].startswith("abfs://sampledata/mnist")
    assert job.side_inputs["l"].path == "abfs://sampledata/labels"


def test_what_a_user_process_is_told(ws: Workspace, files: Any, compiled: Compiled, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("w")
    Model.register(model_path=str(tmp_path / "weights"), model_name="mnist", workspace=ws)
    Model.register(model_path=str(tmp_path / "weights"), model_name="mnist", workspace=ws)
    config = make_config(environment_variables={"LEVEL": 3, "BOTH": "config", "MPI_PRS_RUN_ID": "mine"})
    job = compiled(
        make_step("abc", [files.as_named_input("images")], parallel_run_config=config, models=["mnist"]),
        environment_variables={"BOTH": "environment", "MPI_PRS_TENSORFLOW1": "1"},
        interpreter=sys.executable,
    )
    variables = job.environment_variables
    assert variables["LEVEL"] == "3"
    assert (variables["BOTH"], variables["MPI_PRS_TENSORFLOW1"]) == ("config", "1")
    assert (variables["AZUREML_RUN_ID"], variables["AZUREML_ARM_WORKSPACE_NAME"]) == ("run-1", "ws")
    context = ScriptContext.of(variables)
    assert context is not None
    assert (context.workspace, context.experiment, context.run_id) == (str(ws.folder), "digits", "run-1")
    assert context.models == {"mnist": "2/content/weights"}
    assert set(context.named_inputs) == {"images"}
    assert str(job.environment) == sys.executable


def test_a_very_long_definition_does_not_burst_the_environment(compiled: Compiled) -> None:
    paths = [f"/nowhere/{'x' * 50}/{number}.txt" for number in range(3000)]
    many = Dataset.File.from_files(path=paths, validate=False)
    job = compiled(make_step("abc", [many.as_named_input("many")]))
    context = ScriptContext.of(job.environment_variables)
    assert context is not None
    assert context.named_inputs["many"]["definition"] is None
    assert len(job.inputs[0].files) == 3000


def test_without_slurm_nothing_is_asked_of_it(files: Any, compiled: Compiled, ws: Workspace) -> None:
    ws.update_settings(slurm={"account": "project"}, vm_sizes={"OTHER": {"partition": "p"}})
    assert compiled(make_step("abc", [files])).slurm.model_fields_set == set()


def test_the_compute_target_names_partition_cores_and_gpus(files: Any, compiled: Compiled, ws: Workspace) -> None:
    ws.update_settings(
        backend="slurm",
        slurm={"account": "project", "setup": ["module load mpi"]},
        vm_sizes={"standard_d2_v2": {"partition": "gpu", "cpus": 8, "gpus": 2, "setup": ["module load cuda"]}},
    )
    config = make_config(process_count_per_node=2, compute_target=ws.compute_targets["cpucluster"])
    slurm = compiled(make_step("abc", [files], parallel_run_config=config)).slurm
    assert (slurm.partition, slurm.account, slurm.cpus_per_process, slurm.gpus_per_process) == ("gpu", "project", 4, 1)
    assert slurm.setup == ("module load mpi", "module load cuda")


def test_what_the_workspace_does_not_have_is_named(files: Any, compiled: Compiled, ws: Workspace) -> None:
    def step(**changes: Any) -> ParallelRunStep:
        return make_step("abc", [files], parallel_run_config=make_config(**changes))

    with pytest.raises(WorkspaceError, match="no compute target 'cpuclustre'; did you mean 'cpucluster'"):
        compiled(step(compute_target="cpuclustre"))
    with pytest.raises(PipelineError, match="node_count: got 9, but the compute target 'cpucluster' has at most 4"):
        compiled(step(node_count=PipelineParameter("nodes", 1)), {"nodes": 9})
    target = ws.compute_targets["cpucluster"]
    ws.compute_targets["cpucluster"].update(max_nodes=9)
    assert compiled(step(node_count=9, compute_target=target)).node_count == 9
    with pytest.raises(WorkspaceError, match="no model 'mnist'"):
        compiled(make_step("abc", [files], models=["mnist"]))


def test_a_parameter_without_a_value_is_named(files: Any, ws: Workspace, tmp_path: Path, source: Path) -> None:
    place = StepPaths("r", "e", ws, tmp_path / "out", source, script="score.py")
    consumption = DatasetConsumptionConfig("images", PipelineParameter("data", files))
    config = make_config(run_max_try=PipelineParameter("tries", 1))
    for step, name in (
        (make_step("abc", [files], parallel_run_config=config), "tries"),
        (make_step("abc", [consumption]), "data"),
        (make_step("abc", [files], arguments=[PipelineParameter("rate", 1)]), "rate"),
    ):
        with pytest.raises(PipelineError, match=f"no value for the PipelineParameter '{name}'"):
            define_step(step, {}, ws).job(place)


def test_the_services_timeouts_among_the_arguments_are_heeded(files: Any, compiled: Compiled) -> None:
    arguments = ["--progress_update_timeout", 600, "--task_overhead_timeout=120", "--mine", "x"]
    job = compiled(make_step("abc", [files], arguments=arguments))
    assert (job.progress_update_timeout, job.task_overhead_timeout) == (600, 120)
    assert job.arguments[-5:] == ("--progress_update_timeout", "600", "--task_overhead_timeout=120", "--mine", "x")
    assert compiled(make_step("abc", [files])).progress_update_timeout is None


def test_summary_only_has_no_output_file(files: Any, compiled: Compiled) -> None:
    config = make_config(output_action="summary_only")
    job = compiled(make_step("abc", [files], parallel_run_config=config, output=None))
    assert job.output_action == "summary_only"
    assert "--append_row_file_name" not in job.arguments


def test_partition_keys_that_an_input_does_not_have_are_named(files: Any, compiled: Compiled, tmp_path: Path) -> None:
    config = make_config(partition_keys=["usr"])
    with pytest.raises(PipelineError, match=r"partition_keys: the input 'input_0' has no partition_format"):
        compiled(make_step("abc", [files], parallel_run_config=config))
    parted = Dataset.File.from_files(path=str(tmp_path), partition_format="{user}/{name}.txt", validate=False)
    with pytest.raises(PipelineError, match=r"the input 'wavs' has no partition key 'usr'; did you mean 'user'\?"):
        compiled(make_step("abc", [parted.as_named_input("wavs")], parallel_run_config=config))
    hive = Dataset.File.from_files(path=str(tmp_path), partition_format="hive", validate=False)
    assert compiled(make_step("abc", [hive], parallel_run_config=config)).partition_keys == ("usr",)


SCRIPT = """
import argparse
import os


def init():
    global args, mine
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--labels")
    parser.add_argument("--rate", type=float)
    args, mine = parser.parse_known_args()
    open(os.path.join(args.output, "extra.txt"), "w").close()


def run(mini_batch):
    with open(os.path.join(os.environ["AZUREML_DATAREFERENCE_labels"], "words.txt")) as file:
        words = file.read()
    same = args.labels == os.environ["AZUREML_DATAREFERENCE_labels"]
    return [f"{os.path.basename(path)} {words} {same} {args.rate} {'--mini_batch_size' in mine}" for path in mini_batch]
"""


def test_a_compiled_step_runs(files: Any, compiled: Compiled, source: Path, tmp_path: Path) -> None:
    (source / "score.py").write_text(SCRIPT)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "words.txt").write_text("zero")
    folder = Dataset.File.from_files(path=str(tmp_path / "labels"), validate=False)
    labels = folder.as_named_input("labels").as_download()
    arguments = ["--labels", labels, "--rate", PipelineParameter("rate", 0.5)]
    compiled(make_step("abc", [files], side_inputs=[labels], arguments=arguments), {"rate": "0.25"})
    command = [sys.executable, "-m", "mpi_prs", "run", str(tmp_path / "job.yaml"), "--local", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = sorted((tmp_path / "output" / "parallel_run_step.txt").read_text().splitlines())
    assert rows == [f"{number}.txt zero True 0.25 True" for number in range(3)]
    assert (tmp_path / "output" / "extra.txt").exists()


# parallel_run_step.settings.json


def write_settings(folder: Path, options: Any) -> None:
    text = json.dumps({"append_row": {"pandas.DataFrame.to_csv": options}})
    (folder / "parallel_run_step.settings.json").write_text(text)


def test_settings_beside_the_script_say_how_rows_are_written(files: Any, compiled: Compiled, source: Path) -> None:
    step = make_step("abc", [files])
    assert (compiled(step).to_csv.sep, compiled(step).to_csv.header) == (" ", False)
    write_settings(source, {"header": True, "sep": ","})
    job = compiled(step)
    assert (job.to_csv.sep, job.to_csv.header, job.to_csv.index) == (",", True, False)
    (source / "deep").mkdir()
    (source / "deep" / "score.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    assert compiled(step, script="deep/score.py").to_csv.sep == ","
    write_settings(source / "deep", {"sep": "\t", "index": True})
    job = compiled(step, script="deep/score.py")
    assert (job.to_csv.sep, job.to_csv.header, job.to_csv.index) == ("\t", False, True)
    summary = make_config(output_action="summary_only")
    assert compiled(make_step("abc", [files], parallel_run_config=summary)).to_csv.sep == " "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", ["line 1", "not JSON"]),
        ("[]", ["expected an object"]),
        ('{"append_rows": {}}', ["append_rows", "append_row: pandas.DataFrame.to_csv alone"]),
        ('{"append_row": {"pandas.to_csv": {}}}', ["append_row.pandas.to_csv"]),
        ('{"append_row": []}', ["append_row", "expected an object"]),
        ('{"append_row": {"pandas.DataFrame.to_csv": 3}}', ["expected an object"]),
        ('{"append_row": {"pandas.DataFrame.to_csv": {"seperator": ","}}}', ["seperator", "sep, header and index"]),
        ('{"append_row": {"pandas.DataFrame.to_csv": {"sep": "::"}}}', ["sep", "a single character"]),
        ('{"append_row": {"pandas.DataFrame.to_csv": {"header": "yes"}}}', ["header", "true or false"]),
    ],
)
def test_settings_that_mpi_prs_cannot_follow_are_refused(
    files: Any, compiled: Compiled, source: Path, text: str, said: list[str]
) -> None:
    (source / "parallel_run_step.settings.json").write_text(text)
    with pytest.raises(PipelineError) as caught:
        compiled(make_step("abc", [files]))
    assert [words for words in ("parallel_run_step.settings.json", *said) if words not in str(caught.value)] == []


def test_settings_without_options_change_nothing(files: Any, compiled: Compiled, source: Path) -> None:
    for text in ("{}", '{"append_row": {}}'):
        (source / "parallel_run_step.settings.json").write_text(text)
        assert compiled(make_step("abc", [files])).to_csv.sep == " "
