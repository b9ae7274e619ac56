"""What a table's columns hold, and where their names stand, in Azure's words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.words import near
from mpi_prs.inputs.formats.types import parse_column_type


@dataclass(frozen=True)
class DataType(Surface):
    """The type of a column, for ``set_column_types``: ``{"price": DataType.to_float()}``.

    Attributes:
        text: the type as job configs write it, such as ``datetime(%d.%m.%Y)``.
        decimal_mark: of floats.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "to_stream": "make a FileDataset of the files, and the column a side input"
    }

    text: str
    decimal_mark: str = "."

    @classmethod
    def to_string(cls) -> DataType:
        return cls("string")

    @classmethod
    def to_long(cls) -> DataType:
        return cls("int")

    @classmethod
    def to_float(cls, decimal_mark: str = ".") -> DataType:
        """``decimal_mark`` is ``.`` or ``,``; it is the same in all columns of a table."""
        if decimal_mark not in (".", ","):
            raise WorkspaceError(f"DataType.to_float: decimal_mark is '.' or ',', but got {decimal_mark!r}")
        return cls("float", decimal_mark)

    @classmethod
    def to_bool(cls) -> DataType:
        return cls("bool")

    @classmethod
    def to_datetime(cls, formats: str | list[str] | None = None) -> DataType:
        """``formats``: one format of :meth:`datetime.datetime.strptime`; default: ISO 8601.

        Raises:
            WorkspaceError: there are several, or it is no format.
        """
        if formats is None:
            return cls("datetime")
        given = [formats] if isinstance(formats, str) else list(formats)
        if len(given) != 1:
            raise WorkspaceError(
                f"DataType.to_datetime takes one format, but got {len(given)}; read the column as text, and convert it "
                "in run()"
            )
        if not isinstance(given[0], str) or "%" not in given[0]:
            raise WorkspaceError(f"DataType.to_datetime takes a format such as '%d.%m.%Y', but got {given[0]!r}")
        return cls(f"datetime({given[0]})")


class PromoteHeadersBehavior(enum.Enum):
    """In which files of delimited text the first line has the names of the columns."""

    NO_HEADERS = 0
    ONLY_FIRST_FILE_HAS_HEADERS = 1
    COMBINE_ALL_FILES_HEADERS = 2
    ALL_FILES_HAVE_SAME_HEADERS = 3


_HEADERS = {
    PromoteHeadersBehavior.NO_HEADERS: "no_header",
    PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS: "only_first_file_has_headers",
    PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS: "combine_all_files_headers",
    PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS: "all_files_have_same_headers",
}
_ENCODINGS = {
    "utf8": "utf-8",
    "utf8bom": "utf-8-sig",
    "iso88591": "iso-8859-1",
    "latin1": "latin-1",
    "ascii": "ascii",
    "utf16": "utf-16",
    "utf32": "utf-32",
    "windows1252": "cp1252",
}


def header_option(header: Any) -> str:
    """The job config's ``header``: of a PromoteHeadersBehavior, its name in any case, or a truth value.

    Raises:
        WorkspaceError: it is none of these.
    """
    if isinstance(header, bool):
        kind = PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS if header else PromoteHeadersBehavior.NO_HEADERS
        return _HEADERS[kind]
    if isinstance(header, PromoteHeadersBehavior):
        return _HEADERS[header]
    if isinstance(header, str) and header.lower() in _HEADERS.values():
        return header.lower()
    if isinstance(header, str) and header.upper() in PromoteHeadersBehavior.__members__:
        return _HEADERS[PromoteHeadersBehavior[header.upper()]]
    raise WorkspaceError(
        f"header is True, False or one of PromoteHeadersBehavior ({', '.join(PromoteHeadersBehavior.__members__)}), "
        f"but got {header!r}"
    )


def encoding_option(encoding: Any) -> str:
    """The job config's ``encoding``: of one of Azure's names, or one that Python has. Raises WorkspaceError."""
    if not isinstance(encoding, str) or not encoding:
        raise WorkspaceError(f"encoding is a name such as 'utf8', but got {encoding!r}")
    return _ENCODINGS.get(encoding.lower(), encoding)


def column_types_option(types: Any) -> tuple[dict[str, str], str]:
    """The job config's ``column_types``, and the decimal point that they want.

    Raises:
        WorkspaceError: it is no dict of column names and DataTypes (or names of types that job configs have), or two
            decimal points are wanted.
    """
    if types is None:
        return {}, "."
    if not isinstance(types, Mapping):
        raise WorkspaceError(f"set_column_types is a dict such as {{'price': DataType.to_float()}}, but got {types!r}")
    found, marks = {}, set()
    for column, type in types.items():
        if not isinstance(column, str):
            raise WorkspaceError(f"set_column_types: the name of a column is text, but got {column!r}")
        if isinstance(type, DataType):
            found[column] = type.text
            if type.text == "float":
                marks.add(type.decimal_mark)
        elif isinstance(type, str):
            found[column] = _known_type(column, type)
        else:
            raise WorkspaceError(
                f"set_column_types: the type of column {column!r} is a DataType such as DataType.to_long(), but got "
                f"{type!r}"
            )
    if len(marks) > 1:
        raise WorkspaceError("set_column_types: two decimal marks are given; a table has one")
    return found, marks.pop() if marks else "."


def _known_type(column: str, text: str) -> str:
    try:
        parse_column_type(text)
    except ValueError as error:
        raise WorkspaceError(f"set_column_types: column {column!r}: {error}") from None
    return text


def check_choice(what: str, value: Any, known: Mapping[str, Any]) -> Any:
    """What a word stands for. Raises WorkspaceError naming those that there are."""
    if value not in list(known):  # unhashable things, too
        raise WorkspaceError(
            f"{what} is one of {', '.join(map(repr, known))}, but got {value!r}{near(str(value), known)}"
        )
    return known[value]
