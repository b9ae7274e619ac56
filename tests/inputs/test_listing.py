"""The listing of file datasets: what patterns match, in which order, and what is said when they cannot be listed."""

from __future__ import annotations

import glob
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.inputs import listing as files
from mpi_prs.inputs.listing import FileInput, list_files


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(root: Path, *patterns: str) -> list[str]:
    """The listing, relative to the root."""
    return [os.path.relpath(os.fsdecode(path), root) for path in list_files(FileInput(patterns, base=root))]


def listed_from(root: Path, content: bytes) -> list[bytes]:
    (root / "list.txt").write_bytes(content)
    return list(list_files(FileInput(files_from=Path("list.txt"), base=root)))


def complaint(root: Path, *patterns: str) -> str:
    with pytest.raises(InputError) as caught:
        listed(root, *patterns)
    return str(caught.value)


# What is listed


def test_a_folder_is_every_file_under_it_in_the_order_of_the_full_paths(tmp_path: Path) -> None:
    make(tmp_path, "d/b/2", "d/b/10", "d/b-file", "d/b.file", "d/a", "d/z/y/x", "other")
    (tmp_path / "d/empty").mkdir()
    assert listed(tmp_path, "d") == ["d/a", "d/b-file", "d/b.file", "d/b/10", "d/b/2", "d/z/y/x"]


def test_patterns_come_in_the_order_given_and_a_file_matched_twice_is_listed_twice(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png", "c.txt")
    assert listed(tmp_path, "c.txt", "*.png", "b.*") == ["c.txt", "a.png", "b.png", "b.png"]


def test_paths_are_absolute_and_relative_patterns_start_from_the_base(tmp_path: Path) -> None:
    make(tmp_path, "data/a", "configs/x")
    base = tmp_path / "configs"
    expected = [os.fsencode(tmp_path / "data/a")]
    for pattern in ("../data", "../data/*", "./../data//./*", str(tmp_path / "data" / "*"), "../data/a"):
        assert list(list_files(FileInput((pattern,), base=base))) == expected


def test_the_base_is_itself_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/a")
    monkeypatch.chdir(tmp_path)
    assert list(list_files(FileInput(("a",), base=Path("data")))) == [os.fsencode(tmp_path / "data/a")]
    assert list(list_files(FileInput(("data",)))) == [os.fsencode(tmp_path / "data/a")]


def test_two_dots_after_a_link_mean_the_parent_of_where_it_leads(tmp_path: Path) -> None:
    make(tmp_path, "far/away/x", "far/right", "near/x")
    (tmp_path / "near/link").symlink_to("../far/away")
    (path,) = list_files(FileInput(("near/link/../right",), base=tmp_path))
    assert Path(os.fsdecode(path)).resolve() == (tmp_path / "far/right").resolve()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["1.png"]),
        ("*/*.png", ["a/2.png"]),
        ("**/*.png", ["1.png", "a/2.png", "a/b/3.png"]),
        ("a/**", ["a/2.png", "a/b/3.png", "a/b/4.txt"]),
        ("a/**/**/*.txt", ["a/b/4.txt"]),
        ("**/b/*", ["a/b/3.png", "a/b/4.txt"]),
        ("*/b/3.png", ["a/b/3.png"]),
        ("[ab]/", ["a/2.png", "a/b/3.png", "a/b/4.txt"]),
        ("?/?.[!p]*", []),
        ("[a-c]/[0-9].png", ["a/2.png"]),
        ("a/../*.png", ["1.png"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    make(tmp_path, "1.png", "a/2.png", "a/b/3.png", "a/b/4.txt")
    if expected:
        assert listed(tmp_path, pattern) == expected
    else:
        assert "no file matches" in complaint(tmp_path, pattern)


@pytest.mark.parametrize("pattern", [".", "**", "*/**", "./"])
def test_hidden_names_are_skipped(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "d/.hidden", "d/.git/config", "d/seen", ".top/x")
    assert listed(tmp_path, pattern) == ["d/seen"]


def test_hidden_names_are_taken_when_the_dot_is_spelled_out(tmp_path: Path) -> None:
    make(tmp_path, "d/.hidden", "d/.git/config", "d/seen")
    assert listed(tmp_path, "d/.*") == ["d/.hidden"]
    assert listed(tmp_path, "d/.git", "*/.git/*", "d/.hidden") == ["d/.git/config"] * 2 + ["d/.hidden"]


@pytest.mark.parametrize("pattern", ["out", "**", "out/**", "*/*/**", "out/_*/**"])
def test_run_directories_are_skipped(tmp_path: Path, pattern: str) -> None:
    """The output of one job is the input of the next."""
    make(tmp_path, "out/rows.txt", "out/_run/journal", "out/_run/logs/x", "out/_runs/y", "out/sub/_run/z")
    found = listed(tmp_path, pattern)
    assert "out/_runs/y" in found
    assert not any("_run/" in path for path in found)


@pytest.mark.parametrize("pattern", ["out/*/journal", "out/[_]run/*", "out/?run/*", "**/logs/*"])
def test_no_wildcard_matches_a_run_directory(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "out/rows.txt", "out/_run/journal", "out/_run/logs/x")
    assert "no file matches" in complaint(tmp_path, pattern)


def test_run_directories_are_taken_when_they_are_spelled_out(tmp_path: Path) -> None:
    make(tmp_path, "out/rows.txt", "out/_run/journal", "out/_run/logs/x")
    assert listed(tmp_path, "out/_run", "*/_run/*") == ["out/_run/journal", "out/_run/logs/x", "out/_run/journal"]
    assert listed(tmp_path, "out/_run*/*") == ["out/_run/journal"]
    assert listed(tmp_path / "out/_run", ".") == ["journal", "logs/x"]


def test_a_question_mark_and_a_set_match_characters_not_bytes(tmp_path: Path) -> None:
    make(tmp_path, "é.png", "ab.png")
    assert listed(tmp_path, "?.png", "[é].png") == ["é.png", "é.png"]


def test_a_path_that_exists_wins_over_reading_it_as_a_glob(tmp_path: Path) -> None:
    make(tmp_path, "run[1]", "run1", "d[1]/x", "d1/y", "*")
    assert listed(tmp_path, "run[1]", "d[1]", "*") == ["run[1]", "d[1]/x", "*"]
    assert listed(tmp_path, "run[[]1]") == ["run[1]"]


def test_wildcards_in_the_base_are_no_wildcards(tmp_path: Path) -> None:
    make(tmp_path, "[base]*/x", "b/y")
    assert listed(tmp_path / "[base]*", "*") == ["x"]


def test_names_with_newlines_spaces_and_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    names = [b" ", b"a\nb", b"caf\xe9", b"tab\t", b"\xff\xfe.png"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    folder = os.fsencode(tmp_path) + b"/"
    assert list(list_files(FileInput(("*",), base=tmp_path))) == [folder + name for name in names]
    assert list(list_files(FileInput(("caf?",), base=tmp_path))) == [folder + b"caf\xe9"]


def test_a_folder_above_that_can_be_searched_and_not_read_is_not_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "home/u/d/a.png", "home/u/d/b.png", "home/v/d/c.png")
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: (scanned.append(os.path.relpath(os.fsdecode(path), tmp_path)), scandir(path))[1]
    )
    assert len(listed(tmp_path, "home/u/d/*.png")) == 2
    assert scanned == ["home/u/d"]
    scanned.clear()
    assert len(listed(tmp_path, "home/*/d/*.png")) == 3
    assert scanned == ["home", "home/u/d", "home/v/d"]


def test_a_tree_deeper_than_the_recursion_limit_is_listed(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 200
    deepest = tmp_path
    for _ in range(depth):
        deepest /= "d"
        deepest.mkdir()
    (deepest / "x").touch()
    try:
        assert listed(tmp_path, ".") == ["d/" * depth + "x"]
    finally:  # bottom up: shutil.rmtree recurses
        (deepest / "x").unlink()
        os.removedirs(deepest)


# Links and things that are no files


def test_links_to_files_and_folders_are_followed_and_broken_ones_and_pipes_skipped(tmp_path: Path) -> None:
    make(tmp_path, "real/a", "d/b")
    (tmp_path / "d/file").symlink_to("../real/a")
    (tmp_path / "d/folder").symlink_to("../real")
    (tmp_path / "d/broken").symlink_to("nowhere")
    (tmp_path / "d/itself").symlink_to("itself")
    os.mkfifo(tmp_path / "d/pipe")
    assert listed(tmp_path, "d") == ["d/b", "d/file", "d/folder/a"]
    assert listed(tmp_path, "d/*") == ["d/b", "d/file"]
    assert listed(tmp_path, "d/*/a", "d/folder", "d/file") == ["d/folder/a", "d/folder/a", "d/file"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_link_back_to_a_folder_above_is_not_gone_round(tmp_path: Path, target: str) -> None:
    make(tmp_path, "d/e/a")
    (tmp_path / "d/e/loop").symlink_to(target)
    assert listed(tmp_path, "d") == ["d/e/a"]
    assert listed(tmp_path, "d/**/a") == ["d/e/a"]
    assert listed(tmp_path, "d/*/**") == ["d/e/a"]


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1", "b/2")
    (tmp_path / "a/to_b").symlink_to("../b")
    (tmp_path / "b/to_a").symlink_to("../a")
    assert listed(tmp_path, ".") == ["a/1", "a/to_b/2", "b/2", "b/to_a/1"]


def test_a_link_back_is_followed_as_often_as_the_pattern_says(tmp_path: Path) -> None:
    make(tmp_path, "d/a")
    (tmp_path / "d/loop").symlink_to(".")
    assert listed(tmp_path, "d/*/*/a", "d/loop/a") == ["d/loop/loop/a", "d/loop/a"]


def test_a_pipe_a_socket_or_a_broken_link_named_explicitly_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert f"{tmp_path}/pipe is neither a file nor a folder" in complaint(tmp_path, "pipe")
        assert f"{tmp_path}/socket is neither a file nor a folder" in complaint(tmp_path, "socket")
    assert "broken link: it leads to nowhere" in complaint(tmp_path, "broken")


# A file that lists files


def test_a_list_keeps_its_own_order_and_skips_blank_lines_and_comments(tmp_path: Path) -> None:
    make(tmp_path, "b", "a", " c ", "sub/*.png")
    paths = listed_from(tmp_path, b"# mine\n\nb\r\na\n   \n c \nsub/*.png\nsub/../b")
    assert paths == [os.fsencode(tmp_path) + b"/" + name for name in (b"b", b"a", b" c ", b"sub/*.png", b"b")]


def test_a_list_may_hold_absolute_paths_a_byte_order_mark_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(name)).touch()
    assert listed_from(tmp_path, b"\xef\xbb\xbf" + name + b"\r\ncaf\xe9") == [name, name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a\nmissing\n",
            "list.txt, line 2: {}/missing does not exist. The nearest folder that exists is {}, with 3 entries.",
        ),
        (b"# only\n\na\nd\n", "list.txt, line 4: {}/d is a folder; a list names files alone"),
        (b"a\0b\0", "list.txt, line 1: a NUL byte"),
        (b"# nothing\n\n", "list.txt lists no files"),
        (b"", "list.txt lists no files"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    make(tmp_path, "a", "d/x")
    with pytest.raises(InputError) as caught:
        listed_from(tmp_path, content)
    assert message.format(tmp_path, tmp_path) in str(caught.value)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read lost\.txt, the list of files: No such file"):
        list(list_files(FileInput(files_from=Path("lost.txt"), base=tmp_path)))


# What is said when nothing can be listed


def test_a_missing_path_is_named_with_the_nearest_folder(tmp_path: Path) -> None:
    make(tmp_path, "d/a", "d/b")
    assert complaint(tmp_path, "d/x/y") == (
        f"{tmp_path}/d/x/y does not exist. The nearest folder that exists is {tmp_path}/d, with 2 entries."
    )
    assert "d/a/b does not exist" in complaint(tmp_path, "d/a/b")


def test_a_pattern_without_a_match_is_named_with_the_nearest_folder(tmp_path: Path) -> None:
    make(tmp_path, "d/a.png")
    nearest = f"The nearest folder that exists is {tmp_path}/d, with 1 entry."
    assert complaint(tmp_path, "d/*.pgn") == f"no file matches d/*.pgn. {nearest}"
    assert complaint(tmp_path, "d/sub/deep/*.png") == f"no file matches d/sub/deep/*.png. {nearest}"
    assert complaint(tmp_path, "d/a.png", "d/*.pgn") == f"no file matches d/*.pgn. {nearest}"


def test_a_glob_that_matches_folders_alone_says_how_to_list_their_files(tmp_path: Path) -> None:
    make(tmp_path, "day-1/a", "day-2/a", "x/night/a")
    assert complaint(tmp_path, "day-*").endswith(
        "It matches folders (2), and a glob takes files alone: write day-*/** for theirs."
    )
    assert "It matches folders (1)" in complaint(tmp_path, "*/night")
    assert listed(tmp_path, "day-*/**") == ["day-1/a", "day-2/a"]


def test_a_bracket_that_was_meant_literally_is_explained(tmp_path: Path) -> None:
    make(tmp_path, "run [final]/a.png")
    assert "write [[] for a literal one" in complaint(tmp_path, "run [final]/*.png")
    assert listed(tmp_path, "run [[]final]/*.png") == ["run [final]/a.png"]


@pytest.mark.parametrize("name", ["empty", "empty[1]"])
def test_a_folder_without_files_is_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/.hidden", f"{name}/sub/.hidden")
    assert complaint(tmp_path, name) == (
        f"the folder {name} has no files under it (hidden ones and those of a run directory do not count). "
        f"The nearest folder that exists is {tmp_path}/{name}, with 2 entries."
    )


@pytest.mark.parametrize("pattern", ["", "a\0b"])
def test_what_cannot_be_a_path_is_refused(tmp_path: Path, pattern: str) -> None:
    assert f"{pattern!r} is not a path" in complaint(tmp_path, pattern)


@pytest.mark.parametrize("pattern", ["x" * 300, "*" + "x" * 5000, "x/" * 3000])
def test_a_path_that_is_too_long_does_not_exist(tmp_path: Path, pattern: str) -> None:
    assert f"The nearest folder that exists is {tmp_path}" in complaint(tmp_path, pattern)


def test_a_message_about_a_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    message = complaint(tmp_path, "caf\udce9/a\nb")
    assert "caf\\xe9/a\\nb does not exist" in message
    message.encode()


def test_a_folder_that_fails_while_it_is_scanned_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "d/sub/a")
    scandir = os.scandir

    def scan(path: bytes) -> object:
        if path.endswith(b"sub/"):
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert complaint(tmp_path, "d") == f"cannot read {tmp_path}/d/sub/: Input/output error"


# Permissions


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user whom permissions bind, and the process as that user."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        is_root = os.geteuid() == 0
        if is_root:
            os.chown(root, 65534, 65534)
            os.setresgid(65534, 65534, 0)
            os.setresuid(65534, 65534, 0)
        try:
            yield root
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
                os.setresgid(0, 0, 0)
            for folder in [root, *root.rglob("*")]:
                folder.chmod(0o700)


def test_an_unreadable_file_is_named(unprivileged: Path) -> None:
    make(unprivileged, "d/a", "d/secret")
    (unprivileged / "d/secret").chmod(0)
    (unprivileged / "list.txt").write_text("d/a\nd/secret\n")
    for pattern in ("d", "d/*", "d/secret"):
        assert f"cannot read the file {unprivileged}/d/secret: check its permissions" in complaint(
            unprivileged, pattern
        )
    with pytest.raises(InputError, match="d/secret"):
        list(list_files(FileInput(files_from=Path("list.txt"), base=unprivileged)))


def test_only_the_head_of_an_input_is_checked_to_be_readable(
    unprivileged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(unprivileged, "a", "b", "c")
    (unprivileged / "c").chmod(0)
    monkeypatch.setattr(files, "CHECKED_FILES", 2)
    assert listed(unprivileged, "*") == ["a", "b", "c"]


def test_an_unreadable_folder_is_named_with_what_to_do(unprivileged: Path) -> None:
    make(unprivileged, "d/a", "d/locked/b", "d/locked/sub/c")
    (unprivileged / "d/locked").chmod(0)
    for pattern in ("d", "d/**/*", "d/locked", "d/locked/*", "d/locked/b", "d/*/sub/c"):
        message = complaint(unprivileged, pattern)
        assert f"cannot read {unprivileged}/d/locked" in message
        assert "Permission denied. Check its permissions and those of the folders above it" in message
    (unprivileged / "d/locked").chmod(0o700)


def test_a_link_into_a_locked_folder_is_named(unprivileged: Path) -> None:
    make(unprivileged, "d/a", "locked/b")
    (unprivileged / "d/link").symlink_to("../locked/b")
    (unprivileged / "locked").chmod(0)
    assert f"cannot read {unprivileged}/d/link: Permission denied" in complaint(unprivileged, "d")


# Against Python's own glob

NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
SEGMENTS = st.sampled_from(["*", "**", "?", "a*", "*b", "[ab]", "[!a]*", ".*", "a", "b", "a.b", "*.*"])


@settings(max_examples=150)
@given(
    tree=st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=12),
    pattern=st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join),
)
def test_globs_match_what_pythons_glob_matches_sorted_and_once(tree: list[str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path in tree:
            if not (root / path).exists() and not any((root / above).is_file() for above in Path(path).parents):
                make(root, path)
        matched = glob.glob(pattern, root_dir=root, recursive=True)
        found = {path for path in matched if (root / path).is_file()}
        if (root / pattern).is_dir():
            return  # a folder, and not a glob
        try:
            ours = listed(root, pattern)
        except InputError:
            ours = []
        assert ours == sorted(found)
