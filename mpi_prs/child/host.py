"""The user process: imports the entry script, calls ``init()`` once and ``run()`` for each mini-batch.

The worker starts this file with the user's interpreter (another one than ours perhaps, without any package of ours), so
it and all it imports are standard library only. ::

    worker ──SETTINGS──► import script, init() ──READY──► worker
           ──WORK──────► for each mini-batch: make it, run(), encode rows ──RESULTS / SPILLED / FAILED──► worker
           ──STOP──────► shutdown(), end

A ParallelRunException may ask for a pause, or for an end like that of STOP; after several failures in a row the process
asks for its end itself.

User code can do anything: print, exit, crash, fork, close descriptors. What guards the protocol against it:

* stdin, stdout and stderr are not the channel; the channel's descriptor is checked before every write.
* what the script finds as its parent is not the worker, but a process of our own that only waits.
* a forked copy of this process that comes back from ``run()`` ends at once.
* what it says about an error is cut to a length that can travel and be read.
* what this process does right now stands in shared memory, where the worker sees it although we hang or die.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # started as a file: our package is found from here, and hidden from the script again
    _no_folder = getattr(sys.flags, "safe_path", False)  # then PYTHONPATH comes first, and not the folder of this file
    sys.path[0 : not _no_folder] = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
elif __name__ == "__mp_main__":  # imported by a process that the script has started by multiprocessing; see the end
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from mpi_prs.child.mini_batch import MiniBatchContext, has_no_rows, import_table_libraries, maker_of
from mpi_prs.child.output_folder import NOWHERE, OutputFolder
from mpi_prs.child.rows.columns import ColumnOrder
from mpi_prs.child.rows.encoding import (
    WrongReturnType,
    as_fields,
    encode_rows,
    header_line,
    is_frame,
    prepare_to_encode,
)
from mpi_prs.child.script import (
    ScriptFunctions,
    argparse_says,
    complete,
    entry_script,
    import_script,
    prepare_interpreter,
    user_traceback,
)
from mpi_prs.child.shims.finder import resolve
from mpi_prs.child.shims.preparation import prepare_imports
from mpi_prs.core.guard import kill_below
from mpi_prs.core.prctl import adopt_orphans, die_with_parent
from mpi_prs.wire.channel import (
    CHANNEL_LOST_EXIT,
    DUMP_SIGNAL,
    FLUSH_SECONDS,
    SPILL_THRESHOLD,
    ChannelLost,
    ChildEnd,
    Frame,
    Kind,
    ProcessPhase,
    Slot,
    parts_of,
)
from mpi_prs.wire.failure import RESTART, SLEEP, STOP, Failure, FailureKind, is_out_of_memory, pack_failures, shorten
from mpi_prs.wire.record import RECORD
from mpi_prs.wire.settings import ProcessSettings

if TYPE_CHECKING:
    from mpi_prs.child.loaders import Loaders, Loading
    from mpi_prs.child.read_ahead import ReadAhead

_LONGEST_MESSAGE = 500
_LONGEST_TRACEBACK = 16_000
_LONGEST_TRACEBACKS = 4_000_000  # of all items of a mini-batch that failed alone
_SHORT_TRACEBACK = 400

_FLUSH_BYTES = 64 << 10


class Host:
    """The life of a user process; one object, one process."""

    def __init__(self, channel: ChildEnd, slot: Slot, settings: ProcessSettings) -> None:
        self._channel = channel
        self._slot = slot
        self._settings = settings
        self._pid = os.getpid()
        self._process = settings.process
        # The number by which the worker knows us; in a container it may be 0, and our own that of the process before
        name = f"{settings.node}-{self._process}-{os.getsid(0)}-{os.urandom(4).hex()}"
        self._spill_prefix = os.path.join(settings.spill, f"{name}-")
        self._mini_batches = maker_of(settings.payloads)
        self._row_form = settings.row_form
        self._column_order = None
        if self._row_form is not None and self._row_form["form"] == "text":
            self._column_order = ColumnOrder(settings.columns, settings.run, self._row_form, _complain)
        self._header_form = self._row_form if self._row_form and self._row_form["header"] else None
        if self._header_form is not None:  # the column names stand once above all rows, not in each mini-batch
            self._row_form = {**self._header_form, "header": False}
        self._header_sent = False
        self._tables = settings.tables
        self._records: list[bytes] = []
        self._rows: list[bytes] = []
        self._row_bytes = 0
        self._flushed = 0.0
        self._spilled = self._folders = 0
        self._asked: Failure | None = None  # by which the script asked for a pause or an end
        self._failures = 0  # since the last success
        self._loaders: Loaders | None = None
        self._source: ChildEnd | ReadAhead = channel

    def start(self) -> ScriptFunctions | None:
        """Import the script and call ``init()``; on failure tell the worker and return ``None``."""
        settings = self._settings
        began = time.monotonic()
        self._slot.write(ProcessPhase.INIT, -1, began)
        prepare_interpreter(settings.entry_script, settings.source_directory, settings.arguments)
        try:
            prepare_imports()
            if settings.tables:
                import_table_libraries()
            prepare_to_encode(self._row_form)
            script = import_script(
                settings.entry_script, loads=settings.loaders > 0, at_once=settings.mini_batches_in_flight
            )
            complete(script.init())
        except BaseException as error:
            self.end_if_forked(error)
            failure = self._failure(FailureKind.INIT, _one_line(error), error, -1, 0, began)
            self._channel.send(Kind.INIT_FAILED, 0, failure.to_json())
            return None
        self.end_if_forked()
        self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())
        self._channel.send(Kind.READY, settings.mini_batches_in_flight if script.is_async else 1)
        return script

    def serve(self, script: ScriptFunctions) -> None:
        """Answer work until the worker says stop or is gone."""
        if script.load is not None:
            settings = self._settings
            self._loaders = resolve("mpi_prs.child.loaders:Loaders")(
                script.load,
                settings.loaders,
                settings.loaders_ahead,
                settings.loaders_memory,
                settings.load_tries,
                self._load_failed,
                self.end_if_forked,
            )
        if script.is_async:
            # Not for the many scripts that are not: asyncio takes as long to import as all that is ours
            resolve("mpi_prs.child.in_flight:InFlight")(self, script, self._channel, self._slot, self._settings).serve()
            return
        if self._loaders is not None:
            self._source = resolve("mpi_prs.child.read_ahead:ReadAhead")(self._channel, self.expect)
        while True:
            frame = self._source.receive()
            if frame is None:  # the worker is gone, and with it whoever would read an answer
                return
            if frame.kind == Kind.STOP:
                self._stop(script)
                return
            self._work(script, frame)
            self.flush()
            if self._asked is not None and not self._do_what_was_asked(script, self._asked):
                return
            self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())

    def _load_failed(self, item: str, error: BaseException) -> bool:
        """Whether to call ``load`` again for an item that it has raised for."""
        if _asked_by(error)[0]:
            return False
        _complain(f"load({item!r}) failed, and is called again: {_one_line(error)}")
        return True

    @property
    def loaders(self) -> Loaders | None:
        """What calls the script's ``load``, if anything does."""
        return self._loaders

    def expect(self, frame: Frame) -> None:
        """Let the items of work that has come be loaded."""
        if frame.kind == Kind.WORK and self._loaders is not None:
            _, _, _, payloads = parts_of(frame)
            for payload in payloads:
                self._loaders.expect(self._mini_batches.paths(payload))

    def discard(self, count: int) -> None:
        """The next mini-batches are not to be run here."""
        if self._loaders is not None:
            self._loaders.discard(count)

    def _work(self, script: ScriptFunctions, frame: Frame) -> None:
        """Run every mini-batch of one frame. About 8 µs a mini-batch, besides ``run()`` and the items."""
        first, attempt, items, payloads = parts_of(frame)
        for index, payload in enumerate(payloads):
            if self._slot.skips:
                self.discard(frame.mini_batches - index)
                self.flush()
                self._channel.send(Kind.SKIPPED, frame.mini_batches - index)
                return
            self._attempt(script, first + index, attempt, items[index], payload)
            if self._asked is not None:  # the worker takes back what has no answer
                self.discard(frame.mini_batches - index - 1)
                return

    def _do_what_was_asked(self, script: ScriptFunctions, asked: Failure) -> bool:
        """Pause or end. Returns whether to go on."""
        self._asked = None
        if asked.code != SLEEP:
            self._stop(script)
            return False
        until = time.monotonic() + asked.pause
        self._slot.write(ProcessPhase.RESTING, -1, until)
        cleared = False
        while not cleared or self._source.wait(until - time.monotonic()):
            frame = self._source.receive()
            if frame is None:
                return False
            if frame.kind == Kind.STOP:
                self._stop(script)
                return False
            if frame.kind == Kind.WORK:
                self.discard(frame.mini_batches)
            cleared |= frame.kind == Kind.CLEAR
        self._channel.send(Kind.READY, 1)
        return True

    def _attempt(self, script: ScriptFunctions, number: int, attempt: int, items: int, payload: memoryview) -> None:
        prepared = started = time.monotonic()
        items_failed: list[Failure] = []
        files = self.output_folder() if script.takes_context else NOWHERE
        slot = self._slot
        slot.write(ProcessPhase.PREPARING, number, prepared)
        try:
            context = MiniBatchContext(number, attempt - 1, files) if script.takes_context else None
            loaded = None
            if self._loaders is not None:
                note = functools.partial(slot.write, ProcessPhase.PREPARING, number)
                loaded = self._loaders.take(note)
                items_failed = self.not_loaded(loaded, number, attempt)
            mini_batch = self._mini_batches.make(payload, context, number)
            if loaded is not None:
                mini_batch = loaded.mini_batch(mini_batch)
            wall = time.time()
            started = time.monotonic()
            slot.write(ProcessPhase.RUNNING, number, started)
            if self._tables and has_no_rows(mini_batch):
                result: Any = []
            else:
                result = script.run(mini_batch) if context is None else script.run(mini_batch, context)
            ended = time.monotonic()
            self.end_if_forked()  # before the slot is written: a forked copy shares it
            slot.write(ProcessPhase.ENCODING, number, ended)
            encoded = self.encode(result, files)
            mini_batch = loaded = result = None
            self._mini_batches.let_go()
        except BaseException as error:  # SystemExit and KeyboardInterrupt are failures of the attempt as well
            failure = self.failed(error, number, attempt, started)
            files.discard()
            self.send_failed(failure)
            if failure.code in (RESTART, STOP, SLEEP):
                self._asked = failure
            return
        self.done(number, items, items_failed, attempt, wall, prepared, started, ended, encoded)

    def output_folder(self) -> OutputFolder:
        """A place for the files of an attempt."""
        self._folders += 1
        return OutputFolder(f"{self._spill_prefix}{self._folders}.files")

    def encode(self, result: Any, files: OutputFolder) -> tuple[int, bytes, str | None]:
        """How many ``run()`` returned, their rows, and the file that these are in if they are large, or if there are
        files, by whose name the master finds these."""
        if self._header_form is not None:
            result = as_fields(result)
        if self._column_order is not None and is_frame(result) and len(result):
            result = self._column_order.arranged(result)
        returned, rows = encode_rows(result, self._row_form)
        if self._header_form is not None and not self._header_sent and is_frame(result) and len(result):
            self._channel.send(Kind.HEADER, 0, header_line(result, self._header_form))
            self._header_sent = True
        if files.keep():
            return returned, rows, self._spill(rows, f"{files.path}.rows")
        return returned, rows, self._spill(rows) if len(rows) > SPILL_THRESHOLD else None

    def failed(self, error: BaseException, number: int, attempt: int, began: float) -> Failure:
        """Count a failed attempt; returns what is to be said of it."""
        self.end_if_forked(error)
        kind = FailureKind.WRONG_TYPE if isinstance(error, WrongReturnType) else FailureKind.EXCEPTION
        failure = self._failure(kind, _one_line(error), error, number, attempt, began)
        self._failures += 1
        if not failure.code and 0 < self._settings.patience <= self._failures:
            failure = replace(failure, code=RESTART)  # it may be this process that fails: a fresh one shall try
        return failure

    def send_failed(self, failure: Failure) -> None:
        """Say that an attempt has failed."""
        self.flush()
        self._channel.send(Kind.FAILED, 1, failure.to_json())

    def not_loaded(self, loaded: Loading, number: int, attempt: int) -> list[Failure]:
        """The items that ``load()`` has raised for.

        Raises:
            BaseException: what it raised, where it did for all of them: that may be the node's fault, and the
                mini-batch is tried again; or where it asks something of the process.
        """
        errors = loaded.errors
        for index in sorted(errors):
            if len(errors) == len(loaded.items) or _asked_by(errors[index])[0] in (RESTART, STOP, SLEEP):
                raise errors[index]
        failures = []
        for index in sorted(errors):
            failure = self._failure(FailureKind.LOAD, _one_line(errors[index]), errors[index], number, attempt, 0.0)
            text = shorten(failure.traceback, max(_SHORT_TRACEBACK, _LONGEST_TRACEBACKS // len(errors)))
            failures.append(replace(failure, code="", seconds=0.0, item=index, items=len(loaded.items), traceback=text))
        return failures

    def done(
        self,
        number: int,
        items: int,
        items_failed: list[Failure],
        attempt: int,
        wall: float,
        prepared: float,
        started: float,
        ended: float,
        encoded: tuple[int, bytes, str | None],
    ) -> None:
        """Answer a mini-batch, now or together with others.

        Args:
            number, attempt: of the mini-batch.
            items: all of them, with those that failed alone.
            items_failed: why these did.
            wall: when ``run()`` was called, by ``time.time()``, and
            prepared, started, ended: when the work began, ``run()`` was called, and returned, by ``time.monotonic()``.
            encoded: its rows, see :meth:`encode`.
        """
        now = time.monotonic()
        self._failures = 0
        self._channel.check()  # now, not at the next flush: by then another mini-batch would have the blame
        if items_failed:
            self._channel.send(Kind.ITEMS_FAILED, len(items_failed), pack_failures(items_failed))
            items -= len(items_failed)
        returned, rows, spilled = encoded
        length = len(rows)
        run, overhead = ended - started, (started - prepared) + (now - ended)
        record = RECORD.pack(number, items, returned, attempt, self._process, length, wall, run, overhead)
        if spilled is not None:
            self.flush()
            self._channel.send(Kind.SPILLED, 1, record, os.fsencode(spilled))
            return
        self._records.append(record)
        self._rows.append(rows)
        self._row_bytes += length
        if now - self._flushed > FLUSH_SECONDS or self._row_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what has been answered so far: one write for many short mini-batches."""
        if self._records:
            self._channel.send(Kind.RESULTS, len(self._records), *self._records, *self._rows)
            self._records.clear()
            self._rows.clear()
            self._row_bytes = 0
        self._flushed = time.monotonic()

    def _spill(self, rows: bytes, path: str = "") -> str:
        """Put large rows into a file of their own, so that they pass neither the worker's memory nor MPI."""
        self._spilled += 1
        path = path or f"{self._spill_prefix}{self._spilled}.rows"
        try:
            with open(path, "wb") as file:
                file.write(rows)
        except OSError:  # no room is left: what was written must not take it up
            os.unlink(path)
            raise
        return path

    def _stop(self, script: ScriptFunctions) -> None:
        with self.shutting_down():
            complete(script.shutdown())

    @contextlib.contextmanager
    def shutting_down(self) -> Iterator[None]:
        """Where ``shutdown()`` is called; what goes wrong with it is for the log."""
        self._slot.write(ProcessPhase.SHUTDOWN, -1, time.monotonic())
        try:
            yield
            self.end_if_forked()
        except BaseException as error:
            self.end_if_forked(error)
            _complain(f"shutdown() failed:\n{user_traceback(error)}")
        self._slot.write(ProcessPhase.EXITING, -1, time.monotonic())

    def _failure(
        self, kind: FailureKind, message: str, error: BaseException, number: int, attempt: int, began: float
    ) -> Failure:
        text = "" if kind is FailureKind.WRONG_TYPE else shorten(user_traceback(error), _LONGEST_TRACEBACK)
        seconds = time.monotonic() - began
        code, pause = _asked_by(error)
        failure = Failure(kind, message, text, number, attempt, self._process, seconds=seconds, code=code, pause=pause)
        return replace(failure, out_of_memory=is_out_of_memory(error))

    def end_if_forked(self, error: BaseException | None = None) -> None:
        """A copy of this process that the script has forked has no business here; what it raised is for the log."""
        if os.getpid() == self._pid:
            return
        if error is not None:
            _complain(f"a process that the script has forked failed:\n{user_traceback(error)}")
        os._exit(0 if error is None else 1)


def _asked_by(error: BaseException) -> tuple[str, float]:
    """The code of a ParallelRunException, and the seconds of its pause. Who raises one has imported the class."""
    module = sys.modules.get("mpi_prs.child.parallel_run")
    if module is None or not isinstance(error, module.ParallelRunException) or error.code is None:
        return "", 0.0
    code = str(error.code)
    return code, float(error.seconds) if code == SLEEP else 0.0


_FROM_A_NOTEBOOK = (
    " (it was pickled where its class stood in a notebook, or in a script that was run: define the class in the entry "
    "script, or import it there; or put it into a module and pickle again)"
)


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        if isinstance(error, SystemExit):
            said = argparse_says(error)
            text = f"the script called sys.exit({error.code!r})" + (f"; argparse says: {said}" if said else "")
        elif isinstance(error, WrongReturnType):
            text = str(error)
        else:
            first = str(error).strip().split("\n", 1)[0]
            text = f"{name}: {first}" if first else name
            if "Can't get attribute" in first and "'__main__'" in first:
                text += _FROM_A_NOTEBOOK
    except Exception:  # an exception of the script's own making, with a faulty __str__ or __repr__
        text = name
    return shorten(text, _LONGEST_MESSAGE)


def _complain(text: str) -> None:
    """To the script's stderr, unless the script has closed it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def _leave_a_parent(*descriptors: int) -> None:
    """Go on in a copy of this process. The one that stays is what the script finds as its parent.

    A script that kills its parent would else kill the worker, and with it the MPI job, again and again, and nobody
    could tell which mini-batch did it. So it costs this process alone. The parent does nothing but wait, and ends as
    the copy has ended, or when the worker does; it shares its memory. A signal to all processes of a job is the copy's
    to answer.

    It also adopts whoever loses its parent below the script: a daemon that has a session and an environment of its own
    is found there (``core/guard.py``), and ends with the script.
    """
    worker, parent = os.getppid(), os.getpid()
    die_with_parent()
    adopt_orphans()
    copy = os.fork()
    if not copy:
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        return
    for number in (*_FOR_THE_COPY, DUMP_SIGNAL):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in descriptors:
        os.close(descriptor)
    signal.signal(_WORKER_IS_DEAD, lambda *_: os.kill(copy, signal.SIGKILL))
    die_with_parent(_WORKER_IS_DEAD)
    if os.getppid() != worker:
        os.kill(copy, signal.SIGKILL)
    status = _end_of(copy)
    signal.signal(_WORKER_IS_DEAD, signal.SIG_IGN)
    kill_below(parent)
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one is enough
        if os.WTERMSIG(status) in (*_FOR_THE_COPY, DUMP_SIGNAL):
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(parent, os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _end_of(copy: int) -> int:
    """How it has ended; meanwhile whoever was adopted and ends is forgotten."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == copy:
            return status


_WORKER_IS_DEAD = signal.SIGALRM
_FOR_THE_COPY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)


def _set_up_logs(level: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    for handler in list(logging.root.handlers):  # basicConfig(force=True) would do, but Python 3.7 has no such thing
        logging.root.removeHandler(handler)
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _step_aside_for_the_script(logging.root.handlers[0])
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)


def _step_aside_for_the_script(ours: logging.Handler) -> None:
    """``logging.basicConfig()`` does nothing once there is a handler: when the script calls it, ours goes first."""
    configure = logging.basicConfig

    @functools.wraps(configure)
    def basic_config(**settings: Any) -> None:
        logging.root.removeHandler(ours)
        configure(**settings)

    logging.basicConfig = basic_config


def main(channel_descriptor: int, slot_descriptor: int) -> None:
    """Serve the worker at the other end of ``channel_descriptor``."""
    for descriptor in (channel_descriptor, slot_descriptor):
        os.set_inheritable(descriptor, False)  # what the script starts must not hold them open
    _leave_a_parent(channel_descriptor, slot_descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's business; restored for the script below
    slot = Slot(slot_descriptor)
    os.close(slot_descriptor)
    channel = ChildEnd(channel_descriptor)
    frame = channel.receive()
    if frame is None:
        return
    settings = ProcessSettings.unpack(bytes(frame.body))
    _set_up_logs(settings.logging_level)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        host = Host(channel, slot, settings)
        script = host.start()
        if script is not None:
            host.serve(script)
        channel.leave_open()
    except ChannelLost as error:
        _complain(f"The channel to the worker is lost: {error}")
        os._exit(CHANNEL_LOST_EXIT)


if __name__ == "__main__":

    def __getattr__(name: str) -> Any:
        """What is pickled as of ``__main__`` is found in the entry script, as when that is run by itself."""
        if name.startswith("__") or entry_script() is None:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        return getattr(entry_script(), name)

    main(int(sys.argv[1]), int(sys.argv[2]))
elif __name__ == "__mp_main__":  # our package stays known, and is hidden again; it imports what the script does
    del sys.path[0]
    prepare_imports()
