"""``mpi-prs exec``: scripts as Python runs them, notebooks as Jupyter does, and what they import is ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.jobs import REPOSITORY, wait_until

EXEC = [sys.executable, "-m", "mpi_prs", "exec"]


class Runner:
    """Starts ``mpi-prs exec`` in a folder; what is started is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        self.started: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def notebook(self, name: str, *cells: str | dict[str, object], **metadata: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        first = {"cell_type": "markdown", "metadata": {}, "source": ["# About\n", "nothing"]}
        others = [{**code, **(cell if isinstance(cell, dict) else {"source": textwrap.dedent(cell)})} for cell in cells]
        path.write_text(
            json.dumps({"cells": [first, *others], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
        )
        return path

    def start(self, *arguments: object, command: list[str] = EXEC) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: object, command: list[str] = EXEC) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*arguments, command=command)
        stdout, stderr = process.communicate(timeout=100)
        return process.returncode, stdout, stderr


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    for process in runner.started:
        process.kill()
        process.communicate()


# Scripts

ABOUT = """
import sys, os, json
print(json.dumps([sys.argv, sys.path[0], __file__, __name__, os.getcwd(), sys.modules["__main__"].__file__]))
"""


@pytest.mark.parametrize("place", ["script.py", "below/script.py"])
def test_a_script_finds_what_python_gives_it(runner: Runner, place: str) -> None:
    runner.write(place, ABOUT)
    arguments = [place, "--flag", "-x", "1", "--help"]
    ours = runner.run(*arguments)
    pythons = runner.run(*arguments, command=[sys.executable])
    assert ours == pythons
    assert ours[0] == 0


def test_a_script_imports_from_its_own_folder_and_azureml_from_us(runner: Runner) -> None:
    runner.write("code/helper.py", "answer = 42")
    runner.write(
        "code/script.py",
        """
        from helper import answer
        from azureml.core import Workspace
        from azureml.pipeline.steps import ParallelRunStep
        print(answer, Workspace.__module__, ParallelRunStep.__module__)
        """,
    )
    code, stdout, stderr = runner.run("code/script.py")
    assert (code, stderr) == (0, "")
    assert stdout.split() == ["42", "mpi_prs.azureml.workspace", "mpi_prs.azureml.definition.parallel_run_step"]


def test_ours_wins_over_an_installed_package(runner: Runner) -> None:
    runner.write("azureml/__init__.py", "")
    runner.write("azureml/core/__init__.py", "Workspace = 'real'")
    runner.write("script.py", "from azureml.core import Workspace; print(Workspace.__module__)")
    assert runner.run("script.py")[1].strip() == "mpi_prs.azureml.workspace"


@pytest.mark.parametrize(
    ("statement", "code", "stderr"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('no pictures')", 1, "no pictures\n"),
        ("import os; os._exit(9)", 9, ""),
    ],
)
def test_its_exit_code_is_the_scripts(runner: Runner, statement: str, code: int, stderr: str) -> None:
    runner.write("script.py", f"import sys\n{statement}\n")
    assert runner.run("script.py") == (code, "", stderr)


@pytest.mark.parametrize(
    "text",
    [
        "def fail():\n    raise ValueError('no pictures')\nprint('before')\nfail()\n",
        "def run(:\n    pass\n",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error\n",
        "import sys\nsys.excepthook = lambda *what: print('hooked', what[0].__name__, file=sys.stderr)\n1 / 0\n",
    ],
    ids=["raises", "syntax error", "chained", "its own hook"],
)
def test_a_traceback_is_what_python_shows(runner: Runner, text: str) -> None:
    runner.write("script.py", text)
    ours = runner.run("script.py")
    assert ours == runner.run("script.py", command=[sys.executable])
    assert ours[0] == 1


def test_what_a_script_defines_can_be_pickled_and_its_exit_functions_run(runner: Runner) -> None:
    runner.write(
        "script.py",
        """
        import atexit, multiprocessing, pickle

        class Mine:
            pass

        def double(number):
            return 2 * number

        if __name__ == "__main__":
            atexit.register(lambda: print("bye", Mine.__name__))
            assert type(pickle.loads(pickle.dumps(Mine()))) is Mine
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
        """,
    )
    assert runner.run("script.py") == (0, "[2, 4]\nbye Mine\n", "")


def test_output_is_not_kept_back(runner: Runner) -> None:
    runner.write(
        "script.py", "import os, time\nprint('first')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('last')"
    )
    process = runner.start("script.py")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    runner.write("go", "")
    assert process.communicate(timeout=30)[0] == "last\n"


WAITS = "import time\ntry:\n    open('ready', 'w').close()\n    time.sleep(100)\nfinally:\n    print('cleaned up')\n"


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_ctrl_c_ends_it(runner: Runner, kind: str) -> None:
    path = runner.write("f.py", WAITS) if kind == "script" else runner.notebook("f.ipynb", WAITS, "print('never')")
    process = runner.start(path.name)
    wait_until((runner.folder / "ready").exists)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout.endswith("cleaned up\n")
    assert "interrupted" in stderr


def test_a_script_may_catch_ctrl_c_itself(runner: Runner) -> None:
    runner.write("f.py", WAITS.replace("finally:", "except KeyboardInterrupt:"))
    process = runner.start("f.py")
    wait_until((runner.folder / "ready").exists)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "cleaned up\n"
    assert process.returncode == 0


def test_a_signal_that_the_program_holds_back_reaches_the_script(runner: Runner) -> None:
    runner.write("f.py", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))")
    assert runner.run("f.py") == (0, "set()\n", "")


# Notebooks


def test_cells_run_in_order_and_show_what_they_should(runner: Runner) -> None:
    runner.notebook(
        "tutorial.ipynb",
        "import sys\nprint(sys.argv)\nnumber = 6 * 7\nnumber",
        "%%writefile score.py\ndef run(mini_batch):\n    return mini_batch\n",
        "!cat score.py",
        "   \n",
        {"cell_type": "raw", "source": "this is not code"},
        {"source": ["from azureml.core import Workspace\n", "print(Workspace.__module__)"]},
        "import pandas as pd\npd.DataFrame({'digit': [number]})",
        "number;",
        "import asyncio\nawait asyncio.sleep(0)\nprint('awaited')",
    )
    code, stdout, stderr = runner.run("tutorial.ipynb", "--fast")
    assert (code, stderr) == (0, "")
    words = stdout.split()
    assert words[:2] == ["['tutorial.ipynb',", "'--fast']"]
    assert "Out[1]: 42" in stdout
    assert "Writing score.py" in stdout
    assert "def run(mini_batch):\n    return mini_batch" in stdout
    assert "mpi_prs.azureml.workspace" in stdout
    assert "   digit\n0     42" in stdout
    assert words[-1] == "awaited"
    assert "Out[6]" not in stdout
    assert (runner.folder / "score.py").read_text() == "def run(mini_batch):\n    return mini_batch\n"


def test_a_notebook_runs_in_its_folder_and_leaves_nothing_in_the_home(runner: Runner) -> None:
    home = runner.folder / "home"
    home.mkdir()
    runner.environment = {"HOME": str(home), "IPYTHONDIR": ""}
    runner.write("below/helper.py", "answer = 42")
    runner.notebook("below/n.ipynb", "import os, helper\nprint(os.getcwd(), helper.answer, __name__)")
    code, stdout, stderr = runner.run("below/n.ipynb")
    assert (code, stderr) == (0, "")
    assert stdout.split() == [str(runner.folder / "below"), "42", "__main__"]
    assert list(home.iterdir()) == []


def test_the_first_error_ends_a_notebook_and_says_where(runner: Runner) -> None:
    runner.notebook(
        "n.ipynb",
        "print('first')",
        "def look():\n    return {}['pictures']\nlook()",
        "print('never')",
        "print('never')",
    )
    code, stdout, stderr = runner.run("n.ipynb")
    assert (code, stdout) == (1, "first\n")
    assert "return {}['pictures']" in stderr
    assert "KeyError: 'pictures'" in stderr
    last = stderr.splitlines()[-1]
    assert last == "error: cell 3 of n.ipynb (def look():) has failed; 2 more code cells not run"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("print('a'", "SyntaxError"),
        ("%no_such_magic", "Line magic function `%no_such_magic` not found"),
        ("from azureml.core import ScriptRunConfig", "mpi_prs runs ParallelRunStep alone"),
    ],
)
def test_whatever_is_wrong_with_a_cell_is_an_error(runner: Runner, cell: str, words: str) -> None:
    runner.notebook("n.ipynb", cell, "print('never')")
    code, stdout, stderr = runner.run("n.ipynb")
    assert code == 1
    assert "never" not in stdout
    assert words in stdout + stderr
    assert "error: cell 2 of n.ipynb" in stderr


def test_a_cell_that_is_meant_to_raise_ends_nothing(runner: Runner) -> None:
    meant = {"source": "1 / 0", "metadata": {"tags": ["raises-exception"]}}
    runner.notebook("n.ipynb", meant, "print('after')")
    code, stdout, stderr = runner.run("n.ipynb")
    assert (code, stdout) == (0, "after\n")
    assert "ZeroDivisionError" in stderr


MISTAKE = """
from azureml.core import Workspace, Dataset
def look(ws):
    return ws.datasets["mnist"]
ws = Workspace.create("ws", folder="ws", show_output=False)
try:
    1 / 0
except ZeroDivisionError:
    look(ws)
"""


@pytest.mark.parametrize("kind", ["script", "notebook", "jupyter"])
def test_of_a_mistake_the_users_own_lines_are_shown_and_the_message(runner: Runner, kind: str) -> None:
    command = EXEC
    if kind == "script":
        runner.write("n.py", MISTAKE)
    elif kind == "notebook":
        runner.notebook("n.ipynb", MISTAKE)
    else:
        runner.write("n.ipy", f"%load_ext mpi_prs\n{MISTAKE}")
        command = [sys.executable, "-m", "IPython", "--colors=nocolor"]
    file = next(path.name for path in runner.folder.glob("n.*"))
    code, stdout, stderr = runner.run(file, command=command)
    assert code == 1
    shown = stdout + stderr
    assert 'return ws.datasets["mnist"]' in shown
    assert "1 / 0" in shown
    assert "NotRegistered: there is no dataset 'mnist'; there is none yet" in shown
    assert "surface.py" not in shown


def test_a_cause_inside_of_us_is_not_shown(runner: Runner) -> None:
    runner.write("config.json", "{")
    runner.write("script.py", "from azureml.core import Workspace\nWorkspace.from_config()\n")
    code, _, stderr = runner.run("script.py")
    assert code == 1
    assert "WorkspaceError" in stderr
    assert "config.json" in stderr
    assert stderr.count("Traceback") == 1
    assert "mpi_prs/azureml" not in stderr


def test_a_notebook_may_exit(runner: Runner) -> None:
    runner.notebook("n.ipynb", "import sys\nsys.exit(3)", "print('never')")
    assert runner.run("n.ipynb") == (3, "", "")


def test_a_notebook_may_load_the_extension_too(runner: Runner) -> None:
    runner.notebook("n.ipynb", "%load_ext mpi_prs", "from azureml.core import Run\nprint(Run.__module__)")
    code, stdout, _ = runner.run("n.ipynb")
    assert code == 0
    assert "azureml… and azureml_user… are mpi_prs now" in stdout
    assert "mpi_prs.azureml.runs" in stdout


# What cannot be run


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tutoriel.ipynb", None, "there is no file tutoriel.ipynb; did you mean tutorial.ipynb?"),
        ("folder", "a folder", "folder is a folder; give a Python file or a notebook"),
        ("n.ipynb", "{", "n.ipynb is not a notebook: JSONDecodeError"),
        ("n.ipynb", "[]", "n.ipynb is not a notebook"),
        ("n.ipynb", "{}", "n.ipynb is not a notebook: KeyError: 'cells'"),
        ("n.ipynb", '{"worksheets": []}', "of an old form (version 3): open it in Jupyter and save it once"),
        ("n.ipynb", '{"cells": [], "metadata": {"kernelspec": {"language": "R"}}}', "is a notebook in R"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(runner: Runner, name: str, content: str | None, words: str) -> None:
    runner.notebook("tutorial.ipynb")
    if content == "a folder":
        (runner.folder / name).mkdir()
    elif content is not None:
        runner.write(name, content)
    code, stdout, stderr = runner.run(name)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert words in stderr


def test_without_ipython_a_notebook_says_what_to_install_and_scripts_run(
    runner: Runner, make_unimportable: Callable[..., None]
) -> None:
    make_unimportable("IPython")
    runner.notebook("n.ipynb", "print('never')")
    code, stdout, stderr = runner.run("n.ipynb")
    assert (code, stdout) == (2, "")
    assert "notebooks are run by IPython" in stderr
    assert "pip install ipython" in stderr
    runner.write("s.py", "print('fine')")
    assert runner.run("s.py") == (0, "fine\n", "")


@pytest.fixture
def make_unimportable(runner: Runner) -> Callable[..., None]:
    """Puts a package of this name in front that cannot be imported."""

    def make(name: str) -> None:
        runner.write(f"blocked/{name}/__init__.py", "raise ImportError('blocked by a test')")
        runner.environment = {"PYTHONPATH": os.pathsep.join([str(runner.folder / "blocked"), str(REPOSITORY)])}

    return make
