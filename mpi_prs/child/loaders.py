"""``load(item)`` of the entry script, called by threads ahead of ``run()``.

::

    the thread that reads the channel ── expect() ──► mini-batches in the order of the work, item by item
                                                          │ load(item), in threads
    run() ◄── take(): waits for what is not loaded yet ◄──┘

Whoever waits is served first and whatever it costs; for those behind it a bound holds of mini-batches, and one of
memory. Standard library only.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from mpi_prs.child.mini_batch import LoadedItems, MiniBatch

_DEEPEST = 3  # containers in containers whose elements are looked at for their size
_MOST_ELEMENTS = 1000  # of one container


class Loading:
    """The items of a mini-batch, on their way.

    Attributes:
        values: what was loaded, or ``None``.
        errors: item → why it was not.
        next: the item that nobody has begun.
        left: how many are not loaded.
        running: item → since when (``time.monotonic()``) a thread is at it.
        is_ahead: whether nobody waits for it yet; else somebody does since ``began``.
        bytes: of what was loaded ahead, as far as known.
    """

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.values: list[Any] = [None] * len(items)
        self.errors: dict[int, BaseException] = {}
        self.next = 0
        self.left = len(items)
        self.running: dict[int, float] = {}
        self.is_ahead = True
        self.began = 0.0
        self.on_change: Callable[[], Any] = lambda: None
        self.bytes = 0

    def mini_batch(self, paths: MiniBatch) -> LoadedItems:
        """What ``run()`` gets, where these are the paths of the items; it is kept here no longer.

        Raises:
            RuntimeError: it was loaded for others. Nobody may get that.
        """
        if self.items != paths:
            raise RuntimeError(f"items of another mini-batch were loaded: {self.items[:1]} in place of {paths[:1]}")
        values, self.values = self.values, []
        kept = [index for index in range(len(values)) if index not in self.errors]
        return LoadedItems([values[index] for index in kept], [paths[index] for index in kept], paths.task_id)

    def since(self) -> float:
        """Since when the oldest item is being loaded that somebody waits for."""
        return max(self.began, min(tuple(self.running.values()), default=time.monotonic()))


class Loaders:
    """The threads, and what they have loaded; ``expect`` may be called in another thread than the rest.

    Args:
        load: the script's function.
        threads: how many, at least 1.
        ahead: mini-batches that may be loaded before somebody waits for them.
        memory: bytes that these may take, as far as is known how large what ``load`` returns is.
        tries: how often ``load`` is called for an item that it raises for.
        again: told of what it raised, and before another try whether there is to be one.
        forked: called after each ``load`` with what it raised: a copy of the process has no business here.
    """

    def __init__(
        self,
        load: Callable[[str], Any],
        threads: int,
        ahead: int,
        memory: int,
        tries: int,
        again: Callable[[str, BaseException], bool],
        forked: Callable[[BaseException | None], None],
    ) -> None:
        self._load = load
        self._ahead = ahead
        self._memory = memory
        self._tries = tries
        self._again = again
        self._forked = forked
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # there may be an item to begin with
        self._changed = threading.Condition(self._lock)  # an item is being loaded, or is loaded, that is waited for
        self._batches: deque[Loading] = deque()  # that nobody waits for yet, in the order of the work
        self._wanted: list[Loading] = []
        self._held = 0  # bytes of what nobody waits for yet
        self._running = 0
        self._loaded = self._loaded_bytes = 0  # items, and their bytes, so far
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"load{number}", daemon=True).start()

    def expect(self, items: list[str]) -> None:
        """Another mini-batch waits at this process."""
        with self._lock:
            self._batches.append(Loading(items))
            self._work.notify_all()

    def discard(self, count: int) -> None:
        """The next ``count`` mini-batches are not to be run here."""
        with self._lock:
            for _ in range(count):
                batch = self._batches.popleft()
                self._held -= batch.bytes
                batch.is_ahead = False
                batch.next = len(batch.items)  # nobody begins with more of it
            self._work.notify_all()

    def take(self, note: Callable[[float], Any]) -> Loading:
        """What was loaded of the next mini-batch.

        Args:
            note: told, again and again, since when the oldest item is being loaded that this waits for.
        """
        claimed = self.claim(lambda: None)
        with self._lock:
            while claimed.left:
                note(claimed.since())
                self._changed.wait()
        return claimed

    def claim(self, on_change: Callable[[], Any]) -> Loading:
        """The next mini-batch, which somebody waits for from now on.

        Args:
            on_change: called, in a thread, when an item of it is begun with or loaded.
        """
        with self._lock:
            batch = self._batches.popleft()
            self._held -= batch.bytes
            batch.is_ahead, batch.began, batch.on_change = False, time.monotonic(), on_change
            if batch.left:
                self._wanted.append(batch)
            self._work.notify_all()
            return batch

    def _serve(self) -> None:
        while True:
            with self._lock:
                batch = self._due()
                while batch is None:
                    self._work.wait()
                    batch = self._due()
                index = batch.next
                batch.next += 1
                batch.running[index] = time.monotonic()
                self._running += 1
                self._tell(batch)
            value, error = self._call(batch.items[index])
            size = 0 if value is None else size_of(value)
            with self._lock:
                self._running -= 1
                del batch.running[index]
                batch.left -= 1
                batch.values[index] = value
                if error is not None:
                    batch.errors[index] = error
                else:
                    self._loaded += 1
                    self._loaded_bytes += size
                    if batch.is_ahead:
                        batch.bytes += size
                        self._held += size
                if not batch.left and batch in self._wanted:
                    self._wanted.remove(batch)
                self._tell(batch)
            batch = value = error = None  # not kept while this thread waits

    def _call(self, item: str) -> tuple[Any, BaseException | None]:
        """What ``load`` returns for an item, or what it raises at its last try."""
        for left in reversed(range(self._tries)):
            try:
                value = self._load(item)
                self._forked(None)
                return value, None
            except BaseException as raised:  # SystemExit as well fails the item alone
                error = raised
            self._forked(error)
            if not left or not self._again(item, error):
                break
        return None, error

    def _tell(self, batch: Loading) -> None:
        if not batch.is_ahead:
            self._changed.notify_all()
            batch.on_change()

    def _due(self) -> Loading | None:
        """The mini-batch whose next item is to be loaded now."""
        for batch in self._wanted:
            if batch.next < len(batch.items):
                return batch
        for batch in islice(self._batches, self._ahead):
            if batch.next < len(batch.items):
                return batch if self._has_room() else None
        return None

    def _has_room(self) -> bool:
        each = self._loaded_bytes / self._loaded if self._loaded else 0.0
        return self._held + (self._running + 1) * each <= self._memory


def size_of(value: Any, depth: int = _DEEPEST) -> int:
    """About how many bytes of memory a value takes, as far as it tells; it never raises."""
    try:
        for name in ("nbytes", "memory_usage"):  # numpy, Arrow, torch, a Series; a DataFrame
            found = getattr(value, name, None)
            if callable(found):
                found = found()
                found = int(found.sum()) if hasattr(found, "sum") else found
            if isinstance(found, int):
                return found
        if hasattr(value, "getbands"):  # a picture of Pillow's
            return int(value.width * value.height * len(value.getbands()))
        if isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        size = sys.getsizeof(value)
        if depth and isinstance(value, (list, tuple, set)) and value:
            some = [size_of(each, depth - 1) for each in islice(value, _MOST_ELEMENTS)]
            size += sum(some) * len(value) // len(some)
        return size
    except Exception:  # an object of the script's own making
        return 0
