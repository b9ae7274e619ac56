"""Files of scripts in the output folder: only what belongs to an answer on record stays there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpi_prs.core.errors import OutputError
from mpi_prs.output.ledger import Divided, Ledger, Numbers
from mpi_prs.output.script_files import place_of, promote, remove_strays
from mpi_prs.wire.parts import halves

FIRST_HALF, SECOND_HALF = halves(12_345)
QUARTER = halves(FIRST_HALF)[0]


def attempt(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    return folder


def test_an_attempt_takes_its_place_also_where_one_is_that_is_not_on_record(tmp_path: Path) -> None:
    place = tmp_path / "files/0012/0012345"
    assert place_of(tmp_path / "files", 12_345) == place
    for text in ("lost before its frame", "the one on record"):
        promote(attempt(tmp_path / "try.files", text), tmp_path / "files", 12_345)
        assert (place / "a.txt").read_text() == text
        assert not (tmp_path / "try.files").exists()
    promote(attempt(tmp_path / "try.files", "a part"), tmp_path / "files", SECOND_HALF)
    assert (tmp_path / "files/0012/0012345-3/a.txt").read_text() == "a part"


CASES: dict[str, tuple[Ledger, list[int]]] = {
    "nothing is on record": (Ledger(), []),
    "a mini-batch is": (Ledger(done=Numbers([12_345])), [12_345, FIRST_HALF, SECOND_HALF, QUARTER]),
    "items of it have failed alone": (
        Ledger(divided={12_345: Divided(4, failed={1})}),
        [12_345, FIRST_HALF, SECOND_HALF, QUARTER],
    ),
    "a half is left": (Ledger(divided={12_345: Divided(4, left={FIRST_HALF})}), [12_345, SECOND_HALF]),
    "a quarter is left": (Ledger(divided={12_345: Divided(4, left={QUARTER})}), [12_345, FIRST_HALF, SECOND_HALF]),
}


@pytest.mark.parametrize("what", CASES)
def test_a_start_removes_what_is_not_on_record_and_nothing_else(tmp_path: Path, what: str) -> None:
    ledger, kept = CASES[what]
    files = tmp_path / "files"
    numbers = [12_345, FIRST_HALF, SECOND_HALF, QUARTER]
    for number in numbers:
        attempt(place_of(files, number), "")
    strangers = ["notes.txt", "0012/notes.txt", "other/0000001", "0012/123"]
    for name in strangers[:2]:
        (files / name).write_text("")
    for name in strangers[2:]:
        (files / name).mkdir(parents=True)
    (files / "0012" / "0000007").symlink_to(tmp_path)

    remove_strays(files, ledger)

    assert [number for number in numbers if place_of(files, number).exists()] == kept
    assert all((files / name).exists() for name in [*strangers, "0012/0000007"])


def test_empty_folders_go_and_a_link_is_not_followed(tmp_path: Path) -> None:
    attempt(place_of(tmp_path / "files", 1), "")
    remove_strays(tmp_path / "files", Ledger())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "files").symlink_to("/nowhere")
    with pytest.raises(OutputError, match="is a link: the files of the script go there"):
        remove_strays(tmp_path / "files", Ledger())
