"""Azure ML's v2 YAML: what becomes of its keys, what is said of bad ones, and real jobs of its three usual shapes."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mpi_prs.azureml.compute.target import AmlCompute, ComputeTarget
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.v2.loading import LoadedStep, load
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.cli.job_file import is_v2
from mpi_prs.cli.main import command_line
from mpi_prs.core.errors import ConfigError, MpiPrsError, ScriptError
from mpi_prs.job.config.model import JobConfig
from tests.support.jobs import NAMES_SCRIPT, REPOSITORY, Job, Mpi, assert_every_row_once, need, wait_until

PIPELINE = """
    $schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
    type: pipeline
    display_name: digits by the dozen
    experiment_name: trials
    tags: {owner: us}
    settings:
      default_compute: azureml:cpu-cluster
    inputs:
      nodes: 3
      images:
        type: uri_folder
        path: ./images
    jobs:
      score:
        type: parallel
        compute: azureml:cpu-cluster
        inputs:
          images: ${{parent.inputs.images}}
          model:
            type: uri_folder
            path: ./model
            mode: download
          top: 5
        outputs:
          rows:
            type: uri_file
            path: azureml://datastores/${{default_datastore}}/paths/${{name}}/digits.csv
            mode: rw_mount
          plots:
        input_data: ${{inputs.images}}
        mini_batch_size: "5"
        resources:
          instance_count: ${{parent.inputs.nodes}}
        max_concurrency_per_instance: 2
        error_threshold: 10
        mini_batch_error_threshold: 4
        logging_level: "DEBUG"
        retry_settings:
          max_retries: 1
          timeout: 90
        environment_variables:
          "MODE": "quick"
        task:
          type: run_function
          code: ./src
          entry_script: score.py
          environment:
            image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04
          program_arguments: >-
            --model ${{inputs.model}}
            --top ${{ inputs.top }}
            --plots ${{outputs.plots}}
            --allowed_failed_percent 30
            --task_overhead_timeout 1200
            --progress_update_timeout=600
            --first_task_creation_timeout 600
            --resource_monitor_interval 20
            --verbose
          append_row_to: ${{outputs.rows}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``pipeline.yml`` with what it names."""
    for name in ("images", "model", "src"):
        (tmp_path / name).mkdir()
    for number in range(12):
        (tmp_path / "images" / f"{number:02d}.png").write_text(str(number))
    (tmp_path / "model" / "weights").write_text("w")
    (tmp_path / "src" / "score.py").write_text(NAMES_SCRIPT)
    write(tmp_path, PIPELINE)
    return tmp_path


def write(folder: Path, text: str, name: str = "pipeline.yml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def config_of(folder: Path, *overrides: str, **options: Any) -> JobConfig:
    return load(folder / "pipeline.yml", overrides, **options).config


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    """The pipeline with pieces of its text replaced."""
    text = dedent(PIPELINE)
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "pipeline.yml").write_text(text)
    return folder


def refusal(folder: Path, *overrides: str, kind: type[MpiPrsError] = ConfigError, **options: Any) -> str:
    """What is said, without the name of the file."""
    with pytest.raises(kind) as refused:
        load(folder / "pipeline.yml", overrides, **options)
    message = str(refused.value)
    assert message.startswith(str(folder))
    return message.removeprefix(f"{folder / 'pipeline.yml'}").lstrip(",: ")


# What the keys become


def test_every_key_finds_its_place(folder: Path) -> None:
    loaded = load(folder / "pipeline.yml")
    config = loaded.config
    output = folder / "outputs" / "digits-by-the-dozen" / "score"
    assert config.name == "score"
    assert (config.source_directory, config.entry_script) == (folder / "src", folder / "src" / "score.py")
    assert [section.files for section in config.inputs] == [(str(folder / "images"),)]
    assert config.inputs[0].mode == "mount"
    assert config.output == output
    assert config.append_row_file_name == "digits.csv"
    assert (config.mini_batch_size, config.partition_keys) == (5, None)
    assert (config.node_count, config.process_count_per_node) == (3, 2)
    assert (config.error_threshold, config.allowed_failed_count, config.allowed_failed_percent) == (10, 4, 30)
    assert (config.run_max_try, config.run_invocation_timeout) == (2, 90)
    assert (config.task_overhead_timeout, config.progress_update_timeout) == (1200, 600)
    assert config.logging_level == "DEBUG"
    assert config.environment_variables == {"MODE": "quick"}
    model = "${side_inputs.model}"
    assert config.arguments == ("--model", model, "--top", "5", "--plots", str(output / "plots"), "--verbose")
    assert {name: (side.path, side.mode) for name, side in config.side_inputs.items()} == {
        "model": (str(folder / "model"), "download")
    }
    assert set(loaded.folders) == {output, output / "plots"}
    assert loaded.notes[0].startswith(f"the output rows stays in {output}")
    assert any("the image mcr.microsoft.com" in note for note in loaded.notes)


def test_what_is_left_out_has_azures_defaults(folder: Path) -> None:
    write(
        folder,
        """
        jobs:
          score:
            type: parallel
            inputs: {images: {path: ./images}}
            input_data: ${{inputs.images}}
            task: {code: src, entry_script: score.py}
        """,
    )
    loaded = load(folder / "pipeline.yml")
    config = loaded.config
    assert config.output == folder / "outputs" / "pipeline" / "score"
    assert (config.error_threshold, config.allowed_failed_count, config.allowed_failed_percent) == (-1, None, None)
    assert (config.run_max_try, config.run_invocation_timeout, config.logging_level) == (3, 60, "INFO")
    assert (config.output_action, config.mini_batch_size, config.default_size) == ("summary_only", None, 10)
    assert (config.node_count, config.process_count_per_node) == (1, 1)
    assert (list(loaded.folders), list(loaded.notes)) == ([], [])


def test_one_more_try_than_retries(folder: Path) -> None:
    assert config_of(folder, "jobs.score.retry_settings.max_retries=0").run_max_try == 1
    assert "expected a whole number of at least 0" in refusal(folder, "jobs.score.retry_settings.max_retries=-1")


def test_overrides_are_azures_or_ours(folder: Path) -> None:
    config = config_of(
        folder,
        "jobs.score.resources.instance_count=7",
        "jobs.score.inputs.model.path=./images",
        "slurm.partition=gpu",
        "mpi_prs.slurm.time=02:00:00",
        "output_order=input",
        "processes_per_rank=2",
    )
    assert (config.node_count, config.processes_per_rank) == (7, 2)
    assert config.side_inputs["model"].path == str(folder / "images")
    assert (config.slurm.partition, config.slurm.time, config.output_order) == ("gpu", "02:00:00", "input")


def test_our_own_section_has_the_last_word(folder: Path) -> None:
    text = PIPELINE + "    mpi_prs:\n      scratch: /tmp\n      to_csv: {sep: ';'}\n      stop_grace: 5\n"
    text += "      environment_variables: {LEVEL: 1.10, FAST: true}\n"
    write(folder, text)
    (folder / "src" / "parallel_run_step.settings.json").write_text(
        '{"append_row": {"pandas.DataFrame.to_csv": {"sep": "|", "index": true}}}'
    )
    config = config_of(folder)
    assert (config.scratch, config.stop_grace) == ("/tmp", 5)
    assert (config.environment_variables["LEVEL"], config.environment_variables["FAST"]) == ("1.10", "true")
    assert config.to_csv.model_dump() == {"sep": ";", "header": True, "index": True}
    write(folder, text.replace("stop_grace: 5", "stop_grce: 5"))
    assert refusal(folder).startswith("line 64: mpi_prs.stop_grce: stop_grce: unknown key; did you mean stop_grace")
    write(folder, text.replace("stop_grace: 5", "output: x"))
    assert refusal(folder) == "line 64: mpi_prs.output: output cannot be set here; see --output"


def test_the_output_folder_is_the_one_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(folder, output="elsewhere/it")
    assert config.output == tmp_path / "elsewhere" / "it"
    assert f"{config.output}/plots" in config.arguments
    with pytest.raises(ConfigError, match="--output: expected the path"):
        load(folder / "pipeline.yml", output=" ")


@pytest.mark.parametrize(
    ("output", "name", "rows"),
    [
        ("{type: uri_file}", "rows", "rows"),
        ("{type: uri_file, path: 'azureml://datastores/d/paths/${{name}}/${{output_name}}.jsonl'}", "rows.jsonl", None),
        ("{type: uri_folder}", "parallel_run_step.txt", ""),
        ("", "parallel_run_step.txt", ""),
    ],
)
def test_where_the_rows_go(folder: Path, output: str, name: str, rows: str | None) -> None:
    text = dedent(PIPELINE).replace("--verbose", "--rows ${{outputs.rows}}")
    start, end = text.index("      rows:") + len("      rows:"), text.index("      plots:")
    (folder / "pipeline.yml").write_text(f"{text[:start]} {output}\n{text[end:]}")
    config = config_of(folder)
    assert config.append_row_file_name == name
    assert config.arguments[-1].rstrip("/") == str(config.output / (name if rows is None else rows)).rstrip("/")


def test_rows_go_to_a_url(folder: Path) -> None:
    url = "wasbs://results@ours.blob.core.windows.net/today/digits.csv"
    changed(folder, ("azureml://datastores/${{default_datastore}}/paths/${{name}}/digits.csv", url))
    config = config_of(folder)
    assert config.output_url == "abfss://results@ours.blob.core.windows.net/today"
    assert config.append_row_file_name == "digits.csv"


def test_outputs_of_the_pipeline_say_what_those_of_the_step_are(folder: Path) -> None:
    changed(
        folder,
        (
            "    outputs:\n      rows:\n        type: uri_file\n        path: azureml://datastores/${{default_datastore}}/paths/"
            "${{name}}/digits.csv\n        mode: rw_mount\n",
            "    outputs:\n      rows: ${{parent.outputs.result}}\n",
        ),
        ("jobs:\n", "outputs:\n  result: {type: uri_file, path: 'azureml://datastores/a/paths/final.txt'}\njobs:\n"),
    )
    assert config_of(folder).append_row_file_name == "final.txt"


def test_optional_inputs_leave_their_words_out(folder: Path) -> None:
    changed(
        folder,
        ("      top: 5\n", "      top:\n      label: a b\n"),
        ("--top ${{ inputs.top }}", "$[[--top ${{inputs.top}}]] $[[--label '${{inputs.label}}']]"),
    )
    arguments = config_of(folder).arguments
    assert "--top" not in arguments
    assert arguments[arguments.index("--label") + 1] == "a b"


def test_literals_are_passed_as_they_are_written(folder: Path) -> None:
    changed(
        folder,
        ("top: 5\n", 'top: 1.50\n      yes: true\n      text: "it\'s $HOME/x"\n'),
        ("--verbose", "--flag=${{inputs.yes}} ${{inputs.text}}"),
    )
    assert config_of(folder).arguments[-2:] == ("--flag=true", "it's $HOME/x")
    assert "1.50" in config_of(folder).arguments


@pytest.mark.parametrize(
    ("mode", "ours"),
    [
        ("ro_mount", "mount"),
        ("download", "download"),
        ("direct", "direct"),
        ("eval_mount", "mount"),
        ("eval_download", "download"),
    ],
)
def test_modes_of_files(folder: Path, mode: str, ours: str) -> None:
    changed(folder, ("images: ${{parent.inputs.images}}", f"images: {{path: './images', mode: {mode}}}"))
    assert config_of(folder).inputs[0].mode == ours


def test_data_that_is_passed_as_it_lies(folder: Path) -> None:
    changed(
        folder,
        ("mode: download", "mode: direct"),
        ("path: ./model", "path: abfss://models@ours.dfs.core.windows.net/digits"),
        ("--verbose", "--images ${{inputs.images}}"),
    )
    config = config_of(folder)
    assert config.arguments[1] == "abfss://models@ours.dfs.core.windows.net/digits"
    assert config.arguments[-1] == str(folder / "images")
    assert not config.side_inputs


def test_remote_data_is_a_side_input(folder: Path) -> None:
    changed(
        folder,
        ("path: ./model", "path: https://ours.blob.core.windows.net/models/digits"),
        ("path: ./images", "path: wasbs://data@ours.blob.core.windows.net/images/"),
    )
    config = config_of(folder)
    assert config.side_inputs["model"].path == "https://ours.blob.core.windows.net/models/digits"
    assert config.inputs[0].files == ("abfss://data@ours.blob.core.windows.net/images/",)


@pytest.mark.parametrize(
    ("size", "ours"), [("10kb", "10KB"), ("100 mb", "100MB"), ("1024", 1024), ("1gb", "1GB"), ("50rows", None)]
)
def test_sizes_of_mini_batches_of_rows(folder: Path, size: str, ours: str | int | None) -> None:
    table(folder)
    changed(
        folder,
        ("images: ${{parent.inputs.images}}", "images: {type: mltable, path: ./table, mode: direct}"),
        ('mini_batch_size: "5"', f"mini_batch_size: {size}"),
    )
    assert config_of(folder).mini_batch_size == (ours or "50rows")
    assert config_of(folder).inputs[0].table == (str(folder / "table" / "t.csv"),)


def table(folder: Path) -> None:
    write(folder, "paths: [{file: ./t.csv}]\ntransformations: [read_delimited]\n", "table/MLTable")
    (folder / "table" / "t.csv").write_text("n\n1\n")


def test_partition_keys_win_over_the_size(folder: Path) -> None:
    changed(folder, ('mini_batch_size: "5"', 'mini_batch_size: "5"\n    partition_keys: [Store, Brand]'))
    loaded = load(folder / "pipeline.yml")
    assert loaded.config.partition_keys == ("Store", "Brand")
    assert loaded.config.mini_batch_size is None
    assert "partition_keys make the mini-batches, so mini_batch_size has no effect" in loaded.notes


def test_a_folder_of_files_with_an_mltable_is_noted(folder: Path) -> None:
    (folder / "images" / "MLTable").write_text("paths: [{folder: .}]")
    assert any("has an MLTable file, but the input images is of type uri_folder" in n for n in load_(folder).notes)


def load_(folder: Path) -> LoadedStep:
    return load(folder / "pipeline.yml")


def test_an_argument_that_is_nearly_a_predefined_one_is_noted(folder: Path) -> None:
    changed(folder, ("--resource_monitor_interval 20", "--resource_monitor_interva 20"))
    loaded = load_(folder)
    assert loaded.config.arguments[-3:] == ("--resource_monitor_interva", "20", "--verbose")
    assert any("did you mean --resource_monitor_interval?" in note for note in loaded.notes)


def test_a_script_for_tensorflow_1_is_told_so(folder: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        need("TensorFlow")
    write(folder, "dependencies: [python=3.7, pip, {pip: ['tensorflow==1.15.2']}]\n", "conda.yml")
    changed(folder, ("      environment:\n", "      environment:\n        conda_file: conda.yml\n"))
    assert config_of(folder).environment_variables["MPI_PRS_TENSORFLOW1"] == "1"
    chosen = config_of(folder, f"environment={sys.executable}")
    assert (chosen.environment, "MPI_PRS_TENSORFLOW1" in chosen.environment_variables) == (Path(sys.executable), False)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("predict_digits", "predict-digits"),
        ("Score_2", "score-2"),
        ("a", "job-a"),
        ("2x", "job-2x"),
        ("x" * 40, "x" * 32),
    ],
)
def test_names_of_jobs(folder: Path, name: str, ours: str) -> None:
    changed(folder, ("  score:\n", f"  {name}:\n"))
    assert config_of(folder).name == ours


# What a workspace knows


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    """A workspace that ``config.json`` beside the pipeline names."""
    made = Workspace.create("ours", folder=folder / "workspace", show_output=False)
    made.write_config(folder)
    return made


def test_data_on_a_datastore(folder: Path, workspace: Workspace) -> None:
    uri = "azureml://datastores/workspaceblobstore/paths/images"
    (workspace.folder / "workspaceblobstore" / "images").mkdir(parents=True)
    changed(folder, ("path: ./images", f"path: {uri}"))
    there = str(workspace.folder / "workspaceblobstore" / "images")
    assert config_of(folder).inputs[0].files == (there,)
    longer = uri.replace("datastores", "subscriptions/s/resourcegroups/g/workspaces/w/datastores", 1)
    assert config_of(folder, f"inputs.images.path={longer}").inputs[0].files == (there,)
    message = refusal(folder, f"inputs.images.path={uri.replace('blobstore', 'blobstor')}")
    assert "there is no datastore 'workspaceblobstor'; did you mean 'workspaceblobstore'" in message


def test_blobs_bring_the_secrets_of_their_datastore(folder: Path, workspace: Workspace) -> None:
    Datastore.register_azure_blob_container(
        workspace, "blobs", "container", "account", account_key="a2V5", skip_validation=True
    )
    changed(
        folder,
        ("path: ./images", "path: azureml://datastores/blobs/paths/x/"),
        ("path: ./model", "path: azureml://datastores/blobs/paths/m"),
    )
    config = config_of(folder)
    assert config.inputs[0].files == ("abfs://container/x/",)
    for section in (config.inputs[0].storage, config.side_inputs["model"].storage):
        assert section is not None and section.account_key_file is not None
        assert section.account_key_file.read_text().strip() == "a2V5"
    assert "a2V5" not in repr(config)


def test_registered_datasets_and_models(folder: Path, workspace: Workspace) -> None:
    Dataset.File.from_files(str(folder / "images")).register(workspace, "images")
    Model.register(workspace, folder / "model", "digits")
    changed(
        folder,
        ("path: ./images", "path: azureml:images:1"),
        ("type: uri_folder\n        path: ./model", "type: custom_model\n        path: azureml:digits@latest"),
        ("--verbose", "--data ${{inputs.images}}"),
    )
    config = config_of(folder)
    assert config.inputs[0].files == (str(folder / "images"),)
    assert Path(config.side_inputs["model"].path, "weights").read_text() == "w"
    assert config.arguments[-1] == str(folder / "images")
    assert "there is no dataset 'image'; did you mean 'images'" in refusal(folder, "inputs.images.path=azureml:image:1")
    assert "expected azureml:NAME:VERSION" in refusal(folder, "inputs.images.path=azureml:a:b:c")


def test_a_registered_table(folder: Path, workspace: Workspace) -> None:
    table(folder)
    data = Dataset.Tabular.from_delimited_files(str(folder / "table" / "t.csv")).register(workspace, "rows")
    assert data.name == "rows"
    changed(
        folder,
        ("images: ${{parent.inputs.images}}", "images: {type: mltable, path: 'azureml:rows@latest', mode: direct}"),
        ('mini_batch_size: "5"', 'mini_batch_size: "5kb"'),
    )
    assert config_of(folder).inputs[0].table == (str(folder / "table" / "t.csv"),)


def test_a_compute_target_is_a_partition(folder: Path, workspace: Workspace) -> None:
    workspace.update_settings(backend="slurm", vm_sizes={"STANDARD_NC6": {"partition": "gpu", "gpus": 2}})
    target = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
    ComputeTarget.create(workspace, "cpu-cluster", target)
    config = config_of(folder)
    assert (config.slurm.partition, config.slurm.gpus_per_process) == ("gpu", 1)
    assert config_of(folder, "slurm.partition=other", "slurm.time=5").slurm.gpus_per_process == 1
    workspace.update_settings(vm_sizes={"STANDARD_D2": {"partition": "small"}})
    assert refusal(folder).startswith(
        "line 17: jobs.score.compute: the workspace's setting vm_sizes says nothing about"
    )


# Components, and jobs that are no pipelines

COMPONENT = """
    $schema: https://azuremlschemas.azureedge.net/latest/parallelComponent.schema.json
    type: parallel
    name: score_in_batches
    version: 1
    inputs:
      data: {type: uri_folder, mode: download}
      limit: {type: integer, default: 9}
      note: {type: string, optional: true}
    outputs:
      rows: {type: uri_file}
    input_data: ${{inputs.data}}
    mini_batch_size: "4"
    resources: {instance_count: 2}
    mini_batch_error_threshold: 5
    retry_settings: {max_retries: 2, timeout: 70}
    environment_variables: {A: a, B: b}
    task:
      code: .
      entry_script: score.py
      environment: azureml:AzureML-sklearn@latest
      program_arguments: --limit ${{inputs.limit}} $[[--note ${{inputs.note}}]]
      append_row_to: ${{outputs.rows}}
"""


def test_a_step_says_more_than_its_component(folder: Path) -> None:
    write(folder, COMPONENT, "src/component.yml")
    write(
        folder,
        """
        type: pipeline
        jobs:
          score:
            type: parallel
            component: ./src/component.yml
            inputs: {data: {path: ./images}, note: hello}
            outputs: {rows: {path: 'azureml://datastores/d/paths/r.txt'}}
            mini_batch_error_threshold: 10
            retry_settings: {max_retries: 5}
            environment_variables: {B: other}
        """,
    )
    loaded = load_(folder)
    config = loaded.config
    assert config.entry_script == folder / "src" / "score.py"
    assert (config.inputs[0].files, config.inputs[0].mode) == ((str(folder / "images"),), "download")
    assert (config.run_max_try, config.run_invocation_timeout, config.allowed_failed_count) == (6, 70, 10)
    assert (config.mini_batch_size, config.node_count) == (4, 2)
    assert config.environment_variables == {"A": "a", "B": "other"}
    assert config.arguments == ("--limit", "9", "--note", "hello")
    assert config.append_row_file_name == "r.txt"
    assert any("azureml:AzureML-sklearn@latest is not known here" in note for note in loaded.notes)


def test_what_is_wrong_in_a_component_is_said_of_its_file(folder: Path) -> None:
    write(folder, COMPONENT.replace("timeout: 70", "timeout: 0"), "src/component.yml")
    steps = (
        "jobs:\n  score:\n    type: parallel\n    component: src/component.yml\n    inputs: {data: {path: images}}\n"
    )
    write(folder, steps)
    place = f"{folder / 'src' / 'component.yml'}, line 16: retry_settings.timeout"
    assert refusal(folder).startswith(
        f"{place}: run_invocation_timeout: got '0'; expected a number of seconds, more than 0"
    )
    write(folder, steps.replace("data:", "dta:"))
    assert refusal(folder) == "line 5: jobs.score.inputs.dta: the component has no input 'dta'; did you mean 'data'?"
    write(folder, steps.replace("src/component", "src/compnent"))
    assert f"there is no file {folder}/src/compnent.yml; give the path of the component's YAML" in refusal(folder)
    write(folder, steps.replace("src/component.yml", "azureml:score:1"))
    assert "the component azureml:score:1 is registered in Azure; give its YAML file" in refusal(folder)
    write(folder, COMPONENT.replace("type: parallel", "type: command"), "src/component.yml")
    write(folder, steps)
    with pytest.raises(
        ConfigError, match=r"component.yml, line 3: type: got 'command'; the component of a parallel job"
    ):
        load(folder / "pipeline.yml")


def test_a_component_runs_by_itself_with_data_from_the_command_line(folder: Path) -> None:
    write(folder, COMPONENT, "src/component.yml")
    path = folder / "src" / "component.yml"
    assert is_v2(path)
    config = load(path, [f"inputs.data.path={folder / 'images'}", "inputs.note=x"]).config
    assert config.output == folder / "src" / "outputs" / "score_in_batches"
    assert config.arguments == ("--limit", "9", "--note", "x")
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert (
        str(refused.value) == f"{path}, line 7: inputs.data: it has no data; name it with --set inputs.data.path=DATA"
    )


# Several steps


def two_steps(folder: Path) -> Path:
    return write(
        folder,
        """
        type: pipeline
        name: chain
        jobs:
          second:
            type: parallel
            inputs: {data: {path: "${{parent.jobs.first.outputs.rows}}", mode: direct}}
            outputs: {rows: }
            input_data: ${{inputs.data}}
            mini_batch_size: 1
            task: {code: src, entry_script: lines.py, append_row_to: "${{outputs.rows}}"}
          first:
            type: parallel
            inputs: {images: {path: ./images}}
            outputs: {rows: {type: uri_file}, extra: }
            input_data: ${{inputs.images}}
            mini_batch_size: 5
            task:
              code: src
              entry_script: score.py
              append_row_to: ${{outputs.rows}}
        """,
    )


def test_of_several_steps_one_is_named(folder: Path) -> None:
    two_steps(folder)
    assert refusal(folder) == (
        "there are 2 parallel steps; run them one after the other, in this order: --step first, --step second"
    )
    assert refusal(folder, step="frst") == (
        "--step: there is no step 'frst'; mpi-prs runs parallel steps; did you mean 'first'?"
    )
    assert config_of(folder, step="first").output == folder / "outputs" / "chain" / "first"
    assert refusal(folder, step="second") == (
        f"line 7: jobs.second.inputs.data.path: the step first has not completed in {folder}/outputs/chain/first; run "
        f"it first: mpi-prs run {folder}/pipeline.yml --step first"
    )


def test_a_step_that_cannot_be_run_is_in_nobodys_way(folder: Path) -> None:
    path = two_steps(folder)
    path.write_text(path.read_text().replace("  second:\n", "  second:\n    component: azureml:lines:1\n"))
    assert config_of(folder, step="first").name == "first"
    assert "the component azureml:lines:1 is registered in Azure" in refusal(folder, step="second")


@pytest.mark.job
def test_a_step_takes_what_the_earlier_one_has_left(folder: Path) -> None:
    path = two_steps(folder)
    script = "def run(files):\n    return [len(open(f).read().splitlines()) for f in files]\n"
    (folder / "src" / "lines.py").write_text(script)
    run(path, "--step", "first")
    run(path, "--step", "second")
    output = folder / "outputs" / "chain"
    assert (output / "first" / "extra").is_dir()
    assert (output / "second" / "parallel_run_step.txt").read_text() == "12\n"


def test_a_step_of_another_type_is_shown_and_not_run(folder: Path) -> None:
    write(
        folder,
        """
        type: command
        inputs: {count: {type: integer}}
        outputs: {images: {type: uri_folder}}
        code: ./
        command: >-
          touch ${{outputs.images}}/a.png; for n in ${{inputs.count}} 2;
          do cp a.txt ${{outputs.images}}/$n.png; done
        """,
        "prepare it/prepare.yml",
    )
    (folder / "prepare it" / "a.txt").touch()
    write(
        folder,
        """
        type: pipeline
        jobs:
          prepare:
            type: command
            component: ./prepare it/prepare.yml
            inputs: {count: 1}
          score:
            type: parallel
            inputs: {images: {path: "${{parent.jobs.prepare.outputs.images}}"}}
            input_data: ${{inputs.images}}
            task: {code: src, entry_script: score.py}
        """,
    )
    message = refusal(folder)
    place = folder / "outputs" / "pipeline" / "prepare" / "images"
    assert message.startswith(
        f"line 10: jobs.score.inputs.images.path: there is no {place}, an output of the step prepare, which is of type "
        "command: mpi-prs runs parallel steps alone. Put the data there, or name it with "
        "--set jobs.score.inputs.images.path=DATA; or run that step:\n    (cd "
    )
    subprocess.run(["bash", "-c", message.splitlines()[1]], check=True)
    assert sorted(path.name for path in place.iterdir()) == ["1.png", "2.png", "a.png"]
    assert config_of(folder).inputs[0].files == (str(place),)
    assert config_of(folder, f"jobs.score.inputs.images.path={folder / 'images'}").inputs[0].files[0].endswith("images")


# What is wrong, and what is said of it


BINDINGS = "${{parent.inputs.NAME}} or ${{parent.jobs.STEP.outputs.NAME}}"
IMAGES = "images: ${{parent.inputs.images}}"
INPUT = "jobs.score.inputs.images"
TASK = "jobs.score.task"


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ("tags:", "tgs:", "tgs", "unknown key; did you mean 'tags'?"),
        (
            "mini_batch_size",
            "minibatch_size",
            "jobs.score.minibatch_size",
            "unknown key; did you mean 'mini_batch_size'",
        ),
        ("  entry_script: score.py", "", TASK, "entry_script is missing; add it, such as `entry_script: score.py`"),
        (
            "input_data: ${{inputs.images}}",
            "",
            "jobs.score",
            "input_data is missing; add it, such as `input_data: ${{i",
        ),
        (
            "input_data: ${{inputs.images}}",
            "input_data: ${{inputs.image}}",
            "jobs.score.input_data",
            "${{inputs.image}}: the step has no input 'image'; did you mean 'images'?",
        ),
        (
            "input_data: ${{inputs.images}}",
            "input_data: ./images",
            "jobs.score.input_data",
            "got './images'; expected one of the step's inputs, such as ${{inputs.data}}",
        ),
        (
            "input_data: ${{inputs.images}}",
            "input_data: ${{inputs.top}}",
            "jobs.score.input_data",
            "the input top is the text '5'; expected data: `top: {type: uri_folder, path: …}`",
        ),
        (
            IMAGES,
            "images: ${{parent.inputs.imges}}",
            INPUT,
            "${{parent.inputs.imges}}: the pipeline has no input 'imges'; did you mean 'images'?",
        ),
        (
            IMAGES,
            "images: ${{inputs.images}}",
            INPUT,
            f"${{{{inputs.images}}}}: expected {BINDINGS}; inputs.NAME is for",
        ),
        (
            IMAGES,
            "images: ${{parent.images}}",
            INPUT,
            "${{parent.images}} is not an expression that mpi-prs knows",
        ),
        (
            IMAGES,
            "images: ${{parent.jobs.scor.outputs.x}}",
            INPUT,
            "${{parent.jobs.scor.outputs.x}}: there is no step 'scor'; did you mean 'score'?",
        ),
        (
            IMAGES,
            "images: ${{parent.jobs.score.outputs.row}}",
            INPUT,
            "${{parent.jobs.score.outputs.row}}: the step score has no output 'row'; did you mean 'rows'?",
        ),
        (
            IMAGES,
            "images: ${{parent.jobs.score.inputs.images}}",
            INPUT,
            "${{parent.jobs.score.inputs.images}} leads back to itself; bind it to the data itself",
        ),
        (
            IMAGES,
            "images: {path: ./images, default: ./model}",
            INPUT,
            "expected one of path, value and default, got path and default; remove one",
        ),
        (
            IMAGES,
            "images: {path: ./images, type: uri}",
            f"{INPUT}.type",
            "got 'uri'; expected one of uri_folder, uri_file",
        ),
        (
            IMAGES,
            "images: {path: x, type: string}",
            f"{INPUT}.path",
            "an input of type string has no path; write its value: `images: …`",
        ),
        (
            "path: ./images",
            "path: adl://store.azuredatalakestore.net/x",
            "inputs.images.path",
            "adl://store.azuredatalakestore.net/x: Azure Data Lake Storage Gen1 is no more; give the abfss:// URL of",
        ),
        (
            "--verbose",
            "--x ${{inputs.tpo}}",
            f"{TASK}.program_arguments",
            "${{inputs.tpo}}: the step has no input 'tpo'; did you mean 'top'?",
        ),
        (
            "--verbose",
            "--x ${{parent.inputs.nodes}}",
            f"{TASK}.program_arguments",
            "${{parent.inputs.nodes}}: expected ${{inputs.NAME}} or ${{outputs.NAME}}",
        ),
        ("--verbose", "--x 'y", f"{TASK}.program_arguments", "a quotation in it does not end; close it, or put the"),
        ("--verbose", "--error_threshold", f"{TASK}.program_arguments", "--error_threshold has no value after it"),
        (
            "--verbose",
            "--error_threshold many",
            f"{TASK}.program_arguments",
            "error_threshold: got 'many'; expected a whole number",
        ),
        (
            "append_row_to: ${{outputs.rows}}",
            "append_row_to: ${{outputs.row}}",
            f"{TASK}.append_row_to",
            "${{outputs.row}}: the step has no output 'row'; did you mean 'rows'?",
        ),
        (
            "append_row_to: ${{outputs.rows}}",
            "append_row_to: a/b.txt",
            f"{TASK}.append_row_to",
            "got 'a/b.txt'; expected one of the step's outputs, such as ${{outputs.rows}}",
        ),
        ("type: run_function", "type: model", f"{TASK}.type", "a task of type model is run by Azure alone; write an"),
        (
            "code: ./src",
            "code: git+https://example.org/x",
            f"{TASK}.code",
            "got 'git+https://example.org/x'; expected the",
        ),
        (
            "max_retries: 1",
            "max_retries: some",
            "jobs.score.retry_settings.max_retries",
            "got 'some'; expected a whole number",
        ),
        (
            "instance_count: ${{parent.inputs.nodes}}",
            "instance_count: ${{parent.inputs.images}}",
            "jobs.score.resources.instance_count",
            "${{parent.inputs.images}} is data, and no literal value",
        ),
        (
            "      plots:\n",
            "      ../plots:\n",
            "jobs.score.outputs.../plots",
            "the name '../plots' is not one; expected",
        ),
        (
            "path: azureml://datastores/${{default_datastore}}/paths/${{name}}/digits.csv",
            "path: ./digits.csv",
            "jobs.score.outputs.rows.path",
            "got './digits.csv'; expected azureml://… or a URL; --output names a folder of this machine",
        ),
        ("type: pipeline", "type: command", "type", "got 'command'; expected pipeline or parallel: mpi-prs runs the"),
    ],
)
def test_one_clear_message(folder: Path, old: str, new: str, key: str, problem: str) -> None:
    changed(folder, (old, new))
    message = refusal(folder)
    assert "\n" not in message
    place, _, said = message.partition(f": {key}: ")
    assert said.startswith(problem)
    number = int(place.removeprefix("line "))
    assert (
        key.rpartition("jobs.score.")[2].rpartition(".")[2]
        in (folder / "pipeline.yml").read_text().splitlines()[number - 1]
    )


def test_without_a_parallel_step_there_is_nothing_to_run(folder: Path) -> None:
    changed(folder, ("    type: parallel", "    type: sweep"))
    assert refusal(folder) == "there is no step with `type: parallel`, and mpi-prs runs no others"


def test_what_is_not_there_is_named(folder: Path) -> None:
    changed(folder, ("path: ./images", "path: ./image"))
    assert refusal(folder) == f"line 13: inputs.images.path: there is no {folder}/image; did you mean 'images'?"
    changed(folder, ("path: ./images", "path: azureml:images@latest"))
    message = refusal(folder)
    assert message.startswith(
        "line 13: inputs.images.path: azureml:images@latest: there is no config.json for a workspace"
    )
    assert message.endswith(". Or give the path or URL of the data itself")
    changed(folder, ("    task:\n", "    description: x\n    tas:\n"))
    assert "line 45: jobs.score.tas: unknown key; did you mean 'task" in refusal(folder)
    changed(folder, ("entry_script: score.py", "entry_script: scor.py"))
    message = refusal(folder, kind=ScriptError)
    assert message.startswith("line 47: jobs.score.task.entry_script: entry_script: there is no file")
    assert message.endswith("did you mean score.py?")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("jobs.score.resources.instance_count=0", "node_count: got '0'; expected a whole number of at least 1"),
        ("jobs.score.max_concurrency_per_instance=two", "got 'two'; expected a whole number"),
        ("jobs.score.mini_batch_size=10kb", "expected a whole number of files such as 10"),
        ("jobs.score.logging_level=TRACE", "logging_level: got 'TRACE'; expected 'WARNING', 'INFO' or 'DEBUG'"),
        ("jobs.score.error_threshold=-2", "error_threshold: got '-2'; expected a whole number of at least -1"),
    ],
)
def test_a_value_that_does_not_fit_is_shown_with_its_override(folder: Path, override: str, problem: str) -> None:
    message = refusal(folder, override)
    assert message.startswith(f"--set {override.partition('=')[0]}: ")
    assert problem in message


def everything_in(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each value in nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield (*above, key)
        yield from everything_in(inside, (*above, key))


@pytest.mark.parametrize("odd", ["[]", "{a: }", '"\\0"', "x${{parent.jobs.score.inputs.top}}", "${{}"])
def test_whatever_stands_there_one_message_comes_of_it(folder: Path, odd: str) -> None:
    whole = yaml.safe_load(dedent(PIPELINE))
    refused = 0
    for place in everything_in(whole):
        changed_one = copy.deepcopy(whole)
        inside = changed_one
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = yaml.safe_load(odd)
        (folder / "pipeline.yml").write_text(yaml.safe_dump(changed_one, sort_keys=False))
        try:
            load(folder / "pipeline.yml")
        except MpiPrsError as error:
            refused += 1
            assert str(error).startswith(f"{folder}/pipeline.yml"), place
    assert refused > 20


# The command line


def test_what_is_v2_and_what_is_not(folder: Path) -> None:
    assert is_v2(folder / "pipeline.yml")
    ours = write(folder, "name: job\nentry_script: src/score.py\ninputs: [images]\n", "job.yaml")
    assert not is_v2(ours)
    assert not is_v2(folder / "nowhere.yml")
    assert not is_v2(write(folder, "type: something\n", "other.yml"))


def test_a_step_of_a_job_config_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = write(folder, "name: job\nentry_script: src/score.py\ninputs: [images]\n", "job.yaml")
    assert command_line(["run", str(ours), "--local", "1", "--step", "x"], None) == 2
    assert f"--step x: {ours} is a job config, which has no steps" in capsys.readouterr().err
    broken = write(folder, "type: pipeline\njobs: [\n", "broken.yml")
    assert command_line(["run", str(broken), "--local", "1", "--step", "x"], None) == 2
    assert f"{broken}, line 3, column 1: not valid YAML" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["run", str(folder / "pipeline.yml"), "--dry-run"], None) == 0
    said = capsys.readouterr()
    assert "score: 12 items in 3 mini-batches" in said.out
    assert "note: the output rows stays in" in said.err
    assert not (folder / "outputs").exists()


def test_the_batch_script_runs_the_same_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "pipeline.yml"
    arguments = ["submit", str(path), "--step", "score", "--set", "slurm.partition=gpu", "--dry-run"]
    assert command_line(arguments, None) == 0
    script = capsys.readouterr().out
    assert f"run {path} --set slurm.partition=gpu --step score" in script
    assert "#SBATCH --partition=gpu" in script
    assert "#SBATCH --nodes=3" in script


def test_the_script_is_tried_in_this_process(folder: Path) -> None:
    done = python("debug", str(folder / "pipeline.yml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"0{number}.png" for number in range(5)]


def python(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpi_prs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120)


def run(path: Path, *arguments: str) -> str:
    """Run it with two processes; returns what was said."""
    done = python("run", str(path), "--local", "2", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


# Real jobs


@pytest.mark.job
def test_files_with_a_model_as_in_the_digits_example(folder: Path) -> None:
    (folder / "src" / "score.py").write_text(
        dedent("""
            import argparse
            import os

            def init():
                global model, plots, mode
                parser = argparse.ArgumentParser(allow_abbrev=False)
                parser.add_argument("--model")
                parser.add_argument("--plots")
                args, _ = parser.parse_known_args()
                model = open(os.path.join(args.model, "weights")).read()
                plots, mode = args.plots, os.environ["MODE"]

            def run(mini_batch):
                for path in mini_batch:
                    open(os.path.join(plots, os.path.basename(path)), "w").close()
                return [f"{os.path.basename(path)}: {model} {mode}" for path in mini_batch]
        """)
    )
    path = folder / "pipeline.yml"
    run(path)
    output = folder / "outputs" / "digits-by-the-dozen" / "score"
    expected = [f"{number:02d}.png: w quick" for number in range(12)]
    assert sorted((output / "digits.csv").read_text().splitlines()) == expected
    assert len(list((output / "plots").iterdir())) == 12
    assert "is complete already" in run(path)  # the same command resumes


@pytest.mark.job
def test_rows_of_an_mltable_as_in_the_iris_example(folder: Path) -> None:
    frame = pd.DataFrame({name: np.arange(150) + at / 8 for at, name in enumerate("abcd")})
    (folder / "iris").mkdir()
    frame.to_csv(folder / "iris" / "iris.csv", index=False)
    write(
        folder,
        """
        paths:
          - file: ./iris.csv
        transformations:
          - read_delimited:
              delimiter: ","
              encoding: utf8
              header: all_files_same_headers
        """,
        "iris/MLTable",
    )
    script = "def run(frame):\n    result = frame.drop(columns='d')\n    result['kind'] = 'k'\n    return result\n"
    (folder / "src" / "score.py").write_text(script)
    changed(
        folder,
        ("images: ${{parent.inputs.images}}", "images: {type: mltable, path: ./iris, mode: direct}"),
        ('mini_batch_size: "5"', 'mini_batch_size: "1kb"'),
    )
    run(folder / "pipeline.yml")
    rows = pd.read_csv(folder / "outputs" / "digits-by-the-dozen" / "score" / "digits.csv")
    pd.testing.assert_frame_equal(
        rows.sort_values("a", ignore_index=True), frame[["a", "b", "c"]].assign(kind="k"), check_dtype=False
    )


@pytest.mark.job
def test_a_model_for_each_partition_as_in_the_orange_juice_example(folder: Path) -> None:
    sales = folder / "sales"
    for store in range(1000, 1003):
        for brand in ("dominicks", "tropicana"):
            (sales / str(store) / brand).mkdir(parents=True)
            rows = "".join(f"1990-06-{day:02d},{day}\n" for day in range(1, 11))
            (sales / str(store) / brand / "partitioned_data.csv").write_text(f"WeekStarting,Quantity\n{rows}")
    write(
        folder,
        """
        type: mltable
        paths:
        - pattern: ./**/*.csv
        transformations:
        - read_delimited:
            delimiter: ','
            encoding: ascii
            header: all_files_same_headers
            empty_as_string: false
            include_path_column: true
        - extract_columns_from_partition_format:
            partition_format: '{Store}/{Brand}/{file_name}.{extension}'
        - drop_columns: [Path, file_name, extension]
        """,
        "sales/MLTable",
    )
    write(
        folder,
        """
        type: pipeline
        display_name: a model for each
        jobs:
          prepare:
            type: command
            component: azureml:partition_data:1
          train:
            type: parallel
            inputs:
              data: {path: "${{parent.jobs.prepare.outputs.tabular}}", type: mltable, mode: direct}
              date_col: WeekStarting
            outputs:
              model_folder: {type: uri_folder, mode: rw_mount}
              rows: {type: uri_file}
            partition_keys: [Store, Brand]
            error_threshold: -1
            input_data: ${{inputs.data}}
            task:
              type: run_function
              code: src
              entry_script: train.py
              environment: {image: some-image}
              program_arguments: --date_col ${{inputs.date_col}} --model_folder ${{outputs.model_folder}}
              append_row_to: ${{outputs.rows}}
        """,
    )
    (folder / "src" / "train.py").write_text(
        dedent("""
            import argparse
            import os
            import pandas as pd

            def init():
                global args
                parser = argparse.ArgumentParser()
                parser.add_argument("--date_col")
                parser.add_argument("--model_folder")
                args, _ = parser.parse_known_args()

            def run(frame, context):
                assert list(frame) == ["WeekStarting", "Quantity", "Store", "Brand"], list(frame)
                assert pd.to_datetime(frame[args.date_col]).is_monotonic_increasing
                keys = context.partition_key_value
                folder = os.path.join(args.model_folder, *keys.values())
                os.makedirs(folder)
                open(os.path.join(folder, "model.pkl"), "w").close()
                return pd.DataFrame([{**keys, "total": frame["Quantity"].sum()}])
        """)
    )
    said = run(folder / "pipeline.yml", "--set", f"jobs.train.inputs.data.path={sales}")
    assert "6 mini-batches" in said
    output = folder / "outputs" / "a-model-for-each" / "train"
    expected = sorted(f"{store} {brand} 55" for store in range(1000, 1003) for brand in ("dominicks", "tropicana"))
    assert sorted((output / "rows").read_text().splitlines()) == expected
    assert len(list((output / "model_folder").glob("*/*/model.pkl"))) == 6


SLOW_SCRIPT = """
import os
import time

def run(mini_batch):
    time.sleep(0.02)
    return [os.path.basename(path) for path in mini_batch]
"""


@pytest.mark.mpi
def test_under_mpi_the_same_command_resumes_a_killed_job(new_job: Callable[..., Job], mpich: Mpi) -> None:
    job = new_job(SLOW_SCRIPT, items=200)
    write(
        job.folder,
        """
        type: parallel
        inputs: {files: {type: uri_folder, path: ./in}}
        outputs: {out: {type: uri_folder}}
        input_data: ${{inputs.files}}
        mini_batch_size: 4
        task: {code: ., entry_script: script.py, append_row_to: "${{outputs.out}}"}
        """,
        "job.yaml",
    )
    process = job.start_under(mpich, "--output", "out")
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 5)
    job.kill_all()
    process.communicate()
    done = job.under(mpich, "--output", "out")
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert job.ledger().starts == 2
