"""What ``run()`` returned, as bytes of the output file.

List elements: ``str(element)`` and a newline. DataFrame rows: pandas' ``to_csv``, separated by a space, without header
and index unless told otherwise. The length of what came back is the number of items that succeeded.

Standard library only: the user process imports this module. pandas and numpy are recognised where the user's script has
imported them, and never imported from here.
"""

from __future__ import annotations

import sys
from typing import Any


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
        try:
            text = "\n".join(result)  # three times faster than going through str(), and the same for strings
        except TypeError:
            text = "\n".join(map(str, result))
        return count, _utf8(text + "\n")
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
        return count, _utf8("\n".join(map(str, result)) + "\n")
    raise WrongReturnType(
        f"run() returned {_name_of(result)}; expected a list, a tuple, a numpy array or a pandas DataFrame "
        "with one element or row for each item that succeeded"
    )


def _utf8(text: str) -> bytes:
    try:
        # A file name that is not UTF-8 comes out as the bytes it has on disk, so that it can still be found there.
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _name_of(result: Any) -> str:
    if result is None:
        return "None (did it forget to return?)"
    kind = type(result)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
