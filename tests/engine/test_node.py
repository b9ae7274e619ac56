"""Placement: every user process gets its GPUs and its share of the cores, and what the user has set stays."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.engine.master.node_share import NodeShares
from mpi_prs.engine.node import (
    RankResources,
    Share,
    describe,
    node_name,
    placement,
    ranges,
    rank_resources,
    visible_gpus,
)
from tests.support.jobs import Job, Mpi, need

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
NewJob = Callable[..., Job]


def on_a_node(
    *environments: Mapping[str, str],
    processes: int = 1,
    cores: str = "0-7",
    gpus_per_process: int | None = None,
    bound: bool = False,
) -> list[dict[str, str]]:
    """What each user process of a node gets whose ranks have these environments, and the same eight cores or not."""
    sharing = NodeShares(processes, gpus_per_process)
    for rank, environ in enumerate(environments):
        seen = rank_resources(environ, ())
        sharing.enter(rank, "n1", RankResources(f"{cores}+{rank}" if bound else cores, seen.gpus, seen.own_gpus))
    shares = [sharing.share(rank) for rank in range(len(environments))]
    return [
        placement(environ, index, processes, share, 8, gpus_per_process)
        for environ, share in zip(environments, shares, strict=True)
        for index in range(processes)
    ]


def gpus(value: str, ranks: int, *, name: str = CUDA, **options: int) -> list[str]:
    """The GPUs of each user process, where every rank of the node sees the same."""
    return [process.get(name, value) for process in on_a_node(*[{name: value}] * ranks, **options)]


def threads(*environments: Mapping[str, str], **options: bool | int) -> set[int]:
    return {int(process["OMP_NUM_THREADS"]) for process in on_a_node(*environments, **options)}  # type: ignore[arg-type]


# GPUs


@pytest.mark.parametrize("name", [CUDA, HIP, ROCR])
def test_the_kth_process_gets_the_kth_gpu(name: str) -> None:
    assert gpus("0,1,2,3", 4, name=name) == ["0", "1", "2", "3"]
    assert gpus("GPU-a8,GPU-3c", 2, name=name) == ["GPU-a8", "GPU-3c"]


def test_processes_of_one_rank_share_what_that_rank_sees() -> None:
    assert gpus("4,5,6", 1, processes=3) == ["4", "5", "6"]
    assert gpus("0,1,2,3", 2, processes=2) == ["0", "1", "2", "3"]


def test_a_process_may_have_several_gpus() -> None:
    assert gpus("0,1,2,3", 2, gpus_per_process=2) == ["0,1", "2,3"]
    assert gpus("0,1,2,3,4", 3, gpus_per_process=2) == ["0,1", "2,3", "0,1"]
    assert gpus("0,1", 2, gpus_per_process=4) == ["0,1", "0,1"]


def test_no_gpu_for_a_process_hides_them_all() -> None:
    assert [process[CUDA] for process in on_a_node({CUDA: "0,1"}, {}, gpus_per_process=0)] == ["", ""]


def test_more_processes_than_gpus_share_them_evenly() -> None:
    assert gpus("4,6", 5) == ["4", "6", "4", "6", "4"]


def test_a_choice_that_is_narrowed_to_one_device_or_none_is_left_alone() -> None:
    for value in ("3", "", "NoDevFiles", "-1"):
        assert all(CUDA not in process for process in on_a_node({CUDA: value}, {CUDA: value}))
    assert not {CUDA, HIP, ROCR} & set(on_a_node({})[0])


def test_ranks_that_slurm_gave_different_gpus_keep_them() -> None:
    per_task = [{CUDA: str(number), "SLURM_JOB_GPUS": "0,1"} for number in range(2)]
    assert [process.get(CUDA) for process in on_a_node(*per_task)] == [None, None]


def test_gpus_of_a_task_are_its_own_although_other_tasks_count_theirs_from_0_as_well() -> None:
    in_a_cgroup = {CUDA: "0,1", "SLURM_GPUS_PER_TASK": "a100:2"}
    assert [process.get(CUDA) for process in on_a_node(in_a_cgroup, in_a_cgroup, gpus_per_process=2)] == [None, None]
    assert [process[CUDA] for process in on_a_node(in_a_cgroup, in_a_cgroup, processes=2)] == ["0", "1", "0", "1"]


def test_without_a_variable_of_the_vendors_slurm_s_list_is_used() -> None:
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        assert [process[CUDA] for process in on_a_node(*[{name: "0-2,5"}] * 4)] == ["0", "1", "2", "5"]
    assert visible_gpus({"SLURM_STEP_GPUS": "1", "SLURM_JOB_GPUS": "0-3"}) == ("1",)
    assert visible_gpus({CUDA: "", "SLURM_JOB_GPUS": "0-3"}) == ()


def test_amd_s_lower_layer_is_left_alone_where_an_upper_one_is_narrowed() -> None:
    """Slurm sets both; a device that the lower one hides has no number in the upper one."""
    (process, *_) = on_a_node(*[{CUDA: "0,1", HIP: "0,1", ROCR: "0,1"}] * 2)
    assert (process[CUDA], process[HIP], ROCR in process) == ("0", "0", False)


def test_stray_commas_and_blanks_are_no_devices() -> None:
    assert gpus("0,, 2,", 2) == ["0", "2"]
    assert gpus("5,", 1) == ["5"]


def test_too_few_gpus_are_remarked_on_once_for_all_nodes_alike() -> None:
    sharing = NodeShares(2, None)
    for rank in range(12):
        sharing.enter(rank, f"n{rank // 2}", RankResources("0-7", ("0", "1", "2"), own_gpus=False))
    (remark,) = sharing.remarks()
    assert remark == "4 user processes share 3 GPUs on 6 nodes (n0, …): GPUs are handed out in turn"
    sharing = NodeShares(2, None)
    sharing.enter(1, "n1", RankResources("0-7", ("0", "1"), own_gpus=False))
    assert sharing.remarks() == []


# Cores


def test_unbound_workers_share_the_cores_of_their_node() -> None:
    assert threads(*[{}] * 8) == {1}
    assert threads(*[{}] * 2, processes=2) == {2}


def test_unbound_ranks_in_a_cpuset_of_the_job_do_not_take_it_for_their_own() -> None:
    """The machine may have many more cores than these eight, so that they look like a binding."""
    assert threads(*[{}] * 4) == {2}


def test_a_worker_that_is_bound_to_cores_of_its_own_shares_these_among_its_own_processes() -> None:
    assert threads(*[{}] * 4, processes=2, bound=True) == {4}


def test_more_processes_than_cores_get_one_thread_each() -> None:
    assert threads(*[{}] * 100) == {1}


def test_where_slurm_confines_nothing_its_variables_limit_the_threads() -> None:
    assert threads(*[{"SLURM_CPUS_ON_NODE": "4"}] * 2) == {2}
    assert threads(*[{"SLURM_CPUS_PER_TASK": "3"}] * 2) == {3}
    assert threads({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "6"}, processes=2) == {3}


def test_all_thread_variables_say_the_same() -> None:
    share = on_a_node({}, {})[0]
    assert set(share) == {
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "NUMEXPR_NUM_THREADS",
    }
    assert set(share.values()) == {"4"}


def test_a_thread_variable_that_the_user_has_set_stays() -> None:
    share = on_a_node({"OMP_NUM_THREADS": "3"})[0]
    assert "OMP_NUM_THREADS" not in share
    assert share["MKL_NUM_THREADS"] == "8"


@given(
    devices=st.integers(2, 16),
    workers=st.integers(1, 8),
    processes=st.integers(1, 4),
    cores=st.integers(1, 128),
)
def test_no_gpu_serves_two_processes_more_than_another_and_cores_are_not_oversubscribed(
    devices: int, workers: int, processes: int, cores: int
) -> None:
    environ = {CUDA: ",".join(map(str, range(devices)))}
    total = workers * processes
    shares = [
        placement(environ, index, processes, Share(first, total, first, total), cores)
        for first in range(0, total, processes)
        for index in range(processes)
    ]
    loads = Counter(share[CUDA] for share in shares)
    assert max(loads.values()) - min(loads[str(device)] for device in range(devices)) <= 1
    assert sum(int(share["OMP_NUM_THREADS"]) for share in shares) <= max(cores, total)


# What a worker tells of itself, and is told


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from(["0-3", "4-7"])), max_size=12))
def test_numbers_on_a_node_are_given_out_once_and_without_gaps(ranks: list[tuple[str, str]]) -> None:
    sharing = NodeShares(2, None)
    for rank, (node, cores) in enumerate(ranks):
        sharing.enter(rank, node, RankResources(cores, (), own_gpus=False))
    shares = [sharing.share(rank) for rank in range(len(ranks))]
    for name in ("n1", "n2"):
        here = [share for (node, _), share in zip(ranks, shares, strict=True) if node == name]
        assert [share.first_process for share in here] == list(range(0, 2 * len(here), 2))
        assert {share.node_processes for share in here} <= {2 * len(here)}
    for rank, thing in enumerate(ranks):
        assert shares[rank].core_processes == 2 * ranks.count(thing)


def test_means_survive_json() -> None:
    means = rank_resources({CUDA: "0,1", "SLURM_GPUS_PER_TASK": "2"}, [0, 1, 2, 5])
    assert means == RankResources("0-2,5", ("0", "1"), own_gpus=True)
    assert RankResources.from_fields(json.loads(json.dumps(asdict(means)))) == means


@given(st.sets(st.integers(0, 300)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, ranges(numbers).split(",")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)


@pytest.mark.parametrize(
    ("environ", "cores", "words"),
    [
        ({CUDA: "3", "OMP_NUM_THREADS": "4"}, "12-15", "GPU 3, 4 threads, cores 12-15"),
        ({CUDA: "0,1", "OMP_NUM_THREADS": "1"}, "7", "GPUs 0,1, 1 thread, core 7"),
        ({CUDA: "", "OMP_NUM_THREADS": "2"}, "0-1", "no GPU, 2 threads, cores 0-1"),
        ({"OMP_NUM_THREADS": "2"}, "0,2", "2 threads, cores 0,2"),
    ],
)
def test_a_placement_is_told_in_words(environ: dict[str, str], cores: str, words: str) -> None:
    assert describe(environ, cores) == words


def test_slurm_s_name_of_the_node_goes_before_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n17")
    assert node_name() == "n17"
    monkeypatch.delenv("SLURMD_NODENAME")
    assert node_name() == socket.gethostname()


# In a job

PLACES_SCRIPT = """
import os, time

def run(mini_batch):
    time.sleep(0.05)  # so that each process gets some
    places = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"], sorted(os.sched_getaffinity(0))
    return [repr(places)] * len(mini_batch)
"""


def test_user_processes_get_their_gpus_and_the_cores_of_their_rank(new_job: NewJob, mpich: Mpi) -> None:
    if shutil.which("taskset") is None:
        need("taskset of util-linux")
    job = new_job(PLACES_SCRIPT, mini_batch_size=1, slurm={"gpus_per_process": 2}, logging_level="INFO")
    job.environment.update({CUDA: "4,5,6,7", "SLURM_CPUS_PER_TASK": "1"})
    core = min(os.sched_getaffinity(0))
    done = job.finish(job.start(["taskset", "-c", str(core), *mpich.command(4), "run", str(job.config)]))
    assert done.returncode == 0, done.stdout
    assert set(job.rows()) == {repr((gpus, "1", [core])) for gpus in ("4,5", "6,7")}
    assert done.stdout.count("3 user processes share 4 GPUs") == 1
    for number, chosen in enumerate(("4,5", "6,7", "4,5")):
        first_line = job.log("stdout", number).splitlines()[0]
        assert f"user process {number} on " in first_line
        assert first_line.endswith(f"GPUs {chosen}, 1 thread, core {core}")
    own_logs = "".join(path.read_text() for path in Path(job.directory.logs).glob("sys/node/*/worker*.txt"))
    assert own_logs.count(f", 1 thread, core {core}, pid ") == 3
