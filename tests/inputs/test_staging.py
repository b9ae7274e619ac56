"""Files on their way through node-local scratch: many mini-batches at once, in bounded space, and gone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.near import staging as staging_module
from mpi_prs.inputs.near.scratch_folder import scratch_folder
from mpi_prs.inputs.near.staging import Staging, place_files
from mpi_prs.storage import stores
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.stores import Patience
from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.jobs import wait_until

T = TypeVar("T")


def content_of(number: int) -> bytes:
    return b"%06d" % number * 100


@pytest.fixture(scope="module")
def items(azurite: Azurite) -> list[str]:
    """40 blobs of 600 bytes."""
    azurite.container("items", {f"in/{number:02d}.png": content_of(number) for number in range(40)})
    return [f"abfs://items/in/{number:02d}.png" for number in range(40)]


@pytest.fixture
def proxy(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=10, first=0.01, longest=0.1))
    with fault_proxy(azurite.port) as proxy:
        yield proxy


def files_in(folder: Path) -> list[Path]:
    # os.walk passes over folders that vanish meanwhile
    return [Path(above, name) for above, _, names in os.walk(folder) for name in names]


def in_thread(work: Callable[[], T]) -> Callable[[], T]:
    """Start some work; what comes back waits for its result."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return lambda: future.result(timeout=30)


def test_the_files_of_a_mini_batch_come_by_name_and_go(azurite: Azurite, items: list[str], tmp_path: Path) -> None:
    staging = Staging(tmp_path / "scratch", azurite.storage(), 10_000)
    staged = staging.stage(7, items[3:6])
    assert staged.paths == [str(tmp_path / f"scratch/7/items/in/{number:02d}.png") for number in (3, 4, 5)]
    assert [Path(path).read_bytes() for path in staged.paths] == [content_of(number) for number in (3, 4, 5)]
    assert staged.bytes == 1800
    staged.release()
    staged.release()
    wait_until(lambda: not files_in(tmp_path))
    staging.close()
    assert not (tmp_path / "scratch").exists()


def test_a_file_that_is_listed_twice_comes_once(
    azurite: Azurite, proxy: FaultProxy, items: list[str], tmp_path: Path
) -> None:
    staging = Staging(tmp_path, azurite.storage(proxy.port), 10_000)
    staged = staging.stage(0, [items[1], items[0], items[1]])
    assert staged.paths[0] == staged.paths[2] != staged.paths[1]
    assert staged.bytes == 1200
    assert proxy.count("GET") == 2


def test_a_mini_batch_that_comes_again_does_not_meet_its_former_self(
    azurite: Azurite, items: list[str], tmp_path: Path
) -> None:
    staging = Staging(tmp_path, azurite.storage(), 10_000)
    first, second = staging.stage(0, items[:1]), staging.stage(0, items[:1])
    first.release()
    wait_until(lambda: len(files_in(tmp_path)) == 1)
    assert Path(second.paths[0]).read_bytes() == content_of(0)


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (["abfs://c/a", "abfs://c/a/b"], ["c/a", "1~/c/a/b"]),
        (["abfs://c/a/b", "abfs://c/a"], ["c/a/b", "1~/c/a"]),
        (["abfss://c@one.dfs.core.windows.net/x", "abfss://c@two.dfs.core.windows.net/x"], ["c/x", "1~/c/x"]),
        (["/data/x", "/data/y"], ["data/x", "data/y"]),
    ],
)
def test_no_two_files_of_a_mini_batch_share_a_place(urls: list[str], expected: list[str]) -> None:
    storage = Storage(account_name="name", account_key="a2V5")
    assert list(place_files(urls, storage).values()) == expected


def test_local_files_are_brought_to_scratch_too(tmp_path: Path) -> None:
    sources = []
    for number in range(3):
        sources.append(tmp_path / f"shared/{number}.bin")
        sources[-1].parent.mkdir(exist_ok=True)
        sources[-1].write_bytes(os.urandom(1000 * number))
    staging = Staging(tmp_path / "scratch", Storage(), 10_000)
    staged = staging.stage(2, list(map(str, sources)))
    assert [Path(path).read_bytes() for path in staged.paths] == [source.read_bytes() for source in sources]
    assert staged.paths[0] == f"{tmp_path}/scratch/2{sources[0]}"
    assert staged.bytes == 3000
    with pytest.raises(InputError, match=f"cannot read {tmp_path}/shared/no: No such file"):
        staging.stage(3, [f"{tmp_path}/shared/no"])
    assert not (tmp_path / "scratch/3").exists()


def test_the_space_is_bounded_whatever_comes_at_once(azurite: Azurite, items: list[str], tmp_path: Path) -> None:
    scratch, limit = tmp_path / "scratch", 5_000
    staging = Staging(scratch, azurite.storage(), limit)
    most = 0
    watching = threading.Event()

    def watch() -> None:
        nonlocal most
        while not watching.is_set():
            size = 0
            for path in files_in(scratch):
                with contextlib.suppress(FileNotFoundError):
                    size += path.stat().st_size
            most = max(most, size)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def one(number: int) -> bool:
        chosen = random.Random(number).sample(range(40), 1 + number % 6)
        staged = staging.stage(number, [items[each] for each in chosen])
        right = [Path(path).read_bytes() for path in staged.paths] == [content_of(each) for each in chosen]
        staged.release()
        return right

    try:
        with ThreadPoolExecutor(32) as pool:
            assert all(pool.map(one, range(150)))
    finally:
        watching.set()
        watcher.join()
    assert 0 < most <= limit
    wait_until(lambda: not files_in(scratch))


def test_what_does_not_fit_waits_for_what_is_released(azurite: Azurite, items: list[str], tmp_path: Path) -> None:
    staging = Staging(tmp_path, azurite.storage(), 3_000)
    held = staging.stage(0, items[:4])
    waiting = in_thread(lambda: staging.stage(1, items[4:8]))
    wait_until(lambda: len(staging._space._queue) == 1)
    assert len(files_in(tmp_path)) == 4  # what had begun to come has given its space back
    held.release()
    assert [Path(path).read_bytes() for path in waiting().paths] == [content_of(number) for number in range(4, 8)]


def test_a_mini_batch_larger_than_the_limit_comes_alone(
    azurite: Azurite, items: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    staging = Staging(tmp_path, azurite.storage(), 1_000)
    small = staging.stage(0, items[:1])
    with caplog.at_level(logging.WARNING, "mpi_prs.loading"):
        large = in_thread(lambda: staging.stage(1, items[:10]))
        wait_until(lambda: len(staging._space._queue) == 1)
        small.release()
        assert large().bytes == 6000
    assert "mini-batch 1 has 6000 bytes, more than scratch_limit (1000)" in caplog.text


def test_a_mini_batch_larger_than_the_disk_is_refused(
    azurite: Azurite, items: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = staging_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(staging_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    staging = Staging(tmp_path, azurite.storage(), 1_000)
    with pytest.raises(InputError, match=rf"mini-batch 4 has 6,000 bytes, and the scratch folder {tmp_path} has 1,000"):
        staging.stage(4, items[:10])
    assert not files_in(tmp_path)


def test_a_failed_mini_batch_leaves_nothing_and_takes_no_space(
    azurite: Azurite, items: list[str], tmp_path: Path
) -> None:
    staging = Staging(tmp_path, azurite.storage(), 3_000)
    for number in range(20):
        with pytest.raises(InputError, match="cannot read abfs://items/no: it does not exist"):
            staging.stage(number, [*items[:4], "abfs://items/no"])
    assert not files_in(tmp_path)
    assert staging.stage(20, items[:5]).bytes == 3000


def test_closing_ends_what_is_under_way(azurite: Azurite, proxy: FaultProxy, items: list[str], tmp_path: Path) -> None:
    staging = Staging(tmp_path / "scratch", azurite.storage(proxy.port), 3_000)
    staging.stage(0, items[:4])
    proxy.delay = 60
    under_way = in_thread(lambda: staging.stage(1, items[4:5]))
    waiting = in_thread(lambda: staging._space.wait_for(3_000))
    wait_until(lambda: proxy.count("GET") == 5 and staging._space._queue)
    staging.close()
    for each in (under_way, waiting, lambda: staging.stage(2, items)):
        with pytest.raises(InputError, match="since the job is ending"):
            each()
    assert proxy.under_way == 1  # nobody waited for its answer
    wait_until(lambda: not (tmp_path / "scratch").exists())


def test_files_come_at_once_and_mini_batches_too(
    azurite: Azurite, proxy: FaultProxy, items: list[str], tmp_path: Path
) -> None:
    staging = Staging(tmp_path, azurite.storage(proxy.port), 10**6)
    staging.stage(99, items[:1])
    proxy.hold_until = 24
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: staging.stage(number, items[number * 8 : number * 8 + 8]), range(4)))
    assert proxy.most_at_once >= 24


# The scratch folder


def test_the_scratch_folder_is_the_one_that_the_node_names(tmp_path: Path) -> None:
    for name in ("slurm", "tmp"):
        (tmp_path / name).mkdir()
    both = {"SLURM_TMPDIR": str(tmp_path / "slurm"), "TMPDIR": str(tmp_path / "tmp"), "JOB": "j7"}
    assert scratch_folder(None, both) == tmp_path / "slurm"
    assert scratch_folder(None, {**both, "SLURM_TMPDIR": str(tmp_path / "not there")}) == tmp_path / "tmp"
    assert scratch_folder(None, {}) == Path("/tmp")
    assert scratch_folder(f"{tmp_path}/$JOB/${{JOB}}x", both) == tmp_path / "j7" / "j7x"
    assert (tmp_path / "j7" / "j7x").is_dir()


def test_a_scratch_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"scratch: cannot make the folder {tmp_path}/file/x"):
        scratch_folder(f"{tmp_path}/file/x", {})
    with pytest.raises(InputError, match="environment variable NOPE is not set on this node"):
        scratch_folder("/x/$NOPE", {})
