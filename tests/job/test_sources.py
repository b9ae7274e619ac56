"""What made an output: which files count, that a change is noticed by content, and what scripts may write freely."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mpi_prs.core.contents import Sources
from mpi_prs.core.records import read_dataclass, write_dataclass
from mpi_prs.job.config.model import JobConfig, load_config
from mpi_prs.job.run import sources
from mpi_prs.job.run.sources import changes, gather

FILES = (
    *(
        "code/score.py",
        "code/helper.py",
        "code/lib/deep.py",
        "code/lib/kernel.so",
        "code/vocabulary.json",
        "code/score.yaml",
    ),
    *("code/weights.bin", "code/run.log", "code/.hidden", "code/in/a.png", "code/out/rows.txt", "code/other/rows.txt"),
    *("code/other/_run/journal", "code/job-2.yaml", "code/left_out.py", "code/venv/pyvenv.cfg", "code/venv/lib/six.py"),
    "code/wandb/latest-run/score.py",
    *(
        "models/net.pt",
        "models/folder/a.pt",
        "models/results.csv",
        "models/saved.pb",
        "models/preds/a.csv",
        "side/ref.fa",
        "side/folder/b.fa",
        "path/tool.py",
    ),
    *("variable.bin", "extra.bin", "code/account.key", "code/token.txt", "key.json"),
)


WRITTEN = " (if the script writes that itself, name it in .amlignore)"


class Project:
    """A source directory, and files elsewhere that the job config names; each holds its own name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.write(name, f"# {name}\n")
        self.write("code/job-2.yaml", "entry_script: score.py\n")
        self.write("code/.amlignore", "left_out.py\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def config(self, **settings: object) -> JobConfig:
        given = {
            "name": "project",
            "source_directory": "code",
            "entry_script": "score.py",
            "inputs": ["code/in/*.png", "code/*.png"],
            "output": "code/out",
            "storage": {"account_key_file": "code/account.key"},
            "error_threshold": -1,
            "arguments": [
                *["--model", str(self.folder / "models/net.pt"), f"--more={self.folder / 'models/folder'}", "vocab"],
                *["--results", str(self.folder / "models/results.csv"), "--data", str(self.folder / "code/in")],
                *["--saved_model_dir", str(self.folder / "models/saved.pb")],
                *["--predictions_dir", str(self.folder / "models/preds")],
            ],
            "environment_variables": {
                "WEIGHTS": str(self.folder / "variable.bin"),
                "CACHE_FILE": str(self.folder / "extra.bin"),
                "CREDENTIALS": str(self.folder / "key.json"),
                "PYTHONPATH": f"/nowhere:{self.folder / 'path'}",
            },
            "side_inputs": {
                "ref": {"path": "side/ref.fa", "storage": {"sas_token_file": "code/token.txt"}},
                "more": "side/folder",
            },
            **settings,
        }
        self.write("code/job.yaml", yaml.safe_dump(given))
        self.write("job.yaml", yaml.safe_dump(given))
        return load_config(self.folder / "job.yaml")

    def begin(self) -> Sources:
        """The sources of a run, as the next start reads them."""
        path = self.folder / "sources.json"
        write_dataclass(path, gather(self.config(), "a run"))
        found = read_dataclass(Sources, path)
        assert found is not None
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def edit(name: str) -> Callable[[Project], object]:
    """Another byte in a file, and not another size."""

    def change(project: Project) -> None:
        path = project.folder / name
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    return change


def write(name: str) -> Callable[[Project], object]:
    return lambda project: project.write(name, "something else")


def remove(name: str) -> Callable[[Project], object]:
    return lambda project: (project.folder / name).unlink()


def touch(name: str) -> Callable[[Project], object]:
    return lambda project: os.utime(project.folder / name, (1, 1))


NOTICED: dict[str, tuple[Callable[[Project], object], str]] = {
    "a helper module": (edit("code/helper.py"), "source_directory: helper.py has changed"),
    "a helper module in a package": (edit("code/lib/deep.py"), "source_directory: lib/deep.py has changed"),
    "data beside the code": (
        write("code/vocabulary.json"),
        f"data in source_directory: vocabulary.json has changed{WRITTEN}",
    ),
    "settings of the script": (write("code/score.yaml"), f"data in source_directory: score.yaml has changed{WRITTEN}"),
    "what was compiled": (write("code/lib/kernel.so"), "source_directory: lib/kernel.so has changed"),
    "a module that is gone": (remove("code/helper.py"), "source_directory: helper.py is gone"),
    "a module that is new": (write("code/numpy.py"), "source_directory: numpy.py is new"),
    "a model in an argument": (edit("models/net.pt"), "arguments: {}/models/net.pt has changed"),
    "a saved model": (edit("models/saved.pb"), "arguments: {}/models/saved.pb has changed"),
    "a model in a folder": (edit("models/folder/a.pt"), "arguments: {}/models/folder/a.pt has changed"),
    "a file of a variable": (edit("variable.bin"), "environment_variables: {}/variable.bin has changed"),
    "a module by PYTHONPATH": (edit("path/tool.py"), "environment_variables: {}/path/tool.py has changed"),
    "a side input": (edit("side/ref.fa"), "side_inputs: {}/side/ref.fa has changed"),
    "a side input's file": (write("side/folder/b.fa"), "side_inputs: {}/side/folder/b.fa has changed"),
}


@pytest.mark.parametrize("what", NOTICED)
def test_a_change_of_what_decides_the_output_is_noticed_by_content(project: Project, what: str) -> None:
    change, line = NOTICED[what]
    then = project.begin()
    assert changes(then, project.config()) == []

    change(project)

    assert changes(then, project.config()) == [line.format(project.folder)]


NO_MATTER: dict[str, Callable[[Project], object]] = {
    "the time alone": touch("code/helper.py"),
    "the script, of which the fingerprint tells": write("code/score.py"),
    "a key that is another now": lambda project: [
        write(f"code/{name}")(project) for name in ("account.key", "token.txt")
    ],
    "credentials in a variable": write("key.json"),
    "a log": write("code/run.log"),
    "a new file that is no code": write("code/cache.db"),
    "what is hidden": write("code/.hidden"),
    "what is ignored": write("code/left_out.py"),
    "an input": write("code/in/a.png"),
    "a new input": write("code/new.png"),
    "the output": write("code/out/rows.txt"),
    "another job's output": remove("code/other/rows.txt"),
    "another job config": lambda project: project.write("code/job-2.yaml", "entry_script: score.py\nnode_count: 2\n"),
    "an environment": write("code/venv/lib/six.py"),
    "code that a logger has copied": remove("code/wandb/latest-run/score.py"),
    "what an argument names for results": write("models/results.csv"),
    "what an argument names for predictions": write("models/preds/a.csv"),
    "what a variable names for a cache": write("extra.bin"),
    "what is ignored by now": lambda project: (
        [edit("code/helper.py")(project), write("code/.amlignore")(project)]
        and project.write("code/.amlignore", "helper.py\nleft_out.py\n")
    ),
}


@pytest.mark.parametrize("what", NO_MATTER)
def test_what_jobs_and_scripts_write_is_no_change(project: Project, what: str) -> None:
    then = project.begin()
    NO_MATTER[what](project)
    assert changes(then, project.config()) == []


def test_what_the_launcher_of_the_job_prints_to_is_no_data(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """``mpirun … >> run.txt``; a rank itself prints into a pipe."""
    write("code/run.txt")(project)
    then = project.begin()
    saved = os.dup(2)
    with (
        open(project.folder / "code/run.txt", "a") as log,
        subprocess.Popen("cat", stdin=-1, stdout=-1, stderr=-1) as rank,
    ):
        log.write("again\n")
        log.flush()
        assert changes(then, project.config()) == [f"data in source_directory: run.txt has changed{WRITTEN}"]
        monkeypatch.setattr("os.getpid", lambda: rank.pid)
        os.dup2(log.fileno(), 2)
        try:
            found = changes(then, project.config())
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        rank.communicate()
    assert found == []


def test_a_long_list_of_changes_is_one_line(project: Project) -> None:
    for number in range(6):
        project.write(f"code/m{number}.py", "")
    then = project.begin()
    for number in range(6):
        project.write(f"code/m{number}.py", "1")
    assert changes(then, project.config()) == ["source_directory: m0.py, m1.py, m2.py and 3 more have changed"]


def test_a_large_file_is_known_by_size_and_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST_READ", 10_000)
    project.write("models/net.pt", "x" * 10_001)
    then = project.begin()
    assert then.files["arguments"][f"{project.folder}/models/net.pt"].sha256 == ""
    assert changes(then, project.config()) == []
    touch("models/net.pt")(project)
    assert changes(then, project.config()) == [f"arguments: {project.folder}/models/net.pt has changed"]


@pytest.mark.parametrize("why", ["too many", "unreadable"])
def test_of_a_folder_that_holds_everything_the_code_directly_in_it_counts_and_that_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    if why == "too many":
        monkeypatch.setattr(sources, "MOST_FILES", 3)
    else:
        (project.folder / "code/.amlignore").write_bytes(b"\xff")
    then = project.begin()
    names = sorted(os.path.relpath(path, project.folder) for path in then.files["source_directory"])
    assert names == ["code/helper.py", "code/left_out.py", "code/score.py"]
    assert f"of the source directory {project.folder}/code, only code directly in it is compared" in caplog.text
    edit("code/helper.py")(project)
    assert changes(then, project.config()) == ["source_directory: helper.py has changed"]


def test_the_time_of_a_file_that_has_just_been_written_proves_nothing(project: Project) -> None:
    """A file system may count whole seconds."""
    path = project.folder / "code/helper.py"
    now = time.time_ns()
    os.utime(path, ns=(now, now + 10**12))
    then = project.begin()
    found = path.stat()
    edit("code/helper.py")(project)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert changes(then, project.config()) == ["source_directory: helper.py has changed"]


def test_data_beside_the_code_that_changed_while_the_run_was_at_work_is_told_and_code_is_not_accepted(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    then = project.begin()
    for name in ("code/vocabulary.json", "code/lib/kernel.so", "code/helper.py", "models/net.pt"):
        write(name)(project)
    at_work = (project.folder / "models/net.pt").stat().st_mtime_ns
    code_and_model = [
        "source_directory: helper.py has changed",
        f"arguments: {project.folder}/models/net.pt has changed",
    ]
    assert changes(then, project.config(), at_work) == code_and_model
    assert "lib/kernel.so and vocabulary.json have changed while the run was at work" in caplog.text
    os.utime(project.folder / "code/vocabulary.json", ns=(at_work, at_work + 10**10))
    data = f"data in source_directory: vocabulary.json has changed{WRITTEN}"
    assert changes(then, project.config(), at_work) == [code_and_model[0], data, code_and_model[1]]
