"""Rank 0 asks every rank what it sees, and times the way there and back.

::

    rank k ──HELLO──► rank 0 ──LOOK──► rank k ──FOUND──► rank 0, then PING ⇄ PONG some times, then END

A rank that does not answer is named, with what it did last; nobody waits for it for ever.
"""

from __future__ import annotations

import enum
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import EXIT_FAILED
from mpi_prs.doctor.findings import Journey, Launch, RankFindings, Survey
from mpi_prs.doctor.look import Note, look_at_rank, seconds_since_start, shared_note
from mpi_prs.engine.node import node_name
from mpi_prs.engine.transport import MASTER, Transport, Waiter

_PINGS = 30
_PONG_SECONDS = 5.0
_WAIT = 0.01
_SPIN_SECONDS = 0.003  # while messages are timed: a sleep would be what is measured
_CLOCK = struct.Struct("<d")


class ProbeTag(enum.IntEnum):
    """The kind of a message; it is the MPI tag as well."""

    HELLO = 1
    """The node's name."""
    LOOK = 2
    """JSON: the note in the shared folder, and whether to look for the whole node."""
    FOUND = 3
    """JSON: a :class:`RankFindings`."""
    PING = 4
    """Empty."""
    PONG = 5
    """The rank's clock."""
    END = 6
    """JSON: the exit code to leave with."""


def answer(transport: Transport) -> int:
    """The life of every rank but the first; returns the exit code that rank 0 told."""
    transport.send(MASTER, ProbeTag.HELLO, node_name().encode())
    waiter = Waiter(transport, _WAIT)
    spin_until = 0.0
    while not transport.abandoned() and MASTER not in transport.lost():
        message = transport.receive()
        if message is None:
            if time.monotonic() > spin_until:
                waiter.wait(1.0)
            continue
        waiter.reset()
        _source, tag, body = message
        if tag == ProbeTag.LOOK:
            fields = json.loads(body)
            asked = fields["note"]
            note = Note(Path(asked["path"]), asked["token"], asked["problem"])
            found = look_at_rank(transport.rank, HERE, note, for_node=fields["for_node"])
            transport.send(MASTER, ProbeTag.FOUND, found.to_json())
        elif tag == ProbeTag.PING:
            transport.send(MASTER, ProbeTag.PONG, _CLOCK.pack(time.time()))
            spin_until = time.monotonic() + _SPIN_SECONDS
        elif tag == ProbeTag.END:
            exit_code: int = json.loads(body)["exit_code"]
            return exit_code
    return EXIT_FAILED


def survey_alone(launch: Launch, shared: Path, launch_problem: str) -> Survey:
    """What this process finds by itself, where there is nobody to ask."""
    with shared_note(shared) as note:
        here = look_at_rank(MASTER, HERE, note, for_node=True)
    return Survey(launch, launch_problem, str(shared), note.problem, 1, (here,), {}, {}, 0.0, 0.0)


def survey_all(transport: Transport, launch: Launch, shared: Path, spent: float = 0.0, seconds: float = 60.0) -> Survey:
    """Ask all ranks, as rank 0.

    Args:
        transport: rank 0's view.
        launch: what is known of the start.
        shared: the folder that all nodes should see.
        spent: seconds since this process began that a job would not have spent.
        seconds: how long a rank may take to report, and again to look around.
    """
    ranks = set(range(1, transport.size))
    first = last = seconds_since_start() - spent
    nodes: dict[int, str] = {}
    for rank, body in _collect(transport, ProbeTag.HELLO, ranks, seconds):
        last = seconds_since_start() - spent
        first = first if nodes else last
        nodes[rank] = body.decode(errors="replace")
    with shared_note(shared) as note:
        asked = {node_name()}
        for rank, node in sorted(nodes.items()):
            request = {"path": str(note.path), "token": note.token, "problem": note.problem}
            transport.send(rank, ProbeTag.LOOK, json.dumps({"note": request, "for_node": node not in asked}).encode())
            asked.add(node)
        here = look_at_rank(MASTER, HERE, note, for_node=True)
        answers = _collect(transport, ProbeTag.FOUND, set(nodes), seconds)
        found = {rank: RankFindings.from_json(body) for rank, body in answers}
    timed = {found[rank].node: rank for rank in sorted(found, reverse=True)}.values()  # the first one of each node
    journeys = {rank: journey for rank in timed if (journey := _travel(transport, rank)) is not None}
    silent = dict.fromkeys(ranks - set(nodes), f"has not reported within {seconds:.0f} s")
    for rank in set(nodes) - set(found):
        silent[rank] = f"on {nodes[rank]} has reported, but not looked around within {seconds:.0f} s"
    for rank in set(timed) - set(journeys):
        silent[rank] = f"on {nodes[rank]} has stopped answering"
    everything = (here, *(found[rank] for rank in sorted(found)))
    return Survey(launch, "", str(shared), note.problem, transport.size, everything, silent, journeys, first, last)


def dismiss(transport: Transport, survey: Survey, exit_code: int) -> None:
    """Let all ranks leave with ``exit_code``, and finish MPI; without those that do not answer."""
    for rank in range(1, transport.size):
        transport.send(rank, ProbeTag.END, json.dumps({"exit_code": exit_code}).encode())
    if survey.silent:
        transport.give_up()
    transport.close(exit_code)


def _collect(
    transport: Transport, tag: ProbeTag, ranks: set[int], seconds: float, spin_seconds: float = 0.0
) -> Iterator[tuple[int, bytes]]:
    """One message of this kind of each rank, as they come, as far as they come in time."""
    waiting = set(ranks)
    waiter = Waiter(transport, _WAIT)
    deadline = time.monotonic() + seconds
    spin_until = time.monotonic() + spin_seconds
    while waiting and time.monotonic() < deadline:
        message = transport.receive()
        if message is None:
            waiting -= set(transport.lost())
            if time.monotonic() > spin_until:
                waiter.wait(0.1)
        elif message[1] == tag and message[0] in waiting:
            waiter.reset()
            waiting.discard(message[0])
            yield message[0], message[2]


def _travel(transport: Transport, rank: int) -> Journey | None:
    """Some messages there and back; the quickest one counts. ``None``: it does not answer."""
    best: Journey | None = None
    for _ in range(_PINGS):
        sent, sent_clock = time.perf_counter(), time.time()
        transport.send(rank, ProbeTag.PING)
        for _, body in _collect(transport, ProbeTag.PONG, {rank}, _PONG_SECONDS, _SPIN_SECONDS):
            took = time.perf_counter() - sent
            if best is None or took < best.round_trip:
                best = Journey(took, _CLOCK.unpack(body)[0] - sent_clock - took / 2)
            break
        else:
            return None
    return best
