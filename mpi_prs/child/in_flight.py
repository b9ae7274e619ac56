"""``async def run(mini_batch)``: several mini-batches at once in one event loop.

::

    thread that reads the channel ──► waiting ──► a lane each: make it, run(), encode rows ──► answers, as they come

A mini-batch has a lane of the slot while it runs, so the worker sees how long each takes. The slot itself says what
holds the loop right now: code of a mini-batch that does not ``await`` stops all others, and whoever ends that must
know whose it is. Each task that runs for a mini-batch notes it at each of its steps, those that it starts as well.

Standard library only; imported only for a script whose ``run`` is ``async``.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import contextvars
import sys
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mpi_prs.child.mini_batch import MiniBatchContext, has_no_rows, maker_of
from mpi_prs.child.output_folder import NOWHERE
from mpi_prs.child.read_ahead import ReadAhead
from mpi_prs.child.script import ScriptFunctions, complete_here, event_loop
from mpi_prs.wire.channel import FLUSH_SECONDS, ChildEnd, Frame, Kind, Lane, ProcessPhase, Slot, parts_of
from mpi_prs.wire.failure import RESTART, SLEEP, STOP, Failure, FailureKind, ran_too_long
from mpi_prs.wire.settings import ProcessSettings

if TYPE_CHECKING:
    from mpi_prs.child.host import Host
    from mpi_prs.child.loaders import Loading

_running: contextvars.ContextVar[int] = contextvars.ContextVar("mini_batch")
"""The mini-batch that a task works for; a task that it starts inherits it."""

_ASKS = (SLEEP, RESTART, STOP)  # the least first


class RunTimeout(Exception):
    """``run()`` was cancelled, since it took too long."""


class Claim(NamedTuple):
    """What is being loaded for a mini-batch, and an event that is set when that changes."""

    loading: Loading
    changed: asyncio.Event


class InFlight:
    """Serves the worker until that says stop or is gone."""

    def __init__(
        self, host: Host, script: ScriptFunctions, channel: ChildEnd, slot: Slot, settings: ProcessSettings
    ) -> None:
        self._host = host
        self._script = script
        self._channel = channel
        self._slot = slot
        self._settings = settings
        self._loop = event_loop()
        self._loop.set_task_factory(self._make_task)
        self._source = ReadAhead(channel, host.expect, self._wake)
        self._waiting: deque[tuple[int, int, int, memoryview]] = deque()  # mini-batch, attempt, items, payload
        self._lanes = slot.lanes[: settings.mini_batches_in_flight]
        self._free = list(reversed(self._lanes))
        self._attempts: set[asyncio.Task[None]] = set()
        self._makers = {id(lane): maker_of(settings.payloads) for lane in self._lanes}
        self._flush_due = False
        self._asked: Failure | None = None  # by which the script asked for a pause or an end
        self._rests = False  # until then what comes is for others
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def serve(self) -> None:
        """Until the worker says stop or is gone.

        Raises:
            ChannelLost: the script closed our end, or has read from it.
        """
        while not self._ended.done():
            try:
                self._loop.run_until_complete(self._ended)
            except (SystemExit, KeyboardInterrupt) as error:  # of a task of the script's own; what waits for it knows
                if self._ended.done():
                    raise
                self._host.end_if_forked(error)
                print(f"a task of the script has ended with {error!r}", file=sys.stderr, flush=True)
        self._ended.result()

    # The worker

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._receive)

    def _receive(self) -> None:
        try:
            while not self._ended.done() and self._source.wait(0):
                self._take(self._source.receive())
        except BaseException as error:
            self._end(error)

    def _take(self, frame: Frame | None) -> None:
        if frame is None or frame.kind == Kind.STOP:
            if frame is not None:
                self._loop.create_task(self._stop())
            else:
                self._end()
        elif frame.kind == Kind.CLEAR:
            self._rests = False
        elif frame.kind == Kind.WORK:
            first, attempt, items, payloads = parts_of(frame)
            if self._rests or self._asked is not None:  # the worker takes back what has no answer
                self._host.discard(frame.mini_batches)
                return
            for index, payload in enumerate(payloads):
                self._waiting.append((first + index, attempt, items[index], payload))
            self._begin_more()

    def _end(self, error: BaseException | None = None) -> None:
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)

    async def _stop(self) -> None:
        with self._host.shutting_down():
            await complete_here(self._script.shutdown())
        self._end()

    # The mini-batches

    def _begin_more(self) -> None:
        if self._slot.skips and self._waiting:
            count = len(self._waiting)
            self._waiting.clear()
            self._host.discard(count)
            self._host.flush()
            self._channel.send(Kind.SKIPPED, count)
        while self._waiting and self._free and self._asked is None:
            lane = self._free.pop()
            work = self._waiting.popleft()
            lane.write(ProcessPhase.PREPARING, work[0], time.monotonic())
            loading = self._claim()  # now: what is discarded later is what comes behind it
            task = self._loop.create_task(self._attempt(lane, loading, *work))
            self._attempts.add(task)  # the loop does not keep it from being collected
            task.add_done_callback(self._attempts.discard)

    async def _attempt(
        self, lane: Lane, loading: Claim | None, number: int, attempt: int, items: int, payload: memoryview
    ) -> None:
        try:
            failure = await self._try(lane, loading, number, attempt, items, payload)
            lane.write(ProcessPhase.IDLE, -1, time.monotonic())
            self._free.append(lane)
            if failure is not None:
                self._tell(failure)
            if self._asked is None:
                self._begin_more()
            elif len(self._free) == len(self._lanes):
                await self._do_what_was_asked(self._asked)
        except BaseException as error:  # the channel is lost
            self._end(error)

    def _tell(self, failure: Failure) -> None:
        """Tell a failure; that which asks for a pause or an end when the others have ended, and of several the one that
        asks for the most: after it the worker takes back what has no answer."""
        if failure.code not in _ASKS:
            self._host.send_failed(failure)
        elif self._asked is None:
            self._asked = failure
            self._host.discard(len(self._waiting))
            self._waiting.clear()
        else:
            asked = sorted((self._asked, failure), key=lambda each: (_ASKS.index(each.code), each.pause))
            less, self._asked = asked
            self._host.send_failed(replace(less, code="", pause=0.0))

    async def _try(
        self, lane: Lane, loading: Claim | None, number: int, attempt: int, items: int, payload: memoryview
    ) -> Failure | None:
        host, script, settings = self._host, self._script, self._settings
        prepared = started = time.monotonic()
        items_failed: list[Failure] = []
        files = host.output_folder() if script.takes_context else NOWHERE
        try:
            context = MiniBatchContext(number, attempt - 1, files) if script.takes_context else None
            loaded = None
            if loading is not None:
                loaded = await self._load(loading, lane, number)
                items_failed = host.not_loaded(loaded, number, attempt)
            maker = self._makers[id(lane)]
            self._slot.write(ProcessPhase.PREPARING, number, time.monotonic())
            mini_batch = maker.make(payload, context, number)
            self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())
            if loaded is not None:
                mini_batch = loaded.mini_batch(mini_batch)
            wall = time.time()
            started = time.monotonic()
            lane.write(ProcessPhase.RUNNING, number, started)
            if settings.tables and has_no_rows(mini_batch):
                result: Any = []
            else:
                arguments = (mini_batch,) if context is None else (mini_batch, context)
                result = await self._run(number, *arguments)
            ended = time.monotonic()
            host.end_if_forked()
            self._slot.write(ProcessPhase.ENCODING, number, ended)
            encoded = host.encode(result, files)
            mini_batch = loaded = result = arguments = None  # type: ignore[assignment]
            maker.let_go()
        except RunTimeout as timeout:
            failure = host.failed(timeout.__cause__ or timeout, number, attempt, started)
            files.discard()
            return replace(failure, kind=FailureKind.TIMEOUT, message=str(timeout))
        except BaseException as error:
            failure = host.failed(error, number, attempt, started)
            files.discard()
            return failure
        finally:
            self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())
        host.done(number, items, items_failed, attempt, wall, prepared, started, ended, encoded)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_later(FLUSH_SECONDS, self._flush)
        return None

    def _flush(self) -> None:
        self._flush_due = False
        try:
            self._host.flush()
        except BaseException as error:
            self._end(error)

    def _claim(self) -> Claim | None:
        """The next mini-batch of the loaders, if there are any."""
        if self._host.loaders is None:
            return None
        changed = asyncio.Event()
        return Claim(self._host.loaders.claim(lambda: self._loop.call_soon_threadsafe(changed.set)), changed)

    async def _load(self, claim: Claim, lane: Lane, number: int) -> Loading:
        """What ``load()`` returned; the worker sees how long an item takes."""
        while claim.loading.left:
            lane.write(ProcessPhase.PREPARING, number, claim.loading.since())
            await claim.changed.wait()
            claim.changed.clear()
        return claim.loading

    async def _run(self, number: int, *arguments: Any) -> Any:
        """What the script's ``run`` returns.

        Raises:
            RunTimeout: it took too long, and has ended when it was cancelled.
        """
        limit = self._settings.run_invocation_timeout
        context = contextvars.copy_context()
        context.run(_running.set, number)
        ends: list[BaseException] = []

        async def followed() -> Any:
            try:
                return await self._script.run(*arguments)
            except BaseException as error:
                ends.append(error)  # of a task that is cancelled it would not be known where it was
                raise

        task = context.run(self._loop.create_task, followed())
        done, _ = await asyncio.wait({task}, timeout=limit)
        if done:
            return task.result()
        task.cancel()
        await asyncio.wait({task})  # for as long as the worker allows
        if not task.cancelled():
            task.exception()  # else the loop complains that nobody has asked for it
        raise RunTimeout(ran_too_long(limit)) from (ends[0] if ends else None)

    async def _do_what_was_asked(self, asked: Failure) -> None:
        """Pause or end: nothing is in flight now."""
        self._rests = asked.code == SLEEP
        self._host.send_failed(asked)
        if asked.code != SLEEP:
            await self._stop()
            return
        until = time.monotonic() + asked.pause
        self._slot.write(ProcessPhase.RESTING, -1, until)
        while self._rests or time.monotonic() < until:
            await asyncio.sleep(max(0.001, until - time.monotonic()))
        self._asked = None
        self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())
        self._channel.send(Kind.READY, len(self._lanes))

    def _make_task(self, loop: Any, coroutine: Any, **more: Any) -> Any:
        number = _running.get(-1)
        if number >= 0 and asyncio.iscoroutine(coroutine):
            coroutine = _Noted(coroutine, number, self._slot)
        return asyncio.Task(coroutine, loop=loop, **more)


class _Noted(collections.abc.Coroutine):  # type: ignore[type-arg]  # Python 3.7
    """A coroutine that shows for whom it holds the loop. To whoever asks for more it is the coroutine itself."""

    def __init__(self, coroutine: Any, number: int, slot: Slot) -> None:
        self._coroutine = coroutine
        self._number = number
        self._slot = slot

    def send(self, value: Any) -> Any:
        self._slot.write(ProcessPhase.RUNNING, self._number, time.monotonic())
        try:
            return self._coroutine.send(value)
        finally:
            self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())

    def throw(self, *error: Any) -> Any:
        self._slot.write(ProcessPhase.RUNNING, self._number, time.monotonic())
        try:
            return self._coroutine.throw(*error)
        finally:
            self._slot.write(ProcessPhase.IDLE, -1, time.monotonic())

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)
