"""What every remote store offers, and what all of them share: one event loop, patience, bounds, safe names.

Everything that talks to a store runs in fsspec's event loop, which is one thread of this process; other threads hand
work in with :func:`submit` and :func:`run`. This process never forks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, TypeVar

from mpi_prs.core.errors import InputError, MpiPrsError
from mpi_prs.core.free_space import FULL
from mpi_prs.core.urls import Glob, Names, is_glob, of_texts, without_dots

if TYPE_CHECKING:
    import asyncio  # below where it is needed: it brings ssl along, and most jobs have no store

T = TypeVar("T")
P = ParamSpec("P")

RANGE = 2 * 2**20
"""Bytes of one ranged request."""
SLOTS = 32
"""Requests to one store that are under way at the same time."""
RANGES_AT_ONCE = 8
"""Of one file."""


@dataclass(frozen=True)
class Patience:
    """How long something is tried again, in seconds.

    Attributes:
        seconds: after the first failure of a request.
        unreachable: the same for a store that has never answered: most likely its name is wrong.
        first, longest: pauses; each is about twice the one before.
    """

    seconds: float = 120
    unreachable: float = 10
    first: float = 0.25
    longest: float = 10


PATIENCE = Patience()


class StoreProblem(Exception):
    """Something cannot be had from a store; the text says why, without secrets, and without the URL."""


class NotThere(StoreProblem):
    """There is nothing of this name."""


class Trouble(NamedTuple):
    """An error of a store's library, judged.

    Attributes:
        problem: for the user.
        transient: whether it may go well the next time.
        reached: whether the store has answered.
        pause: seconds that the store asks to wait; ``None``: it does not say.
    """

    problem: StoreProblem
    transient: bool = False
    reached: bool = True
    pause: float | None = None


class StoredFile(NamedTuple):
    """A file in a store: its size in bytes, and what changes when its content does (empty: the store does not say)."""

    size: int
    version: str


class Listed(NamedTuple):
    """A file of a listing.

    Attributes:
        url: of the file.
        size: in bytes.
        version: changes when the content does; empty: the store does not say.
    """

    url: str
    size: int
    version: str


class Entry(NamedTuple):
    """What a listing of names has.

    Attributes:
        name: its full name in the store; that of a folder ends with a slash.
        size: in bytes; -1: a folder.
        version: as of :class:`Listed`.
    """

    name: str
    size: int
    version: str = ""

    @property
    def is_folder(self) -> bool:
        return self.size < 0


class Lister(Protocol):
    """How a store is listed, which has no folders, only names with slashes in them; both give names in their order."""

    def folder(self, prefix: str) -> Iterator[Entry]:
        """The files and folders whose names begin with ``prefix`` and have no further slash."""

    def below(self, prefix: str) -> Iterator[Entry]:
        """The files whose names begin with ``prefix``, however many slashes follow."""


class Store(Protocol):
    """A remote store. Coroutines run in the loop of :func:`submit`. All may raise StoreProblem."""

    def path_of(self, url: str) -> str:
        """What a URL names, container first."""

    def list(self, url: str, names: Names) -> Iterator[Listed]:
        """See :func:`mpi_prs.storage.remote.list_versions`; for any thread but the loop's."""

    async def look_up(self, url: str) -> StoredFile:
        """Raises NotThere."""

    async def read_into(self, url: str, start: int, target: memoryview, version: str) -> None:
        """Fill ``target`` with the bytes from ``start``; all of them exist."""

    async def fetch(self, url: str, file: int, folder: Path, reserve: Callable[[int], None]) -> int:
        """Write a file's content to a descriptor, after ``reserve(size)``; returns the size."""

    async def put(self, path: Path, url: str) -> None:
        """Store a file; it appears complete or not at all."""

    async def check_put(self, url: str) -> None:
        """Try whether :meth:`put` would be let in; nothing appears."""


# The loop


def submit(work: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs) -> Future[T]:
    """Begin to run ``work(…)`` in the loop."""
    import asyncio

    from fsspec.asyn import get_loop

    async def begin() -> T:
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(_look_at)
        return await work(*arguments, **options)

    return asyncio.run_coroutine_threadsafe(begin(), get_loop())


def _look_at(task: asyncio.Task[Any]) -> None:
    """What fails after its future was cancelled is nobody's any more: without a look, asyncio would print it."""
    if not task.cancelled():
        task.exception()


def run(work: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs) -> T:
    """Run ``work(…)`` in the loop and wait for what it returns."""
    future = submit(work, *arguments, **options)
    try:
        return future.result()
    finally:
        future.cancel()


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do some work for each item, for so many at once; the first failure ends the others and is raised."""
    import asyncio

    rest = iter(items)

    async def serve() -> None:
        for item in rest:
            await work(item)

    tasks = [asyncio.ensure_future(serve()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_http_error(error: Exception) -> bool:
    """Whether the HTTP client of all these libraries, aiohttp, raised it."""
    return any(kind.__module__.startswith("aiohttp.") for kind in type(error).__mro__)


class Requests:
    """The requests to one store: a bound on how many are under way, and patience with those that fail.

    Args:
        judge: what an exception means; ``None``: it is not the store's, but a bug.
    """

    def __init__(self, judge: Callable[[Exception], Trouble | None]) -> None:
        self._judge = judge
        self._reached = False
        self._slots: asyncio.Semaphore | None = None

    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer, tried again as long as there is patience. Raises StoreProblem."""
        import asyncio

        if self._slots is None:  # made inside the loop that it belongs to
            self._slots = asyncio.Semaphore(SLOTS)
        failed_at = 0.0
        tries = 0
        while True:
            try:
                async with self._slots:
                    answer = await request()
                self._reached = True
                return answer
            except (StoreProblem, MpiPrsError):
                raise
            except Exception as error:
                trouble = self._judge(error)
                if trouble is None:
                    raise
            self._reached = self._reached or trouble.reached
            tries += 1
            now = time.monotonic()
            failed_at = failed_at or now
            pause = trouble.pause
            if pause is None:
                # Many ranks are throttled at the same moment; they should not come back at the same moment
                pause = min(PATIENCE.longest, PATIENCE.first * 2 ** min(tries - 1, 16)) * random.uniform(0.5, 1)
            patience = PATIENCE.seconds if self._reached else PATIENCE.unreachable
            if not trouble.transient or now + pause - failed_at > patience:
                if tries == 1:
                    raise trouble.problem from None
                waited = now - failed_at
                raise type(trouble.problem)(f"{trouble.problem}; tried {tries} times in {waited:.0f} s") from None
            await asyncio.sleep(pause)


# Files, and ranges of them


async def write_at(file: int, folder: Path, data: bytes, place: int) -> None:
    """Write to a descriptor, beside the loop where that could take long. Raises InputError."""
    import asyncio

    with disk(folder):
        if len(data) <= 64 * 1024:
            _write_all(file, data, place)
        else:
            await asyncio.to_thread(_write_all, file, data, place)


def _write_all(file: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, place)
        view = view[count:]
        place += count


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Turn an error of the local disk into an InputError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise InputError(
                f"no space is left in the folder {folder} ({error.strerror}): free some; in a job set scratch to a "
                "larger node-local folder, or lower scratch_limit or mini_batch_size"
            ) from None
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}") from None


async def in_ranges(start: int, stop: int, work: Callable[[tuple[int, int]], Awaitable[None]]) -> None:
    """Do some work for each range of a single request that a range of a file is made of, several at once."""
    parts = [(begin, min(begin + RANGE, stop)) for begin in range(start, stop, RANGE)]
    await for_each(parts, work, min(RANGES_AT_ONCE, len(parts)))


# Listing, and names


def listed(
    lister: Lister, path: str, names: Names, url_of: Callable[[str], str], exact: Callable[[str], StoredFile | None]
) -> Iterator[Listed]:
    """What a path names: a file of this very name, all below a folder of this very name, or what it matches as a glob.

    Args:
        exact: the file of a name; ``None``: there is none.
    """
    path = without_dots(path)
    named = path.rstrip("/")
    found = exact(named) if named == path and named else None
    if found is None:
        is_empty = True
        for entry in _matching(lister, path, names):
            is_empty = False
            yield Listed(url_of(entry.name), entry.size, entry.version)
        found = exact(named) if is_empty and named != path and named else None
    if found is not None:
        yield Listed(url_of(named), found.size, found.version)


def _matching(lister: Lister, path: str, names: Names) -> Iterator[Entry]:
    """The files that a folder or a glob stands for, in the order of their names."""
    folder = path.rstrip("/") + "/" if path else ""
    if is_glob(path) and not _has_files(lister, folder):
        glob = Glob(path, of_texts, names)
        return _below(lister, glob.root, glob, 0)
    return _below(lister, folder, Glob("", of_texts, names), 0)


def _has_files(lister: Lister, folder: str) -> bool:
    with contextlib.suppress(StoreProblem):  # such as that of a web server which knows no such name: there is none
        return next(lister.below(folder), None) is not None
    return False


def _below(lister: Lister, folder: str, glob: Glob[str], number: int) -> Iterator[Entry]:
    """What is in a folder for the segments from this one on.

    A pattern is followed folder by folder as long as that saves looking at names; from the first ``**`` on, everything
    below is listed in one sweep and sieved.
    """
    segment = glob.segments[number]
    if segment.any_depth:
        yield from _sieved(lister.below(folder), folder, glob, number)
    elif number == glob.last:
        for entry in lister.folder(folder + segment.lead):
            if not entry.is_folder and segment.matches(entry.name[len(folder) :]):
                yield entry
    elif segment.is_literal:
        yield from _below(lister, f"{folder}{segment.text}/", glob, number + 1)
    else:
        for entry in lister.folder(folder + segment.lead):
            if entry.is_folder and segment.matches(entry.name[len(folder) : -1]):
                yield from _below(lister, entry.name, glob, number + 1)


def _sieved(entries: Iterable[Entry], folder: str, glob: Glob[str], number: int) -> Iterator[Entry]:
    above, states = "", glob.at(number)
    for entry in entries:
        cut = max(entry.name.rfind("/") + 1, len(folder))
        if entry.name[len(folder) : cut] != above:
            above, states = entry.name[len(folder) : cut], glob.at(number)
            for name in above.split("/")[:-1]:
                states = glob.enter(states, name)
        if glob.takes(states, entry.name[cut:]):
            yield entry


def safe_path(name: str) -> str:
    """A name of a store as a relative path: nothing leads upwards, nothing is too long, no two become the same."""
    return "/".join(_safe_name(each) for each in name.split("/"))


def _safe_name(name: str) -> str:
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= 200 and name not in ("", ".", "..") and "\0" not in name:
        return name
    name = name.replace("\0", "")
    stem, dot, extension = name.rpartition(".")
    ending = dot + extension if stem and len(extension) <= 16 else ""
    start = stem.encode("utf-8", "surrogatepass")[:100].decode("utf-8", "ignore")
    return f"{start}~{hashlib.sha256(data).hexdigest()[:20]}{ending}"
