"""Tags and properties: pairs of texts on registered things, and finding things by them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpi_prs.core import values
from mpi_prs.core.errors import WorkspaceError


def text_pairs(what: str, pairs: Mapping[str, Any] | None) -> dict[str, str]:
    """The pairs as texts; none for ``None``.

    Args:
        what: ``tags`` or ``properties``, for messages.

    Raises:
        WorkspaceError: it is no dict of such pairs.
    """
    try:
        return {} if pairs is None else values.tags(pairs)
    except values.WrongValue as error:
        raise WorkspaceError(**error.fields(what)) from None


def matches(pairs: Mapping[str, str], wanted: Sequence[Any] | Mapping[str, Any] | None, what: str) -> bool:
    """Whether the pairs have all that is wanted.

    Args:
        wanted: keys, and pairs ``[key, value]``; or a dict of pairs; ``None``: anything goes.
        what: ``tags`` or ``properties``, for messages.

    Raises:
        WorkspaceError: ``wanted`` is not like that.
    """
    if wanted is None:
        return True
    if isinstance(wanted, str):
        wanted = [wanted]
    if not isinstance(wanted, (Mapping, list, tuple, set)):
        raise WorkspaceError(f"{what} to find is a list such as ['a', ['b', 'value of b']], but got {wanted!r}")
    entries = [list(pair) for pair in wanted.items()] if isinstance(wanted, Mapping) else list(wanted)
    for entry in entries:
        if not isinstance(entry, (str, list, tuple)) or not entry:
            raise WorkspaceError(
                f"{what} to find are keys or pairs, such as ['a', ['b', 'value of b']], but got {entry!r}"
            )
        key, *value = [entry] if isinstance(entry, str) else list(entry)
        if not isinstance(key, str) or len(value) > 1:
            raise WorkspaceError(
                f"{what} to find are keys or pairs, such as ['a', ['b', 'value of b']], but got {entry!r}"
            )
        if key not in pairs or (value and str(value[0]) != pairs[key]):
            return False
    return True
