"""Placement: every user process gets its GPU and its share of the cores, and what the user has set stays."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.engine.node import node_name, placement, user_environment

DEVICES = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"]


def gpus(visible: str, processes: int, variable: str = DEVICES[0]) -> list[str | None]:
    """What each process of a node with these visible devices gets."""
    return [
        placement({variable: visible}, number, 1, processes, cores=8, node_cores=8).get(variable)
        for number in range(processes)
    ]


def threads(**counts: int) -> int:
    return int(placement({}, 0, **counts)["OMP_NUM_THREADS"])


@pytest.mark.parametrize("variable", DEVICES)
def test_the_kth_process_gets_the_kth_gpu(variable: str) -> None:
    assert gpus("0,1,2,3", 4, variable) == ["0", "1", "2", "3"]
    assert gpus("GPU-a8,GPU-3c", 2, variable) == ["GPU-a8", "GPU-3c"]


def test_more_processes_than_gpus_share_them_evenly() -> None:
    assert gpus("4,6", 5) == ["4", "6", "4", "6", "4"]


def test_a_choice_that_is_narrowed_to_one_device_or_none_is_left_alone() -> None:
    assert gpus("3", 2) == [None, None]
    assert gpus("", 2) == [None, None]
    assert set(placement({}, 0, 1, 1)) & set(DEVICES) == set()


def test_stray_commas_are_no_devices() -> None:
    assert gpus("0,,2,", 2) == ["0", "2"]
    assert gpus("5,", 1) == [None]


def test_unbound_workers_share_the_cores_of_their_node() -> None:
    assert threads(processes=1, node_processes=8, cores=8, node_cores=8) == 1
    assert threads(processes=2, node_processes=4, cores=64, node_cores=64) == 16


def test_a_worker_that_is_bound_to_some_cores_shares_these_among_its_own_processes() -> None:
    assert threads(processes=2, node_processes=8, cores=16, node_cores=64) == 8


def test_more_processes_than_cores_get_one_thread_each() -> None:
    assert threads(processes=1, node_processes=100, cores=8, node_cores=8) == 1


def test_all_thread_variables_say_the_same() -> None:
    share = placement({}, 0, 2, 2, cores=8, node_cores=8)
    assert set(share) == {
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "NUMEXPR_NUM_THREADS",
    }
    assert set(share.values()) == {"4"}


def test_a_thread_variable_that_the_user_has_set_stays() -> None:
    share = placement({"OMP_NUM_THREADS": "3"}, 0, 1, 1, cores=8, node_cores=8)
    assert "OMP_NUM_THREADS" not in share
    assert share["MKL_NUM_THREADS"] == "8"


def test_without_figures_the_system_is_asked() -> None:
    assert int(placement({}, 0, 1, 1)["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))


@given(
    devices=st.integers(2, 16),
    workers=st.integers(1, 8),
    processes=st.integers(1, 4),
    cores=st.integers(1, 128),
)
def test_no_gpu_serves_two_processes_more_than_another_and_cores_are_not_oversubscribed(
    devices: int, workers: int, processes: int, cores: int
) -> None:
    total = workers * processes
    environ = {DEVICES[0]: ",".join(map(str, range(devices)))}
    shares = [placement(environ, number, processes, total, cores=cores, node_cores=cores) for number in range(total)]
    loads = [sum(share[DEVICES[0]] == str(device) for share in shares) for device in range(devices)]
    assert max(loads) - min(loads) <= 1
    assert sum(int(share["OMP_NUM_THREADS"]) for share in shares) <= max(cores, total)


def test_a_user_process_does_not_take_itself_for_a_rank() -> None:
    kept = {
        "PATH": "/bin",
        "SLURM_JOB_ID": "7",
        "SLURMD_NODENAME": "n17",
        "CUDA_VISIBLE_DEVICES": "0",
        "MPI_HOME": "/mpi",
    }
    of_a_rank = [
        "PMI_RANK",
        "PMI_FD",
        "PMIX_RANK",
        "OMPI_COMM_WORLD_RANK",
        "SLURM_PROCID",
        "SLURM_NTASKS",
        "MPI_LOCALRANKID",
    ]
    assert user_environment({**kept, **dict.fromkeys(of_a_rank, "1")}) == kept


def test_slurm_s_name_of_the_node_goes_before_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n17")
    assert node_name() == "n17"
    monkeypatch.delenv("SLURMD_NODENAME")
    assert node_name() == socket.gethostname()
