"""Sick nodes: who is benched and who is not, and what that costs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.engine.scheduler.events import AttemptFailed, Bench, Command, Excuse, InitFailed, Retry, TakeBack
from mpi_prs.engine.scheduler.states import JobPhase
from mpi_prs.wire.failure import Failure, FailureKind
from tests.support.scheduling import Job

# Full disks


def test_a_full_scratch_folder_benches_its_node_and_the_last_one_stops_the_job() -> None:
    job = Job(9, workers=2, run_max_try=1)
    job.assign_all()
    number = next(iter(job.has[1]))
    assert full(job, 1, number, FailureKind.SCRATCH_FULL) is Excuse
    assert job.changes == [Bench("node1", "it is full")]
    job.gone(1, 0)
    job.ready(1, 0)  # that init() works says nothing of the disk
    assert (job.assign(1), len(job.changes), job.phase) == ({}, 1, JobPhase.RUNNING)
    assert full(job, 2, next(iter(job.has[2])), FailureKind.SCRATCH_FULL) is Excuse
    assert (job.phase, job.reason) == (JobPhase.STOPPED, "it is full")
    assert job.scheduler.counts().failed == 0


def test_a_full_disk_of_the_output_stops_the_job_whoever_meets_it() -> None:
    job = Job(9, workers=2, run_max_try=1, error_threshold=0)
    job.assign(1)
    assert full(job, 1, 0, FailureKind.OUTPUT_FULL) is Excuse
    assert (job.phase, job.scheduler.counts().failed) == (JobPhase.STOPPED, 0)


@pytest.mark.parametrize("kind", [FailureKind.OUTPUT_FULL, FailureKind.SCRATCH_FULL])
def test_a_full_disk_in_all_processes_that_start_is_no_failed_init(kind: FailureKind) -> None:
    job = Job(9)
    job.add(1, 2, ready=False)
    for process in (0, 1, 0, 1):
        job.tell(InitFailed(1, process, Failure(kind, "it is full")))
    assert (job.phase, job.reason) == (JobPhase.STOPPED, "it is full")


def full(job: Job, worker: int, number: int, kind: FailureKind) -> type[Command] | None:
    failure = Failure(kind, "it is full", mini_batch=number, attempt=job.has[worker].pop(number))
    commands = job.tell(AttemptFailed(worker, failure))
    return next((type(command) for command in commands if not isinstance(command, Bench)), None)


# Strikes


def fail_at_1_and_succeed_at_2(job: Job, times: int) -> None:
    for _ in range(times):
        job.assign(1)
        number = next(iter(job.has[1]))
        job.fail(1, number)
        while number not in job.has[2]:
            job.finish(2)
            job.assign(2)
        job.finish(2, number)


def test_a_node_whose_failures_succeed_elsewhere_is_benched_at_the_fifth() -> None:
    job = Job(100, workers=3)
    fail_at_1_and_succeed_at_2(job, 4)
    assert not job.scheduler.nodes.benched
    fail_at_1_and_succeed_at_2(job, 1)
    (change,) = job.changes
    assert list(job.scheduler.nodes.benched) == ["node1"]
    assert change == Bench("node1", "5 mini-batches in a row failed there and succeeded on other nodes")
    assert job.assign(1) == {}
    job.finish(1)
    job.finish_all()
    assert job.scheduler.counts().failed == 0


def test_a_success_of_its_own_clears_a_node() -> None:
    job = Job(100, workers=2)
    for _ in range(3):
        fail_at_1_and_succeed_at_2(job, 4)
        job.assign(1)
        job.finish(1)
    assert not job.scheduler.nodes.benched


def test_what_a_node_has_recovered_from_raises_the_bar_for_all() -> None:
    """Failures that come and go: three times what was seen to be no sickness is still none."""
    job = Job(1000, workers=2)
    fail_at_1_and_succeed_at_2(job, 2)
    job.assign(1)
    job.finish(1)
    fail_at_1_and_succeed_at_2(job, 6)
    assert not job.scheduler.nodes.benched
    fail_at_1_and_succeed_at_2(job, 1)
    assert list(job.scheduler.nodes.benched) == ["node1"]


def test_a_mini_batch_that_fails_on_two_nodes_is_to_blame_and_they_are_not() -> None:
    job = Job(100, workers=3, run_max_try=4)
    for _ in range(7):
        job.assign(1)
        number = next(iter(job.has[1]))
        job.fail(1, number)
        while number not in job.has[2]:
            job.assign(2)
            job.finish(2, *[other for other in job.has[2] if other != number])
        assert job.fail(2, number) is Retry
        while number not in job.has[3]:
            job.assign(3)
            job.finish(3, *[other for other in job.has[3] if other != number])
        job.finish(3, number)  # and be it that it was luck
        job.finish(2)
    assert job.scheduler.nodes.failed_on_two == 7
    assert not job.scheduler.nodes.benched
    assert not job.scheduler.nodes.failed


def test_a_mini_batch_that_fails_everywhere_counts_once() -> None:
    job = Job(1, workers=3, run_max_try=3)
    for worker in (1, 2, 3):
        job.assign_all()
        holder = next(worker for worker, has in job.has.items() if has)
        job.fail(holder, 0)
    assert (job.phase, job.scheduler.nodes.failed_on_two) == (JobPhase.COMPLETE, 1)


def test_workers_of_one_node_are_no_two_nodes() -> None:
    job = Job(1, run_max_try=3)
    for worker in (1, 2):
        job.add(worker, node="the node")
    for attempt, worker in ((1, 1), (2, 2), (3, 1)):
        assert job.assign(worker) == {0: attempt}
        job.fail(worker, 0)
    assert (job.scheduler.nodes.failed_on_two, job.scheduler.nodes.benched) == (0, {})


# Retries


def test_a_retry_goes_to_another_node_rather_than_to_another_worker() -> None:
    job = Job(100)
    for worker, node in ((1, "a"), (2, "a"), (3, "b")):
        job.add(worker, node=node)
    job.assign_all()
    job.fail(1, 0)
    job.finish(2)
    assert 0 not in job.assign(2)
    job.finish(3)
    assert job.assign(3)[0] == 2


def test_on_the_only_node_a_retry_goes_to_another_worker() -> None:
    job = Job(100)
    for worker in (1, 2):
        job.add(worker, node="a")
    job.assign_all()
    job.fail(1, 0)
    job.finish(1)
    assert 0 not in job.assign(1)
    job.finish(2)
    assert job.assign(2)[0] == 2


def test_a_node_that_has_only_failed_gets_no_retries() -> None:
    job = Job(100, workers=4)
    job.assign_all()
    job.fail(1, next(iter(job.has[1])))
    failed = next(iter(job.has[2]))
    job.fail(2, failed)
    assert failed not in job.assign(1)
    job.finish(3)
    assert failed in job.assign(3)


def test_the_first_node_to_be_ready_does_not_burn_the_queue_while_the_others_start() -> None:
    job = Job(1000, workers=1)
    for worker in (2, 3):
        job.add(worker, ready=False)
    failures = 0
    while job.assign(1):
        for number in list(job.has[1]):
            job.fail(1, number)
            failures += 1
    assert failures <= 16
    for worker in (2, 3):
        job.ready(worker, 0)
    for _ in range(10):
        for worker in (2, 3):
            job.assign(worker)
            job.finish(worker)
    assert (list(job.scheduler.nodes.benched), job.scheduler.counts().failed) == (["node1"], 0)


def test_nobody_is_held_back_where_most_nodes_fail() -> None:
    """Then it is the script, most probably, and error_threshold should end the job soon."""
    job = Job(1000, workers=5, run_max_try=3, error_threshold=0)
    failures = 0
    while job.phase is JobPhase.RUNNING:
        job.assign_all()
        for worker in (1, 2, 3, 4):  # the fifth has something long
            for number in list(job.has[worker]):
                if job.phase is JobPhase.RUNNING:
                    job.fail(worker, number)
                    failures += 1
    assert job.phase is JobPhase.ABORTED
    assert failures <= 40


def test_the_last_try_is_made_where_something_has_succeeded() -> None:
    """A node of which nothing is known may be as sick as the one on which it failed."""
    job = Job(100, workers=3, run_max_try=2)
    job.assign(1)
    job.fail(1, 0)
    assert 0 not in job.assign(2)
    job.finish(2)
    assert 0 not in job.assign(3)
    assert job.assign(2)[0] == 2


def test_the_last_try_is_made_somewhere_when_nothing_has_succeeded_anywhere() -> None:
    job = Job(1, workers=3, run_max_try=2)
    job.assign(1)
    job.fail(1, 0)
    assert job.assign(3) == {0: 2}


def test_the_last_try_waits_for_nodes_that_are_not_ready_yet() -> None:
    """The first to be ready may be the one that is sick."""
    job = Job(1, workers=1, run_max_try=2)
    for worker in (2, 3):
        job.add(worker, ready=False)
    job.assign(1)
    job.fail(1, 0)
    assert job.assign(1) == {}
    job.ready(2, 0)
    assert job.assign(2) == {}, "nothing is known of this one either"
    job.ready(3, 0)
    assert job.assign(1) == {}
    assert job.assign(2) == {0: 2}


def test_what_fails_on_a_sound_node_waits_for_nobody() -> None:
    job = Job(3, workers=1, run_max_try=2)
    job.add(2, ready=False)
    job.assign(1)
    job.fail(1, 0)
    job.finish(1)
    assert job.assign(1)[0] == 2


# Until there is evidence


@pytest.mark.parametrize("processes", [1, 4])
def test_a_node_that_fails_fast_waits_until_its_failures_have_been_looked_at(processes: int) -> None:
    job = Job(10_000, workers=3, processes=processes)
    job.assign_all()
    failures = 0
    while job.has[1]:
        for number in list(job.has[1]):
            job.fail(1, number)
            failures += 1
        job.assign(1)
    assert failures <= 3 * processes + 4
    for _ in range(5):
        job.finish(2)
        job.assign(2)
    assert list(job.scheduler.nodes.benched) == ["node1"]


def test_when_everything_fails_everywhere_nobody_waits() -> None:
    job = Job(1000, workers=3, run_max_try=1)
    failures = 0
    while job.phase is JobPhase.RUNNING:
        job.assign_all()
        assert any(job.has.values())
        for worker, has in job.has.items():
            for number in list(has):
                job.fail(worker, number)
                failures += 1
    assert failures == 1000
    assert not job.scheduler.nodes.benched


# On the bench


def benched(processes: int = 1, **policy: int) -> Job:
    """Three nodes, of which the first is benched."""
    job = Job(1000, workers=3, processes=processes, **policy)
    fail_at_1_and_succeed_at_2(job, 5)
    assert list(job.scheduler.nodes.benched) == ["node1"]
    job.changes.clear()
    return job


def test_what_a_benched_node_still_holds_may_finish_there() -> None:
    job = benched(processes=4)
    held = list(job.has[1])
    assert held
    job.finish(1, held[0])
    assert list(job.scheduler.nodes.benched) == ["node1"]
    assert job.assign(1) == {}


def test_what_fails_on_a_benched_node_has_lost_no_try() -> None:
    job = benched(processes=4, run_max_try=2)
    number, attempt = next(iter(job.has[1].items()))
    retried = job.scheduler.counts().retried
    assert job.fail(1, number) is Excuse
    assert job.scheduler.counts().retried == retried
    job.finish(2)
    assert job.assign(2)[number] == attempt


def test_the_last_node_is_never_benched() -> None:
    job = Job(100, workers=2)
    fail_at_1_and_succeed_at_2(job, 4)
    job.assign(1)
    number = next(iter(job.has[1]))
    job.fail(1, number)
    job.finish(2)
    assert number in job.assign(2)
    job.gone(2, 0)
    job.finish(2, number)
    assert not job.scheduler.nodes.benched


def test_benched_nodes_are_taken_back_when_all_others_are_lost() -> None:
    job = benched()
    job.finish(1)
    job.lose(2)
    assert job.assign(1) == {}
    job.lose(3)
    (change,) = job.changes
    assert change == TakeBack("node1", "no other node is left")
    assert not job.scheduler.nodes.benched
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE


def test_benched_nodes_are_taken_back_when_all_processes_of_the_others_are_given_up() -> None:
    job = benched()
    job.finish(1)
    for worker in (2, 3):
        for _ in range(3):
            job.init_failed(worker, 0)
        job.has[worker].clear()
    assert list(job.scheduler.nodes.benched) == ["node2", "node3"]
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE


def test_a_node_waits_on_the_bench_while_the_others_only_start_a_process_anew() -> None:
    job = benched()
    for worker in (2, 3):
        job.gone(worker, 0)
    assert job.assign(1) == {}
    assert list(job.scheduler.nodes.benched) == ["node1"]


# init()


def test_a_node_on_which_init_fails_everywhere_is_benched_while_others_work() -> None:
    job = Job(100, workers=1)
    for worker in (2, 3):
        job.add(worker, processes=2, ready=False, node="sick")
    for worker in (2, 3):
        for process in (0, 1):
            assert not job.scheduler.nodes.benched
            for _ in range(3):
                job.init_failed(worker, process)
    assert list(job.scheduler.nodes.benched) == ["sick"]
    assert "init() has failed" in job.changes[0].why
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE


def test_a_node_is_taken_back_when_init_works_there_after_all() -> None:
    job = Job(100, workers=1)
    job.add(2, ready=False, node="slow")
    for _ in range(3):
        job.init_failed(2, 0)
    assert list(job.scheduler.nodes.benched) == ["slow"]
    job.add(3, node="slow")
    assert not job.scheduler.nodes.benched
    assert job.assign(3)


# Any cluster


def work(
    job: Job, sick: Collection[int], bad: Collection[int], rng: random.Random, haste: float
) -> tuple[Counter[int], Counter[int]]:
    """Work until the end, in any order; sick workers answer so many times as fast.

    Returns:
        Failed attempts of each worker, and of each mini-batch on sick workers.
    """
    of_worker: Counter[int] = Counter()
    on_sick: Counter[int] = Counter()
    job.assign_all()
    while job.phase is JobPhase.RUNNING:
        busy = [worker for worker, has in job.has.items() if has]
        assert busy, "work is left, and nobody gets it"
        (worker,) = rng.choices(busy, [haste if worker in sick else 1.0 for worker in busy])
        number = next(iter(job.has[worker]))
        if worker in sick or number in bad:
            of_worker[worker] += 1
            on_sick[number] += worker in sick
            job.fail(worker, number)
            job.assign_all()
        else:
            job.finish(worker, number, run=rng.choice([0.001, 1.0]))
            job.assign(worker)
    return of_worker, on_sick


CLUSTERS = st.tuples(st.integers(2, 8), st.integers(1, 4), st.sampled_from([0.1, 1.0, 10.0, 1000.0]))


@settings(max_examples=60)
@given(cluster=CLUSTERS, data=st.data(), seed=st.integers(0, 10**6), run_max_try=st.integers(2, 4))
def test_sick_nodes_are_benched_and_fail_no_mini_batch_even_if_they_are_half_of_all(
    cluster: tuple[int, int, float], data: st.DataObject, seed: int, run_max_try: int
) -> None:
    nodes, processes, haste = cluster
    haste = max(1.0, haste)  # a slow one may meet too little to be found out
    sick = data.draw(st.sets(st.integers(1, nodes), min_size=1, max_size=nodes // 2), "sick")
    job = Job(40 * nodes * processes, workers=nodes, processes=processes, run_max_try=run_max_try)
    failures, _ = work(job, sick, (), random.Random(seed), haste)
    counts = job.scheduler.counts()
    assert (job.phase, counts.failed) == (JobPhase.COMPLETE, 0)
    assert set(job.scheduler.nodes.benched) == {f"node{worker}" for worker in sick}
    assert max(failures.values()) <= 4 * processes + 15


@settings(max_examples=100)
@given(
    cluster=CLUSTERS,
    share=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    seed=st.integers(0, 10**6),
    run_max_try=st.integers(2, 4),
    is_sick=st.booleans(),
)
def test_bad_data_bench_no_node_and_a_sick_node_fails_no_good_data(
    cluster: tuple[int, int, float], share: float, seed: int, run_max_try: int, is_sick: bool
) -> None:
    nodes, processes, haste = cluster
    rng = random.Random(seed)
    total = 30 * nodes * processes
    bad = {number for number in range(total) if rng.random() < share}
    job = Job(total, workers=nodes, processes=processes, run_max_try=run_max_try)
    sick = {rng.randint(1, nodes)} if is_sick else set()
    _, on_sick = work(job, sick, bad, rng, haste)
    counts = job.scheduler.counts()
    assert job.phase is JobPhase.COMPLETE
    assert (counts.done, counts.failed) == (total - len(bad), len(bad))
    assert set(job.scheduler.nodes.benched) <= {f"node{worker}" for worker in sick}
    assert max(on_sick.values(), default=0) < run_max_try
    assert not job.scheduler.nodes.failed


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_failures_that_come_and_go_everywhere_bench_hardly_a_node(share: float) -> None:
    benched = 0
    for seed in range(40):
        rng = random.Random(seed)
        job = Job(1000, workers=5, run_max_try=1000)
        while job.phase is JobPhase.RUNNING:
            job.assign_all()
            worker = rng.choice([worker for worker, has in job.has.items() if has])
            number = next(iter(job.has[worker]))
            if rng.random() < share:
                job.fail(worker, number)
            else:
                job.finish(worker, number)
        benched += len(job.scheduler.nodes.benched)
    assert benched <= 40 * 5 * 0.03
