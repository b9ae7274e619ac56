"""Columns cast to the types that the user chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.types import JSON, datetime_format, nullable_by_name, parse_column_type


@dataclass(frozen=True)
class Cast:
    """A cast to a type of ``column_types``.

    Attributes:
        type: the ``pyarrow.DataType``.
        format: of text that is a date and time; ``None``: ISO 8601.
        nullable: of whole numbers and booleans, whether the type in pandas is to have missing values; ``None``: where
            some may be missing.
        is_json: values are the text of JSON.
    """

    type: Any
    format: str | None
    nullable: bool | None
    is_json: bool = False

    def __call__(self, values: Any) -> Any:
        """An array of the type. Raises ``pyarrow.ArrowInvalid``: a value cannot be of it."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if self.format is not None and (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return pc.strptime(values, format=self.format, unit="us")
        return pc.cast(values, self.type)

    def check(self, column: str, found: Any, where: str = "") -> None:
        """Raises InputError: values of the type found can never be of this one."""
        found = found.value_type if pa.types.is_dictionary(found) else found
        try:
            self(pa.nulls(0, found))
        except pa.ArrowException as error:
            raise InputError(
                f"column_types: column {column!r} is {found}{where} and cannot be read as {self.type}"
            ) from error


def casts(column_types: Mapping[str, str], json: bool = False) -> dict[str, Cast]:
    """The casts of the columns. Raises InputError: there is no such type; ``json``: that is one, too."""
    found = {}
    for name, text in column_types.items():
        if text == JSON and not json:
            raise InputError(
                f"column_types: column {name!r}: {JSON} is for the formats json and json_lines; string leaves text as "
                "it is"
            )
        try:
            cast = Cast(parse_column_type(text), datetime_format(text), nullable_by_name(text), text == JSON)
            found[name] = cast
        except ValueError as error:
            raise InputError(f"column_types: column {name!r}: {error}") from error
    return found
