"""Tracebacks of a user's mistake: the user's own lines and the message, without our inner frames.

An exception of another kind is a bug of ours, or the user's own: nothing is taken from it. Standard library only.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Iterator  # noqa: UP035  # Python 3.7

from mpi_prs.core.errors import MpiPrsError

_OURS = f"{Path(__file__).resolve().parents[2]}/"


def without_our_frames(error: BaseException) -> BaseException:
    """``error`` itself; it, and each error that it came from, ends where it called us, if its message is for the user.

    What an error of ours came from inside of us is not shown: the message has said it.
    """
    for each in list(_chain(error)):
        if isinstance(each, MpiPrsError):
            each.__traceback__ = _until_ours(each.__traceback__)
            before = each.__cause__ or each.__context__
            if before is not None and not isinstance(before, MpiPrsError) and _begins_with_us(before.__traceback__):
                each.__cause__ = None  # and with it, the context is suppressed
    return error


def show_in(shell: Any) -> None:
    """Have an IPython shell show them so, unless it has a way of its own to show exceptions."""
    if getattr(shell, "custom_exceptions", None) == ():
        shell.set_custom_exc((MpiPrsError,), _show)


def hide_from(shell: Any) -> None:
    """The shell shows them as any other."""
    if getattr(shell, "custom_exceptions", None) == (MpiPrsError,):
        shell.set_custom_exc((), None)


def _show(shell: Any, kind: type, error: BaseException, frames: TracebackType, tb_offset: int | None = None) -> None:
    del frames
    without_our_frames(error)
    shell.showtraceback((kind, error, error.__traceback__), tb_offset=tb_offset)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _until_ours(frames: TracebackType | None) -> TracebackType | None:
    """The frames before the first one of ours; all where there is none before."""
    outer = []
    at = frames
    while at is not None and not _is_ours(at):
        outer.append(at)
        at = at.tb_next
    kept = None
    for frame in reversed(outer):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept or frames


def _begins_with_us(frames: TracebackType | None) -> bool:
    return frames is not None and _is_ours(frames)


def _is_ours(frames: TracebackType) -> bool:
    return frames.tb_frame.f_code.co_filename.startswith(_OURS)
