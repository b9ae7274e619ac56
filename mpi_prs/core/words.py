"""What to say of a name that is not known: which ones are near. Standard library only, and for Python 3.7 as well."""

from __future__ import annotations

from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """To follow a message about an unknown name: ``; did you mean 'mnist'?``, or which there are. Any case is near."""
    import difflib

    names = sorted(known)
    by_lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    if close:
        return f"; did you mean {' or '.join(repr(by_lower[other]) for other in close)}?"
    if not names:
        return "; there is none yet"
    shown = ", ".join(map(repr, names[:8]))
    return f"; there is {shown}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"


def did_you_mean(name: str, known: Iterable[str], otherwise: str, most: int = 1) -> str:
    """A hint: ``did you mean score.py?``, with ``most`` names at the most; or ``otherwise``, where none is near."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=most)
    return f"did you mean {' or '.join(close)}?" if close else otherwise
