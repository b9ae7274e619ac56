"""``exec``: a script or a notebook, as Python or Jupyter runs it, with ``azureml…`` being ours.

::

    FILE.py      ──► a fresh module __main__, in this process
    FILE.ipynb   ──► its code cells, one after the other, in an IPython shell in this process
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import click

from mpi_prs.child.shims import finder
from mpi_prs.child.shims.tracebacks import show_in, without_our_frames
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED, ScriptError
from mpi_prs.core.words import did_you_mean

EXIT_INTERRUPTED = 128 + signal.SIGINT

_LONGEST_LINE = 80


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
def exec_command(file: Path, arguments: tuple[str, ...]) -> int:
    """Run a script or a notebook that uses the SDK, `import azureml.core` and the like being ours.

    FILE.py is run as Python runs it, FILE.ipynb cell by cell in the notebook's folder (by IPython) until one fails.
    """

    return exec_file(file, arguments)


def exec_file(file: Path, arguments: Sequence[str]) -> int:
    """Run it, and return its exit code; 1 where it ends by an exception, whose traceback is shown.

    Args:
        file: a Python file, or a notebook (``.ipynb``).
        arguments: what it finds in ``sys.argv`` after its name.

    Raises:
        ScriptError: it cannot be read, or a notebook is given and IPython is not installed.
        KeyboardInterrupt: a script was interrupted, and let it pass.
    """
    content = _read(file)
    notebook = _cells(file, content) if file.suffix == ".ipynb" else None
    finder.install("always")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])  # what the program has held back is the script's now
    sys.argv = [str(file), *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(file.resolve().parent)
    return _run_script(file, content) if notebook is None else _run_notebook(file, notebook)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        hint = did_you_mean(file.name, (path.name for path in file.parent.glob("*.*")), "correct the path")
        raise ScriptError(f"there is no file {file}; {hint}") from None
    except IsADirectoryError:
        raise ScriptError(f"{file} is a folder; give a Python file or a notebook (.ipynb)") from None
    except OSError as error:
        raise ScriptError(f"{file} cannot be read: {error.strerror}") from None


# Scripts


def _run_script(file: Path, source: bytes) -> int:
    path = str(file.absolute())
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins, __loader__=SourceFileLoader("__main__", path))
    sys.modules["__main__"] = main
    try:
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)
    except SystemExit as error:
        return _exit_code(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        frames = error.__traceback__ and error.__traceback__.tb_next  # from the script's first one on
        without_our_frames(error.with_traceback(frames))
        sys.stdout.flush()
        sys.excepthook(type(error), error, error.__traceback__)
        return EXIT_FAILED
    return EXIT_COMPLETE


def _exit_code(error: SystemExit) -> int:
    """As Python takes ``sys.exit(…)``."""
    if error.code is None:
        return EXIT_COMPLETE
    if isinstance(error.code, int):
        return error.code
    print(error.code, file=sys.stderr)
    return EXIT_FAILED


# Notebooks


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Attributes:
        number: among all cells of the notebook, from 1.
        source: its text.
        may_raise: whether it is marked as one that raises (the tag ``raises-exception``).
    """

    number: int
    source: str
    may_raise: bool


def _cells(file: Path, content: bytes) -> list[Cell]:
    """The code cells of a notebook. Raises ScriptError."""
    try:
        notebook = json.loads(content)
        if "worksheets" in notebook:
            raise ScriptError(f"{file} is a notebook of an old form (version 3): open it in Jupyter and save it once")
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
        if language != "python":
            raise ScriptError(f"{file} is a notebook in {language}; mpi_prs runs those in Python")
        return list(_code_cells(notebook["cells"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScriptError(f"{file} is not a notebook: {type(error).__name__}: {error}") from None


def _code_cells(cells: Sequence[Any]) -> Iterator[Cell]:
    for number, cell in enumerate(cells, 1):
        text = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        if cell["cell_type"] == "code" and text.strip():
            yield Cell(number, text, "raises-exception" in cell.get("metadata", {}).get("tags", ()))


def _run_notebook(file: Path, cells: Sequence[Cell]) -> int:
    os.chdir(file.resolve().parent)  # as Jupyter does
    with tempfile.TemporaryDirectory(prefix="mpi_prs-ipython-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="To exit: use")  # what IPython says of sys.exit()
        shell = _make_shell(file, folder)
        for done, cell in enumerate(cells, 1):
            result = shell.run_cell(cell.source, store_history=True)
            error = result.error_before_exec or result.error_in_exec
            if isinstance(error, SystemExit):
                return _exit_code(error)
            if isinstance(error, KeyboardInterrupt):
                click.echo(f"interrupted in {_described(file, cell)}", err=True)
                return EXIT_INTERRUPTED
            if error is not None and not cell.may_raise:
                left = len(cells) - done
                more = f"; {left} more code cell{'s' * (left > 1)} not run" if left else ""
                click.echo(f"error: {_described(file, cell)} has failed{more}", err=True)
                return EXIT_FAILED
    return EXIT_COMPLETE


def _described(file: Path, cell: Cell) -> str:
    first = cell.source.strip().partition("\n")[0]
    shown = first if len(first) <= _LONGEST_LINE else f"{first[:_LONGEST_LINE]}…"
    return f"cell {cell.number} of {file.name} ({shown})"


def _make_shell(file: Path, folder: str) -> Any:
    """An IPython shell that keeps what it has to keep in ``folder``, and shows tracebacks on stderr."""
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config
    except ImportError as error:
        raise ScriptError(
            f"{file}: notebooks are run by IPython, which {sys.executable} does not have ({error}): "
            "pip install ipython, or install mpi_prs with the extra `notebook`"
        ) from None

    class Shell(InteractiveShell):
        def _showtraceback(self, etype: type, evalue: BaseException, stb: Any) -> None:
            del evalue
            if etype is not SystemExit:
                sys.stdout.flush()
                print(self.InteractiveTB.stb2text(stb), file=sys.stderr, flush=True)

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.ipython_dir = folder
    if not sys.stderr.isatty():
        config.InteractiveShell.colors = "nocolor"
    InteractiveShell.clear_instance()
    shell = Shell.instance(config=config)
    show_in(shell)
    return shell
