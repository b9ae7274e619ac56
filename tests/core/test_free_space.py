"""A folder that takes no more files is told from one that does, whatever the filesystem counts."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest import mock

import pytest

from mpi_prs.core.free_space import free_space, has_room, speaks_of_a_full_disk


@pytest.mark.parametrize(
    ("error", "room"),
    [(0, True), (errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EIO, True)],  # that is another trouble
)
def test_whether_a_file_can_be_written_settles_it(tmp_path: Path, error: int, room: bool) -> None:
    with mock.patch.object(os, "fsync", side_effect=OSError(error, os.strerror(error)) if error else None):
        assert has_room(tmp_path) is room
    assert not list(tmp_path.iterdir())


def test_a_quota_is_what_is_left_when_the_filesystem_counts_free_bytes(tmp_path: Path) -> None:
    assert free_space(tmp_path).endswith("files are free; so it is a quota")
    assert free_space(tmp_path / "gone") == "it cannot be looked at: No such file or directory"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("OSError: [Errno 28] No space left on device: 'a'", True),
        ("RuntimeError: write failed: Disk quota exceeded", True),
        ("ValueError: no space", False),
    ],
)
def test_words_of_a_full_disk(text: str, full: bool) -> None:
    assert speaks_of_a_full_disk(text) is full
