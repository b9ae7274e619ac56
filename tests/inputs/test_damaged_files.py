"""Damaged files of every table format, by chance: each is read, or refused in words, or ends its reader process alone.

``MPI_PRS_TEST_DAMAGED_FILES`` says how many; 100000 take about half an hour of one core, 400 some seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.inputs.formats.orc import reading
from mpi_prs.inputs.reader import process
from mpi_prs.inputs.reader.connection import ConnectionLost, MessageKind, ReaderConnection, ReaderMessage
from mpi_prs.inputs.reader.process import ReaderLost, ReaderProcess
from tests.support.damage import SUFFIXES, damaged, sound_files
from tests.support.jobs import REPOSITORY

FILES = int(os.environ.get("MPI_PRS_TEST_DAMAGED_FILES", "400"))
SECONDS = 2.0
"""Of computing for one file: sound ones take milliseconds."""


class Rank:
    """What a rank does with its reader process, which is replaced when it is lost."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self._process: ReaderProcess | None = None
        self._connection: ReaderConnection
        self._thread = 0

    def ask(self, **request: Any) -> ReaderMessage | None:
        """What became of a file; ``None``: it was the end of the process."""
        if self._process is None:
            self._process = ReaderProcess({"job": "load"})
            self._connection = self._process.connections.pop()
            self._thread = self._process.answer(self._connection, lambda: 60.0).json()
        try:
            self._connection.send_json(MessageKind.LOAD, request)
            return self._process.answer(self._connection, lambda: SECONDS, self._thread)
        except ReaderLost as lost:
            self.lost.append(str(lost))
        except ConnectionLost:
            self.lost.append(self._process.end())
        self.close()
        return None

    def close(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.close()
            self._process = None


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rank]:
    monkeypatch.setattr(process, "_PROGRAM", REPOSITORY / "tests" / "support" / "damaged_reader.py")
    with contextlib.closing(Rank()) as made:
        yield made


@pytest.mark.parametrize("name", SUFFIXES)
def test_no_damaged_file_does_more_than_end_its_reader_process(name: str, rank: Rank, tmp_path: Path) -> None:
    sounds = sound_files()[name]
    path, sound_path = tmp_path / f"file{SUFFIXES[name]}", tmp_path / f"sound{SUFFIXES[name]}"
    for sound in sounds:
        path.write_bytes(sound)
        answer = rank.ask(path=str(path), name=name, planned_as=str(path), options={})
        assert answer is not None and answer.kind is MessageKind.LOADED and answer.json() > 0
    for number in range(FILES // len(SUFFIXES)):
        chance = random.Random(f"{name} {number}")
        sound = chance.choice(sounds)
        bad = damaged(sound, name, chance)
        path.write_bytes(bad)
        sound_path.write_bytes(sound)
        was_damaged_later = len(bad) == len(sound) and chance.random() < 0.4
        planned_as = sound_path if was_damaged_later else path
        skips = name in ("delimited", "json_lines") and chance.random() < 0.5
        options = {"on_bad_record": "skip_and_count"} if skips else {}
        answer = rank.ask(path=str(path), name=name, planned_as=str(planned_as), options=options)
        if answer is not None and answer.kind is MessageKind.FAILED:
            assert answer.json()[0] == "InputError", (number, answer.json())
    print(*rank.lost, sep="\n")
    assert len(rank.lost) < FILES / 50  # else something else than damage ends it


@pytest.mark.parametrize("end", [b"", b"\x12\x02\x18\x01"], ids=["without a footer", "a number for a stripe"])
def test_the_end_of_an_orc_file_is_refused_in_words(end: bytes) -> None:
    with pytest.raises(ValueError, match="its end is damaged"):
        reading._parsed(end, [])
