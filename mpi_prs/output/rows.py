"""What ``run()`` returned, as bytes of the output file.

List elements: ``str(element)`` and a newline. DataFrame rows: pandas' ``to_csv``, separated by a space, without header
and index unless told otherwise. The length of what came back is the number of items that succeeded.

Standard library only: the user process imports this module. pandas and numpy are recognised where the user's script has
imported them, and never imported from here.
"""

from __future__ import annotations

import re
import sys
from typing import Any

_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class WrongReturnType(Exception):
    """``run()`` returned something that has no rows; the text says what."""


def encode_rows(result: Any, to_csv: dict[str, Any] | None) -> tuple[int, bytes]:
    """The number of rows in ``result``, and the rows as UTF-8.

    Cost: about 1 µs and, for each element, one ``str`` and one copy.

    Args:
        result: what ``run()`` returned: a list, a tuple, a numpy array or a pandas DataFrame (or Series).
        to_csv: pandas ``to_csv`` options for a DataFrame; ``None`` when rows are only counted (``summary_only``).

    Raises:
        WrongReturnType: anything else came back.
    """
    if isinstance(result, (list, tuple)):
        count = len(result)
        if to_csv is None or not count:
            return count, b""
        # Plain strings (no subclass with a str() of its own, such as an enum) are joined as they are: it is faster.
        lines = result if set(map(type, result)) == {str} else map(str, result)
        return count, _utf8("\n".join(lines) + "\n")
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(result, (pandas.DataFrame, pandas.Series)):
        count = len(result)
        if to_csv is None or not count:
            return count, b""
        return count, _utf8(result.to_csv(None, **to_csv))
    if numpy is not None and isinstance(result, numpy.ndarray) and result.ndim:
        count = len(result)
        if to_csv is None or not count:
            return count, b""
        with numpy.printoptions(threshold=sys.maxsize, linewidth=sys.maxsize):  # a row in one line, with all its values
            return count, _utf8("\n".join(map(str, result)) + "\n")
    raise WrongReturnType(
        f"run() returned {_name_of(result)}; expected a list, a tuple, a numpy array or a pandas DataFrame "
        "with one element or row for each item that succeeded"
    )


def header_line(result: Any, to_csv: dict[str, Any]) -> bytes | None:
    """The line with the column names of a DataFrame, as UTF-8; ``None`` for anything else."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(result, (pandas.DataFrame, pandas.Series)):
        return None
    return _utf8(result.iloc[:0].to_csv(None, **to_csv))


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
    return f"{article} {name}{' without dimensions' if name == 'numpy.ndarray' else ''}"
