"""What a worker sees of the code, models and side inputs that its user processes have."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mpi_prs.core.contents import Sources, content_of
from mpi_prs.core.records import write_dataclass
from mpi_prs.engine.worker import code_check
from mpi_prs.engine.worker.code_check import CodeCheck

LOG = logging.getLogger("mpi_prs.worker1")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Of a module, of large data beside it, and of a model elsewhere."""
    files: dict[str, list[str]] = {
        "source_directory": ["helper.py", "large.bin", "kernel.so"],
        "data in source_directory": ["counter.txt"],
        "arguments": ["model.pt"],
    }
    for name in ("helper.py", "large.bin", "kernel.so", "model.pt", "counter.txt"):
        (tmp_path / name).write_text(name)
    most = {"helper.py": None, "large.bin": 0, "kernel.so": None, "model.pt": None, "counter.txt": None}
    found = {
        key: {str(tmp_path / name): content_of(str(tmp_path / name), most[name]) for name in names}
        for key, names in files.items()
    }
    found["side_inputs"] = {"abfs://container/ref": content_of(str(tmp_path / "helper.py"), None)}
    write_dataclass(tmp_path / "sources.json", Sources("a run", found))
    return tmp_path / "sources.json"


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def touch(name: str) -> Callable[[Path], object]:
    return lambda folder: os.utime(folder / name, (1, 1))


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "nothing": (lambda _folder: None, "", ""),
    "a module": (write("helper.py", "HELPER.py"), "helper.py", "helper.py"),
    "a file that is gone, which makes itself felt": (remove("helper.py"), "", ""),
    "data that the script may write itself": (write("counter.txt", "2"), "", ""),
    "the time of a module": (touch("helper.py"), "", ""),
    "the size of large data": (write("large.bin", "larger"), "large.bin", "large.bin"),
    "the time of large data, which may be a copy of this node's own": (touch("large.bin"), "", "large.bin"),
    "what the first init() may have compiled": (write("kernel.so", "another"), "", "kernel.so"),
    "a model, which may be one of this node's own": (write("model.pt", "MODEL.pt"), "", "model.pt"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_change_is_noticed_before_the_first_process_and_after(record: Path, what: str) -> None:
    change, at_first, later = CASES[what]
    seen = CodeCheck(record, LOG)
    assert seen.changed() is None
    change(record.parent)
    assert seen.changed() == (str(record.parent / later) if later else None)
    assert CodeCheck(record, LOG).changed() == (str(record.parent / at_first) if at_first else None)


def test_what_each_init_compiles_to_the_same_is_no_change(record: Path) -> None:
    kernel = record.parent / "kernel.so"
    kernel.write_text("version 2")
    seen = CodeCheck(record, LOG)
    assert seen.changed() is None
    kernel.unlink()
    kernel.write_text("version 2")
    os.utime(kernel, (1, 1))
    assert seen.changed() is None
    kernel.write_text("version 3")
    assert seen.changed() == str(kernel)


def test_what_is_too_much_or_not_to_be_read_is_said(
    record: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(code_check, "_MOST", 2)
    seen = CodeCheck(record, LOG)
    assert "changes of the first 2 would be noticed" in caplog.text
    write("model.pt", "larger model")(record.parent)
    assert seen.changed() is None
    write("model.pt", "another")(record.parent)
    assert seen.changed() == str(record.parent / "model.pt")
    record.write_text("")
    assert CodeCheck(record, LOG).changed() is None
    assert f"{record} cannot be read" in caplog.text
