"""How delimited text is encoded: the width of a unit tells where a file can be cut, and how lines are found in it."""

from __future__ import annotations

import codecs
import sys
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

_BOMS = {
    "utf-8": (codecs.BOM_UTF8,),
    "utf-16-le": (codecs.BOM_UTF16_LE,),
    "utf-16-be": (codecs.BOM_UTF16_BE,),
    "utf-32-le": (codecs.BOM_UTF32_LE,),
    "utf-32-be": (codecs.BOM_UTF32_BE,),
}
_ASCII = bytes(range(128))
_UNREADABLE = "mpi_prs.unreadable"
# One lone surrogate for what cannot be decoded: as UTF-8 it is invalid again, so the value is found and told of
codecs.register_error(_UNREADABLE, lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


class Encoding(NamedTuple):
    """The encoding of one file.

    Attributes:
        codec: Python's name of it, with the byte order.
        unit: bytes of a code unit: 1, 2 or 4. A line break is always at a multiple of it.
        bom: bytes of the byte order mark that the file begins with, or 0.
    """

    codec: str
    unit: int
    bom: int

    def squeezed(self, data: bytes) -> bytes:
        """A byte for each code unit: the same where it is below 255, else 255; so that line breaks can be searched."""
        if self.unit == 1:
            return data
        order = "<" if self.codec.endswith("le") else ">"
        units: Any = np.frombuffer(data, f"{order}u{self.unit}", len(data) // self.unit)
        return bytes(np.minimum(units, 255).astype(np.uint8).tobytes())

    def to_utf8(self, data: bytes) -> bytes:
        """The same text in UTF-8; invalid where it is invalid."""
        if self.codec == "utf-8":
            return data
        try:
            return data.decode(self.codec).encode("utf-8")
        except UnicodeError:
            return data.decode(self.codec, _UNREADABLE).encode("utf-8", "surrogatepass")


def normal_name(encoding: str) -> str:
    """Python's name of an encoding.

    Raises:
        ValueError: it is not known, or not one in which lines can be found from the middle of a file.
    """
    try:
        name = codecs.lookup(encoding).name
        name = {"utf-8-sig": "utf-8", "ascii": "utf-8"}.get(name, name)
        if name.startswith(("utf-16", "utf-32")) or _ASCII.decode(name) == _ASCII.decode("ascii"):
            return name
    except (LookupError, UnicodeError):
        pass
    raise ValueError(
        f"{encoding!r} is not supported: expected utf-8, utf-16, utf-32, latin-1, cp1252, shift_jis, gbk or "
        "another encoding that Python knows and that contains ASCII"
    )


def may_be_half_of_another(character: str, encoding: str) -> bool:
    """Whether the byte of an ASCII character is, in an encoding, the second one of other characters, too."""
    if encoding.startswith(("utf-16", "utf-32")):
        return False
    for lead in range(128, 256):
        with suppress(UnicodeError):
            if len(bytes([lead, ord(character)]).decode(encoding)) == 1:
                return True
    return False


def encoding_of(name: str, head: bytes) -> Encoding:
    """How a file is encoded.

    Args:
        name: as :func:`normal_name` gives it.
        head: the first bytes of the file, at least 4 if it has so many.
    """
    if name in ("utf-16", "utf-32"):
        orders = (f"{name}-le", f"{name}-be")
        native = orders[sys.byteorder == "big"]
        name = next((order for order in orders if head.startswith(_BOMS[order])), native)
    bom = next((len(mark) for mark in _BOMS.get(name, ()) if head.startswith(mark)), 0)
    unit = 2 if name.startswith("utf-16") else 4 if name.startswith("utf-32") else 1
    return Encoding(name, unit, bom)
