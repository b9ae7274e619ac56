"""Files that scripts write: below ``files`` of the output folder, once, whole, and only of accepted answers.

::

    _run/spill/….files/ ──rename──► files/0012/0012345/ ──► journal frame         12345 is the mini-batch
                                    files/0012/0012345-5/                          a part of it, by its way

A folder for each mini-batch that wrote any: one rename, however many files, and no two mini-batches can want the same
name. What a kill has left between the rename and the frame is removed by the next start.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import claim_folder
from mpi_prs.output.ledger import Ledger
from mpi_prs.wire.parts import WAYS, is_part, mini_batch_of

FOLDER_SUFFIX = ".files"
"""What the folder of an attempt is called by, and with ``.rows`` behind it the rows that belong to it."""

_SHARE = 1000  # mini-batches below one folder
_SHARD = re.compile(r"[0-9]{4,}")
_NAME = re.compile(r"([0-9]{7,})(?:-([0-9]+))?")


def place_of(files: Path, number: int) -> Path:
    """The folder of a mini-batch or a part of one."""
    mini_batch = mini_batch_of(number)
    part = f"-{number // WAYS}" if is_part(number) else ""
    return files / f"{mini_batch // _SHARE:04}" / f"{mini_batch:07}{part}"


def promote(folder: Path, files: Path, number: int) -> None:
    """Give the folder of an accepted attempt its place. One rename. Raises OSError."""
    place = place_of(files, number)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not claim_folder(folder, place):  # of an attempt that is not on record
        shutil.rmtree(place)
        claim_folder(folder, place)


def remove_strays(files: Path, ledger: Ledger) -> None:
    """Remove what belongs to nothing on record; other names are left alone.

    Raises:
        OutputError: ``files`` is a link: who follows it works elsewhere.
        OSError: something cannot be read or removed.
    """
    if files.is_symlink():
        raise OutputError(f"{files} is a link: the files of the script go there. Remove it, or choose another output")
    for place, number in list(_places(files)):
        if not _is_on_record(number, ledger):
            shutil.rmtree(place)
    for shard in files.glob("*"):
        with suppress(OSError):  # not empty, or somebody else's
            shard.rmdir()
    with suppress(OSError):
        files.rmdir()


def _places(files: Path) -> Iterator[tuple[Path, int]]:
    for shard in files.glob("*"):
        if _SHARD.fullmatch(shard.name) and not shard.is_symlink():
            for place in shard.glob("*"):
                if (match := _NAME.fullmatch(place.name)) and not place.is_symlink() and place.is_dir():
                    yield place, int(match[1]) + int(match[2] or 0) * WAYS


def _is_on_record(number: int, ledger: Ledger) -> bool:
    mini_batch = mini_batch_of(number)
    divided = ledger.divided.get(mini_batch)
    if not is_part(number):
        return mini_batch in ledger.done or divided is not None
    if divided is None:
        return mini_batch in ledger.done
    way = number // WAYS
    while way:  # neither it nor what it is a half of is still to be done
        if mini_batch + way * WAYS in divided.left:
            return False
        way //= 2
    return True
