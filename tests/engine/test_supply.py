"""What a worker has to give: in order, loaded ahead within bounds, given back whole; what is answered is let go."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.engine.worker.supply import FromManifest, LoadedAhead, Portion
from mpi_prs.inputs.loading import LoadedMiniBatch
from mpi_prs.inputs.manifest import PLAIN, Manifest, Plan, PlannedMiniBatch, write_manifest
from mpi_prs.wire.work import Chunk
from tests.support.jobs import wait_until


@dataclass
class Loader:
    """Loads mini-batches of 100 bytes, when the test lets it."""

    held_back: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    crashing: set[int] = field(default_factory=set)
    groups: int | None = None
    begun: set[int] = field(default_factory=set)
    loaded: list[int] = field(default_factory=list)
    threads: dict[int, int] = field(default_factory=dict)
    holding: set[int] = field(default_factory=set)
    closed: bool = False
    left: int = 0
    go: threading.Event = field(default_factory=threading.Event)

    def affinity(self, number: int) -> int | None:
        if number in self.broken:
            raise InputError("the manifest is damaged")
        return None if self.groups is None else number // self.groups

    def load(self, number: int) -> LoadedMiniBatch:
        self.begun.add(number)
        if number in self.held_back:
            self.go.wait(30)
        self.threads[number] = threading.get_ident()
        self.loaded.append(number)
        if number in self.broken:
            raise InputError(f"mini-batch {number} is broken")
        if number in self.crashing:
            raise RuntimeError("a library fails")
        self.holding.add(number)
        return LoadedMiniBatch(7, b"payload %d" % number, 100, lambda: self.holding.remove(number))

    def leave(self) -> None:
        self.left += 1

    def close(self) -> None:
        self.closed = True
        self.go.set()


@contextlib.contextmanager
def supply_of(
    loader: Loader, threads: int = 1, most_loaded: int = 100, most_bytes: int = 10**9, processes: int = 1
) -> Iterator[LoadedAhead]:
    supply = LoadedAhead(loader, threads, most_loaded, most_bytes, processes)
    yield supply
    supply.close()
    assert loader.closed
    wait_until(lambda: loader.left == threads)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def supply(loader: Loader) -> Iterator[LoadedAhead]:
    with supply_of(loader) as made:
        yield made


def taken(supply: LoadedAhead) -> Portion:
    """The next portion, when it is loaded."""
    found: list[Portion] = []

    def take() -> bool:
        supply.notice()
        portion = supply.take(1)
        if portion is not None:
            found.append(portion)
        return bool(found)

    wait_until(take)
    return found[0]


def test_mini_batches_come_loaded_and_in_order(supply: LoadedAhead) -> None:
    supply.add(Chunk(3, 2, 1))
    supply.add(Chunk(9, 1, 2))
    portions = [taken(supply) for _ in range(3)]
    assert [(p.chunk.first, p.chunk.count, p.chunk.attempt) for p in portions] == [(3, 1, 1), (4, 1, 1), (9, 1, 2)]
    loaded = portions[0].loaded
    assert loaded is not None
    assert (loaded.first, loaded.count, loaded.items, loaded.sizes) == (3, 1, b"\7\0\0\0", b"\x09\0\0\0")
    assert loaded.payload == b"payload 3"
    assert supply.queued == 0


def test_one_that_cannot_be_loaded_is_told_and_the_others_go_on(loader: Loader, supply: LoadedAhead) -> None:
    loader.broken = {1}
    supply.add(Chunk(0, 3, 1))
    portions = [taken(supply) for _ in range(3)]
    assert [p.loaded is None for p in portions] == [False, True, False]
    assert portions[1].problem == "mini-batch 1 is broken"


def test_what_is_answered_is_released(loader: Loader, supply: LoadedAhead) -> None:
    supply.add(Chunk(0, 2, 1))
    taken(supply)
    taken(supply)
    supply.answered([0, 5])
    assert loader.holding == {1}


def test_what_is_put_back_comes_first_and_is_not_loaded_again(loader: Loader, supply: LoadedAhead) -> None:
    supply.add(Chunk(0, 4, 1))
    for _ in range(3):
        taken(supply)
    supply.put_back([Chunk(1, 2, 1)])
    assert [taken(supply).chunk.first for _ in range(3)] == [1, 2, 3]
    assert loader.loaded == [0, 1, 2, 3]


def test_no_more_is_loaded_than_may_be_and_answers_make_room(loader: Loader) -> None:
    with supply_of(loader, most_loaded=3) as supply:
        supply.add(Chunk(0, 10, 1))
        for _ in range(3):
            taken(supply)
        assert supply._loading == []
        assert loader.loaded == [0, 1, 2]
        supply.answered([0])
        wait_until(lambda: len(loader.loaded) == 4)


def test_whatever_the_bounds_each_process_gets_work_and_the_next_one_is_loaded(loader: Loader) -> None:
    with supply_of(loader, most_loaded=1, most_bytes=1, processes=3) as supply:
        supply.add(Chunk(0, 10, 1))
        for _ in range(4):
            taken(supply)
        assert supply._loading == []
        supply.answered([2])
        wait_until(lambda: len(loader.loaded) == 5)


def test_no_more_bytes_are_loaded_than_may_be(loader: Loader) -> None:
    with supply_of(loader, most_bytes=250) as supply:
        supply.add(Chunk(0, 10, 1))
        taken(supply)
        wait_until(lambda: supply.notice() or len(loader.loaded) == 2)
        supply.notice()
        assert len(loader.holding) == 2


def test_what_is_withdrawn_is_everything_not_handed_over(loader: Loader) -> None:
    loader.held_back = {2}
    with supply_of(loader, most_loaded=3) as supply:
        supply.add(Chunk(0, 5, 1))
        taken(supply)
        wait_until(lambda: supply.notice() or len(loader.loaded) == 2)
        chunks = supply.withdraw()
        assert sorted(number for chunk in chunks for number in chunk) == [1, 2, 3, 4]
        assert supply.queued == 0
        loader.go.set()
        wait_until(lambda: supply.notice() or (len(loader.loaded) == 3 and loader.holding == {0}))
        assert supply.take(1) is None


def test_neighbours_that_share_what_is_decoded_are_loaded_by_one_thread(loader: Loader) -> None:
    loader.groups = 5
    with supply_of(loader, threads=3) as supply:
        supply.add(Chunk(0, 15, 1))
        for _ in range(15):
            taken(supply)
        assert [len({loader.threads[n] for n in range(first, first + 5)}) for first in (0, 5, 10)] == [1, 1, 1]
        assert len(set(loader.threads.values())) == 3


def test_many_wait_for_a_slow_store_at_once(loader: Loader) -> None:
    loader.held_back = set(range(8))
    with supply_of(loader, threads=9) as supply:
        supply.add(Chunk(0, 9, 1))
        assert taken(supply).chunk.first == 8
        loader.go.set()


def test_everything_is_released_at_the_end(loader: Loader) -> None:
    with supply_of(loader) as supply:
        supply.add(Chunk(0, 5, 1))
        taken(supply)
        wait_until(lambda: supply.notice() or len(loader.loaded) == 5)
        supply.notice()
    assert loader.holding == set()


def test_what_fails_after_the_end_is_not_reported(loader: Loader, caplog: pytest.LogCaptureFixture) -> None:
    loader.held_back = {0}
    loader.crashing = {0}
    with supply_of(loader) as supply:
        supply.add(Chunk(0, 1, 1))
        wait_until(lambda: loader.begun)
    assert loader.loaded == [0]
    assert not caplog.records


# From the manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    mini_batches = (PlannedMiniBatch(0, 1, b"/%d" % number) for number in range(10))
    write_manifest(tmp_path / "m", Plan(PLAIN, mini_batches, [{"kind": "files", "staged": False}]))
    return Manifest.open(tmp_path / "m")


def test_a_frame_takes_as_many_as_it_may_of_one_range(manifest: Manifest) -> None:
    supply = FromManifest(manifest)
    supply.add(Chunk(0, 5, 1))
    supply.add(Chunk(7, 1, 2))
    portions = []
    while (portion := supply.take(3)) is not None:
        portions.append(portion)
    assert [(p.chunk.first, p.chunk.count, p.chunk.attempt) for p in portions] == [(0, 3, 1), (3, 2, 1), (7, 1, 2)]
    assert [p.loaded.payload for p in portions if p.loaded] == [b"/0/1/2", b"/3/4", b"/7"]
    assert supply.queued == 0


@pytest.mark.parametrize("loaded", [False, True])
def test_what_has_failed_before_can_be_passed_over(manifest: Manifest, loader: Loader, loaded: bool) -> None:
    with contextlib.nullcontext(FromManifest(manifest)) if not loaded else supply_of(loader) as supply:
        supply.add(Chunk(4, 1, 2))
        supply.add(Chunk(5, 1, 1))
        supply.add(Chunk(6, 1, 3))
        wait_until(lambda: supply.notice() or not loaded or loader.holding == {4, 5, 6})
        supply.notice()
        assert supply.next_attempt() == 2
        portions = [supply.take_first_try(9), supply.take_first_try(9), supply.take(9), supply.take(9), supply.take(9)]
        assert [p and p.chunk.first for p in portions] == [5, None, 4, 6, None]
        assert (supply.next_attempt(), supply.queued) == (0, 0)


def test_one_that_cannot_be_read_fails_alone(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    load = manifest.load

    def broken(first: int, count: int) -> object:
        if first <= 1 < first + count:
            raise OSError("damaged")
        return load(first, count)

    monkeypatch.setattr(manifest, "load", broken)
    supply = FromManifest(manifest)
    supply.add(Chunk(0, 3, 1))
    portions = [supply.take(3) for _ in range(3)]
    assert [(p.chunk.first, p.chunk.count, p.problem) for p in portions if p] == [
        (0, 1, ""),
        (1, 1, "damaged"),
        (2, 1, ""),
    ]


def test_what_is_put_back_or_withdrawn_is_whole(manifest: Manifest) -> None:
    supply = FromManifest(manifest)
    supply.add(Chunk(5, 3, 1))
    supply.put_back([Chunk(0, 2, 1), Chunk(2, 1, 2)])
    assert supply.queued == 6
    chunks = supply.withdraw()
    assert [number for chunk in chunks for number in chunk] == [0, 1, 2, 5, 6, 7]
    assert (supply.queued, supply.take(1)) == (0, None)
