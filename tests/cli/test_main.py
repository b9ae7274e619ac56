"""The command without a command, and in a Python that cannot run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpi_prs.__main__ import main
from mpi_prs.cli.main import commands
from mpi_prs.cli.session import Session
from mpi_prs.core.errors import InputError

REPOSITORY = Path(__file__).parents[2]


def test_alone_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "mpi-prs [OPTIONS] [COMMAND]" in capsys.readouterr().out


def test_the_demo_without_its_data_names_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").write_text(
        "{name: demo, entry_script: s.py, inputs: [none/*.png], output: out, error_threshold: 0}"
    )
    (tmp_path / "configs" / "s.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    monkeypatch.setattr("mpi_prs.cli.run._CHECKOUT", tmp_path)
    monkeypatch.setenv("MPI_PRS_CONFIG", str(tmp_path / "configs" / "digits.yaml"))
    ranks: Any = SimpleNamespace(rank=0, size=2)
    with pytest.raises(InputError, match=r"no file matches .*`make demo` in "):
        commands.main([], obj=Session(ranks), standalone_mode=False)


def test_a_python_without_our_packages_is_told_in_one_line() -> None:
    program = f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}]; from mpi_prs.__main__ import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: mpi_prs needs the package click, but ")
    assert done.stderr.count("\n") == 1
