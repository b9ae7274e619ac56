"""The end of the workers: each is told to stop, and the word of each that it has is waited for.

After that word a worker sends nothing more, so nothing is left unread when MPI is finished (with which MPICH fails).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Set

from mpi_prs.engine.transport import Transport, Waiter
from mpi_prs.wire import messages
from mpi_prs.wire.messages import Tag

_log = logging.getLogger("mpi_prs.master")

_BYE_SECONDS = 20.0
_SILENT_SECONDS = 2.0
_MISSED = 3  # signs of life
_SAY_SECONDS = 5.0
_WAIT = 0.002


def dismiss(
    transport: Transport,
    exit_code: int,
    *,
    grace: float | None = None,
    dead: Set[int] = frozenset(),
    silent: Set[int] = frozenset(),
    interval: float = 5.0,
    hurried: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Tell every worker to end its user processes and to leave with ``exit_code``.

    Args:
        transport: the master's.
        grace: seconds that ``shutdown()`` may take; ``None``: the user processes are killed.
        dead: ranks that are known to be dead.
        silent: ranks that were lost because nothing was heard of them. They are told as well, for they may only have
            been stopped; but nobody waits long for them, and MPI is then ended without them. One that was stopped while
            it wrote into memory that MPI shares keeps back the words of others, too.
        interval: seconds between two signs of life of a worker.
        hurried: asked often; whether to kill what takes its time.
        clock: seconds, only forward.
    """
    waiting = set(range(1, transport.size)) - dead
    _tell(transport, waiting, exit_code, graceful=grace is not None)
    waiter = Waiter(transport, _WAIT, patient=True)
    began = heard = clock()
    patience = _BYE_SECONDS + (grace or 0.0)
    said = False
    left = ""
    while waiting and not transport.abandoned():
        now = clock()
        waited = now - began
        held_back = bool(waiting & silent) and now - heard > _MISSED * interval
        if waited > (_SILENT_SECONDS if waiting <= silent else patience) or held_back:
            _log.error("workers %s have not confirmed their end", ", ".join(map(str, sorted(waiting))))
            transport.give_up()
            break
        if waited > _SAY_SECONDS and not said:
            said = True
            _log.info("waiting for the user processes of %d workers to end", len(waiting))
        if grace is not None and hurried():
            grace = None
            _tell(transport, waiting, exit_code, graceful=False)
        message = transport.receive()
        if message is None:
            waiting -= set(transport.lost())
            waiter.wait(0.05)
            continue
        heard = now
        if message[1] == Tag.BYE:
            waiting.discard(message[0])
            fields = messages.unpack_json(message[2])
            left = left or fields["left"]
            for remark in fields["remarks"]:
                _log.warning("%s", remark)
    if left:
        _log.warning(
            "the script left files in its working folders, such as %s; they are removed now. Write what is to stay "
            "below context.output_dir, where context is the second argument of run(), or EntryScript().output_dir",
            left,
        )


def farewell(transport: Transport) -> None:
    """Let everybody finish MPI.

    Where nobody is asked to before, none spins in there while the master puts the output together, and none that dies
    meanwhile keeps the others there: a fault-tolerant MPI does not come out of MPI_Finalize then.
    """
    for rank in range(1, transport.size):
        transport.send(rank, Tag.FAREWELL)


def _tell(transport: Transport, ranks: Set[int], exit_code: int, *, graceful: bool) -> None:
    for rank in ranks:
        transport.send(rank, Tag.STOP, messages.pack_json(exit_code=exit_code, graceful=graceful))
