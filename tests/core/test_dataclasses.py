"""Dataclasses as JSON: what was written comes back, and what is something else is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.core.records import from_json, read_dataclass, write_dataclass


@dataclass(frozen=True)
class Part:
    name: str
    sizes: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True)
class Whole:
    number: int
    parts: dict[str, Part]
    some: list[str] | None = None
    part: Part | None = None
    free: dict[str, Any] = field(default_factory=dict)
    done: bool = False


WHOLE = Whole(1, {"a": Part("ä", (1, 2.5))}, ["x"], Part("b"), {"any": [1, None]}, True)
LEAST = {"number": 1, "parts": {}}


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("record", [WHOLE, Whole(2, {})])
def test_what_was_written_comes_back(tmp_path: Path, record: Whole, lasting: bool) -> None:
    write_dataclass(tmp_path / "deep" / "file", record, lasting=lasting)
    assert read_dataclass(Whole, tmp_path / "deep" / "file") == record


def test_defaults_may_be_missing_and_what_a_later_version_added_is_left_out() -> None:
    assert from_json(Whole, {**LEAST, "later": 1}) == Whole(1, {})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "it: expected an object, got a list"),
        ({"parts": {}}, "number is missing"),
        ({**LEAST, "number": "1"}, "number: expected int, got '1'"),
        ({**LEAST, "number": True}, "number: expected int, got True"),
        ({**LEAST, "parts": {"a": {"name": 1}}}, "parts.a.name: expected str, got 1"),
        ({**LEAST, "parts": {"a": {"name": "a", "sizes": [1]}}}, "parts.a.sizes: expected a tuple, got a list"),
        ({**LEAST, "some": ["x", None]}, "some[1]: expected str, got None"),
        ({**LEAST, "part": 5}, "part: expected an object, got a number"),
    ],
)
def test_what_is_something_else_is_named(data: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_json(Whole, data)
    assert str(caught.value) == said


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "{}", "[" * 100_000])
def test_a_file_that_is_none_of_ours_is_no_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "file").write_text(content)
    assert read_dataclass(Whole, tmp_path / "file") is None
