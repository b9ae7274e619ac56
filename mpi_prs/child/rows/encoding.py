"""What ``run()`` returned, as bytes of the output file.

Lines of text: ``str(element)`` of a list; DataFrame rows by pandas' ``to_csv``. An array, as an element or in a cell,
is written as JSON: its ``str`` would take several lines, and leave most of its values out. Where rows are objects of
JSON or typed (see :mod:`mpi_prs.child.rows.row_format`), they come as a DataFrame or as a list of dicts. The length of
what came back is the number of items that succeeded.

Standard library only: the user process imports this module. pandas and numpy are recognised where the user's script has
imported them; from here pandas is imported for dicts below a header alone, and pyarrow where rows are typed.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from mpi_prs.child.rows import json_lines as json_rows
from mpi_prs.child.shims.finder import resolve

_ARROW_OF_FRAME = "mpi_prs.child.rows.arrow:encode_frame"
_ARROW_OF_DICTS = "mpi_prs.child.rows.arrow:encode_dicts"
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class WrongReturnType(Exception):
    """``run()`` returned something that has no rows; the text says what."""


def prepare_to_encode(form: dict[str, Any] | None) -> None:
    """Import what :func:`encode_rows` needs besides the standard library.

    Raises:
        ImportError: the user's interpreter lacks it.
    """
    if form is not None and form["form"] == "arrow":
        try:
            resolve(_ARROW_OF_FRAME)
        except ImportError as error:
            raise ImportError(
                f"an output file with typed rows (.parquet, .h5) needs pyarrow in the Python of the user processes, "
                f"{sys.executable}: {error}"
            ) from error


def encode_rows(result: Any, form: dict[str, Any] | None) -> tuple[int, bytes]:
    """The number of rows in ``result``, and the rows encoded.

    Cost of text: about 1 µs and, for each element, one ``str`` and one copy.

    Args:
        result: what ``run()`` returned: a list, a tuple, a numpy array or a pandas DataFrame (or Series).
        form: ``form``: ``text``, ``jsonl`` or ``arrow``; ``index``: whether a DataFrame's index is a part of its rows;
            of text also pandas' ``sep`` and ``header``. ``None`` when rows are only counted (``summary_only``).

    Raises:
        WrongReturnType: anything else came back, or rows that do not go into this form.
    """
    count = _count(result)
    if form is None or not count:
        return count, b""
    if form["form"] == "text":
        return count, _lines(result, form)
    try:
        if is_frame(result):
            return count, _encoded_frame(_named_once(result, index=form["index"]), form["form"])
        return count, _encoded_dicts(result, form["form"])
    except json_rows.NotJson as error:
        raise WrongReturnType(f"run() returned a row that JSON cannot hold: {error}") from None


def header_line(frame: Any, form: dict[str, Any]) -> bytes:
    """The line with the column names of a DataFrame, as UTF-8."""
    return _utf8(frame.iloc[:0].to_csv(None, **_to_csv(form)))


def as_fields(result: Any) -> Any:
    """What becomes a DataFrame for an output whose first line names the columns: a Series, a list of dicts, an array of
    two dimensions (its columns are called 0, 1 …). Text, numbers and the like, a field each, stay as they are.

    Raises:
        WrongReturnType: elements are no single field; or there are dicts, and no pandas to make a DataFrame of them.
    """
    if is_frame(result):
        return _framed(result)
    if getattr(result, "ndim", 0) == 2:
        return _data_frame(result, "an array")
    if not isinstance(result, (list, tuple)):
        return result
    kinds = set(map(type, result))
    if kinds == {dict}:
        return _data_frame(list(result), "a list of dicts")
    if all(map(_is_single, kinds)):
        return result
    for number, element in enumerate(result):
        if isinstance(element, (list, tuple, dict)) or json_rows.is_array(element):
            raise WrongReturnType(
                f"run() returned a list whose element {number} is {_name_of(element)}; expected a pandas DataFrame or "
                "a list of dicts, since the output file has named columns, or a list of text, which is written as it is"
            )
    return result


def _data_frame(rows: Any, what: str) -> Any:
    try:
        import pandas
    except ImportError:
        raise WrongReturnType(
            f"run() returned {what}; for an output file with a header {sys.executable} needs pandas"
        ) from None
    return pandas.DataFrame(rows)


def _count(result: Any) -> int:
    numpy = sys.modules.get("numpy")
    if (
        isinstance(result, (list, tuple))
        or is_frame(result)
        or (numpy is not None and isinstance(result, numpy.ndarray) and result.ndim)
    ):
        return len(result)
    raise WrongReturnType(
        f"run() returned {_name_of(result)}; expected a list, a tuple, a numpy array or a pandas DataFrame "
        "with one element or row for each item that succeeded"
    )


def is_frame(result: Any) -> bool:
    """Whether it is a DataFrame or a Series."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(result, (pandas.DataFrame, pandas.Series))


def _to_csv(form: dict[str, Any]) -> dict[str, Any]:
    return {name: form[name] for name in ("sep", "header", "index")}


# Text


def _lines(result: Any, form: dict[str, Any]) -> bytes:
    if is_frame(result):
        return _utf8(_with_whole_cells(_framed(result)).to_csv(None, **_to_csv(form)))
    kinds = set(map(type, result))
    # Plain strings (no subclass with a str() of its own, such as an enum) are joined as they are: it is faster.
    lines = result if kinds == {str} else map(str if all(map(_is_single, kinds)) else _whole, result)
    return _utf8("\n".join(lines) + "\n")


def _is_single(kind: type) -> bool:
    """Whether ``str`` is all of such values, so that none of them need be looked at."""
    numpy = sys.modules.get("numpy")
    return kind in json_rows.PLAIN or (numpy is not None and issubclass(kind, numpy.generic))


def _whole(element: Any) -> str:
    """``str(element)``; JSON of what holds arrays."""
    if _has_arrays(element):
        try:
            return json_rows.encode_value(element)
        except json_rows.NotJson as error:
            raise WrongReturnType(f"run() returned an array that no line of text can hold: {error}") from None
    return str(element)


def _has_arrays(value: Any) -> bool:
    return json_rows.is_array(value) or json_rows.holds_arrays(value)


def _framed(frame: Any) -> Any:
    return frame if hasattr(frame, "columns") else frame.to_frame()


def _with_whole_cells(frame: Any) -> Any:
    """The DataFrame, with cells that hold arrays as JSON."""
    found = {}
    for number, dtype in enumerate(frame.dtypes):
        cells = frame.iloc[:, number]
        if dtype.name == "object" and not all(map(_is_single, set(map(type, cells)))):
            found[number] = cells.map(lambda cell: _whole(cell) if _has_arrays(cell) else cell)
    if not found:
        return frame
    names = frame.columns
    frame = frame.copy()
    frame.columns = range(len(names))  # there may be two of the same name
    for number, cells in found.items():
        frame[number] = cells
    frame.columns = names
    return frame


# Objects and tables


def _named_once(frame: Any, *, index: bool) -> Any:
    """A DataFrame with columns, none of them twice; with ``index`` it comes first."""
    pandas = sys.modules["pandas"]
    if isinstance(frame, pandas.Series):
        frame = frame.to_frame()
    names = [str(name) for name in frame.columns]
    if index:
        names = [str(name) for name in frame.index.names if name is not None] + names
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise WrongReturnType(f"run() returned a DataFrame with two columns {twice!r}; give each a name of its own")
    return frame.reset_index() if index else frame


def _encoded_frame(frame: Any, form: str) -> bytes:
    if form == "arrow":
        if not len(frame.columns):
            raise WrongReturnType("run() returned a DataFrame without columns; expected at least one")
        return bytes(resolve(_ARROW_OF_FRAME)(frame))
    return json_rows.encode_frame(frame)


def _encoded_dicts(result: Any, form: str) -> bytes:
    expected = "expected a pandas DataFrame or a list of dicts, since the output file has named columns"
    if not isinstance(result, (list, tuple)):
        raise WrongReturnType(f"run() returned {_name_of(result)}; {expected}")
    for number, element in enumerate(result):
        if not isinstance(element, dict):
            found = "None" if element is None else _name_of(element)
            raise WrongReturnType(f"run() returned a list whose element {number} is {found}; {expected}")
    if form == "arrow":
        if not any(result):
            raise WrongReturnType("run() returned a list of empty dicts; expected at least one key")
        return bytes(resolve(_ARROW_OF_DICTS)(result))
    return json_rows.encode_objects(result)


def _utf8(text: str) -> bytes:
    # A file name that is not UTF-8 comes out as the bytes it has on disk, so that it can still be found there.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte: escaped
        escaped = _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        return escaped.encode("utf-8", "surrogateescape")


def _name_of(result: Any) -> str:
    if result is None:
        return "None (did it forget to return?)"
    kind = type(result)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name}{' without dimensions' if name == 'numpy.ndarray' and not result.ndim else ''}"
