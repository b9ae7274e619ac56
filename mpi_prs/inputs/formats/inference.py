"""The type of a column, from texts: the one that ``pandas.read_csv`` would give it, were no value missing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.inputs.formats.text_columns import PLAIN, NumberStyle, cast_leniently, is_integer_text, to_values

_GLANCE = 100
"""So many values tell most columns apart at once."""
EXACT = 2**53
"""A float64 has all digits of smaller whole numbers."""


def look(texts: Any, style: NumberStyle = PLAIN, known: Collection[str] = ()) -> frozenset[str]:
    """What there is in a column; looks at all values, 20 to 500 ns each.

    Args:
        texts: binary array.
        style: of numbers.
        known: what has been found in the same column elsewhere.

    Returns:
        Some of ``missing``, ``int``, ``negative`` (an integer with a minus, be it -0), ``unsigned`` (an integer beyond
        int64, within uint64), ``huge`` (one beyond both), ``long`` (one of which float64 may lose digits),
        ``fraction``, ``bool`` and ``text``. Of a column with ``text`` only this and ``missing`` are sure to be told.
    """
    seen = {"missing"} if texts.null_count else set()
    values = texts.drop_null()
    if not len(values):
        return frozenset(seen)
    if "text" in known:
        return frozenset(seen)
    strings = cast_leniently(values, pa.string())
    first = {"text"} if strings.null_count else _carefully(values[:_GLANCE], style)
    if "text" in first:
        return frozenset(seen | {"text"})
    plainly = _quickly(strings, first) if style == PLAIN else None
    return frozenset(seen | (plainly or _carefully(values, style)))


def _quickly(strings: Any, first: Collection[str]) -> set[str] | None:
    """For numbers written plainly, judging by the first of them; ``None``: look again."""
    written = _bytes_of(strings)
    if "bool" in first or any(character in written for character in (b"+", b"x", b"X", b"n", b"N")):
        return None
    is_float = "fraction" in first
    try:  # a cast that fails takes as long as ten others, so only one is tried
        numbers = pc.cast(strings, pa.float64() if is_float else pa.int64())
    except pa.ArrowException:
        return None
    is_long = _is_long(numbers)
    if is_float:
        return {"fraction"} if not is_long else None
    return {"int"} | ({"negative"} if b"-" in written else set()) | ({"long"} if is_long else set())


def _carefully(values: Any, style: NumberStyle) -> set[str]:
    written = is_integer_text(values, style)
    ints = values.filter(written)
    others = values.filter(pc.invert(written))
    seen: set[str] = set()
    if len(ints):
        within = to_values(ints, pa.int64(), style=style)
        beyond = ints.filter(pc.is_null(within))
        if len(beyond) < len(ints):
            seen |= {"int"} | ({"negative"} if b"-" in _bytes_of(ints) else set())
        seen |= {"long"} if len(beyond) or _is_long(within) else set()
        huge = to_values(beyond, pa.uint64(), style=style).null_count
        seen |= ({"huge"} if huge else set()) | ({"unsigned"} if huge < len(beyond) else set())
    if len(others):
        bools = others.filter(pc.is_valid(to_values(others, pa.bool_())))
        floats = others.filter(pc.is_valid(to_values(others, pa.float64(), style=style)))
        seen |= ({"bool"} if len(bools) else set()) | ({"fraction"} if len(floats) else set())
        if len(bools) + len(floats) < len(others):
            seen.add("text")
    return seen


class Mixture:
    """How many values of a column are numbers, and which are not; of a column that is rather text it soon looks away.

    Attributes:
        numbers: so many values are numbers.
        others: so many are other text.
    """

    _FEW = 20

    def __init__(self) -> None:
        self.numbers = 0
        self.others = 0
        self._is_text = False

    def add(self, texts: Any, kinds: Collection[str], style: NumberStyle) -> int | None:
        """Some more values; where the first one is among them that is no number, its place.

        Args:
            texts: binary array.
            kinds: what :func:`look` has told of it, or of more.
            style: of numbers.
        """
        if self._is_text or len(texts) == texts.null_count:
            return None
        if not {"text", "bool"} & set(kinds):
            self.numbers += len(texts) - texts.null_count
            return None
        glance = texts.drop_null()[:_GLANCE]
        if len(glance) >= self._FEW and len(_others(glance, style)) > len(glance) / 2:
            self._is_text = True
            return None
        others = _others(texts, style)
        is_first = len(others) and not self.others
        self.others += len(others)
        self.numbers += len(texts) - texts.null_count - len(others)
        return others[0].as_py() if is_first else None

    @property
    def nearly_numbers(self) -> bool:
        """Whether nine of ten values are numbers, and not all."""
        return not self._is_text and 0 < self.others * 9 <= self.numbers


def _others(texts: Any, style: NumberStyle) -> Any:
    """The places of the texts that are no numbers; of a missing value neither is said."""
    numbers = pc.or_(is_integer_text(texts, style), pc.is_valid(to_values(texts, pa.float64(), style=style)))
    return pc.indices_nonzero(pc.invert(numbers))


def _is_long(numbers: Any) -> bool:
    low, high = (pc.min_max(numbers)[end].as_py() for end in ("min", "max"))
    return bool(max(-low, high) > EXACT)


def _bytes_of(texts: Any) -> bytes:
    """All texts, joined; of a slice, those around it too."""
    return bytes(texts.buffers()[2].to_pybytes())


def type_of(seen: Collection[str], whole: bool) -> Any:
    """The Arrow type of a column; that values are missing makes no float of a whole number.

    Args:
        seen: all that :func:`look` has told of it.
        whole: nothing is left that has not been looked at. If something is, a column that had no value may hold
            anything, so it is text.
    """
    kinds = set(seen) - {"missing", "negative", "long"}
    if not kinds:
        return pa.float64() if whole else pa.string()
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds & {"bool", "text", "huge"}:
        return pa.string()
    if "fraction" in kinds:
        return pa.float64()
    if "unsigned" in kinds:  # pandas, too, makes text of them where float64 would lose digits
        return pa.string() if "negative" in seen else pa.uint64()
    return pa.int64()
