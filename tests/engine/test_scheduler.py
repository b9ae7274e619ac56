"""The scheduler: each mini-batch ends once, retries go elsewhere, and the job ends when it must, in sentences."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mpi_prs.engine.scheduler.events import Fail, Retry, WorkerHeard
from mpi_prs.engine.scheduler.states import JobPhase
from tests.support.scheduling import ITEMS, Job, record

# The beginning and the end


def test_a_job_without_mini_batches_is_complete_at_once() -> None:
    job = Job(0)
    job.scheduler.check()
    assert job.phase is JobPhase.COMPLETE


def test_a_job_is_complete_when_its_last_mini_batch_is_done() -> None:
    job = Job(7, workers=2)
    job.finish_all()
    counts = job.scheduler.counts()
    assert job.phase is JobPhase.COMPLETE
    assert (counts.done, counts.failed, counts.items_done, counts.items_failed) == (7, 0, 35, 0)


def test_work_stops_at_the_limit() -> None:
    job = Job(10, workers=1, limit=3)
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE
    assert job.scheduler.counts().done == 3


def test_what_is_settled_above_the_limit_does_not_count_as_work_below_it() -> None:
    job = Job(10, workers=1, limit=3)
    job.scheduler.restore_done([2, 5, 9], 3 * ITEMS, 0)
    job.scheduler.restore_failed(7)
    job.scheduler.check()
    assert job.scheduler.left == 2
    job.finish_all()
    assert (job.scheduler.counts().done, job.scheduler.counts().failed) == (5, 1)


def test_what_earlier_starts_have_settled_is_not_handed_out_again() -> None:
    job = Job(5, workers=1)
    job.scheduler.restore_done([0], ITEMS, 2)
    job.scheduler.restore_failed(3)
    job.scheduler.check()
    assert job.scheduler.left == 3
    job.finish_all()
    counts = job.scheduler.counts()
    assert (counts.done, counts.failed, counts.items_done, counts.items_failed) == (4, 1, 18, 7)


def test_a_mini_batch_that_is_restored_twice_counts_once() -> None:
    job = Job(3, workers=1)
    job.scheduler.restore_done([0], ITEMS, 0)
    job.scheduler.restore_failed(0)
    job.scheduler.check()
    assert (job.scheduler.left, job.scheduler.counts().failed, job.scheduler.counts().items_done) == (2, 0, ITEMS)


def test_tries_of_earlier_starts_count() -> None:
    job = Job(1, workers=1, run_max_try=3)
    job.scheduler.restore_attempts(0, 2)
    assert job.assign(1) == {0: 3}
    assert job.fail(1, 0) is Fail


def test_a_lowered_run_max_try_leaves_one_more_try_of_what_is_not_failed_yet() -> None:
    job = Job(1, workers=1, run_max_try=2)
    job.scheduler.restore_attempts(0, 4)
    assert job.assign(1) == {0: 2}


def test_a_restored_job_may_be_over_already() -> None:
    done = Job(1)
    done.scheduler.restore_done([0], ITEMS, 0)
    done.scheduler.check()
    assert done.phase is JobPhase.COMPLETE
    failed = Job(2, error_threshold=4)
    failed.scheduler.restore_failed(0)
    failed.scheduler.check()
    assert failed.phase is JobPhase.ABORTED


# Answers that must not count


def test_an_answer_counts_once() -> None:
    job = Job(9, workers=1)
    job.assign(1)
    assert job.scheduler.finished(1, record(0) + record(0), 0.0) == [True, False]
    assert job.scheduler.finished(1, record(0), 0.0) == [False]
    assert job.attempt_failed(1, 0, 1, 0.0) is None
    assert job.scheduler.counts().done == 1


def test_an_answer_counts_only_from_who_holds_the_mini_batch() -> None:
    job = Job(9, workers=2)
    job.assign(1)
    for stranger in (2, 77):
        assert job.scheduler.finished(stranger, record(0), 0.0) == [False]
        assert job.attempt_failed(stranger, 0, 1, 0.0) is None
    assert job.scheduler.held == len(job.has[1])


def test_an_answer_counts_only_for_the_attempt_that_is_held() -> None:
    job = Job(1, workers=1)
    job.assign(1)
    job.fail(1, 0)
    assert job.assign(1) == {0: 2}
    assert job.scheduler.finished(1, record(0, attempt=1), 0.0) == [False]
    assert job.attempt_failed(1, 0, 1, 0.0) is None
    job.given_back(1, [(0, 1, 1)])
    assert job.scheduler.held == 1
    job.finish(1, 0)
    assert job.phase is JobPhase.COMPLETE


def test_the_ghost_of_a_lost_worker_is_not_believed() -> None:
    job = Job(1, workers=2)
    job.assign(1)
    job.lose(1)
    assert job.assign(2) == {0: 1}
    assert job.scheduler.finished(1, record(0), 0.0) == [False]
    job.given_back(1, [(0, 1, 1)])
    job.ready(1, 0)
    assert job.assign(1) == {}
    assert not job.init_failed(1, 0)
    job.finish(2)
    assert job.scheduler.counts().done == 1


def test_durations_that_cannot_be_do_no_harm() -> None:
    job = Job(100, workers=1)
    for run in (math.nan, math.inf, -1.0, 1e-45, 0.0):
        job.assign(1)
        job.finish(1, run=run)
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE


# Tries


def test_a_retry_goes_to_another_worker_first() -> None:
    job = Job(100, workers=2)
    job.assign_all()
    job.fail(1, 0)
    assert 0 not in job.assign(1)
    job.finish(2)
    assert job.assign(2)[0] == 2


def test_a_retry_goes_before_what_is_new() -> None:
    job = Job(100, workers=2)
    job.assign(1)
    job.fail(1, 0)
    assert min(job.assign(2)) == 0


def test_a_lone_worker_gets_its_own_retry_at_once() -> None:
    job = Job(100, workers=1)
    job.add(2, ready=False)
    job.assign(1)
    job.fail(1, 0)
    assert job.assign(1) == {0: 2}


def test_a_worker_whose_other_is_busy_for_hours_does_not_sit_idle_beside_a_retry() -> None:
    job = Job(2, workers=2)
    job.assign_all()
    job.fail(1, 0)  # worker 2 has one mini-batch, and will not take a second one so near to the end
    assert job.assign(2) == {}
    assert job.assign(1) == {0: 2}


def test_the_last_try_is_made_elsewhere_however_long_that_takes() -> None:
    """A broken node fails in no time, so it is idle whenever something is to be tried again."""
    job = Job(2, workers=2, run_max_try=3)
    job.assign_all()
    job.fail(1, 0)
    job.assign(1)
    job.fail(1, 0)
    assert job.assign(1) == {}
    job.finish(2)
    assert job.assign(2) == {0: 3}
    job.finish(2)
    assert job.scheduler.counts().failed == 0


def test_a_retry_that_another_worker_can_take_now_is_left_to_it() -> None:
    job = Job(2, workers=3)
    job.assign(1)
    job.assign(2)
    job.fail(1, 0)
    assert job.assign(1) == {}
    assert job.assign(3) == {0: 2}


def test_the_last_try_goes_to_the_same_worker_when_the_others_have_left() -> None:
    job = Job(2, workers=2, run_max_try=2)
    job.assign_all()
    job.fail(1, 0)
    job.finish(2)
    job.gone(2, 0)
    assert job.assign(1) == {}, "a replacement is on its way"
    for _ in range(3):
        job.init_failed(2, 0)
    assert job.assign(1) == {0: 2}


def test_a_worker_whose_only_other_is_lost_gets_its_last_try() -> None:
    job = Job(2, workers=2, run_max_try=2)
    job.assign_all()
    job.fail(1, 0)
    job.lose(2)
    assert job.assign(1)[0] == 2


def test_a_process_that_says_twice_that_it_is_ready_is_no_other_process() -> None:
    job = Job(1, workers=1, run_max_try=2)
    job.ready(1, 0)
    job.assign(1)
    job.fail(1, 0)
    assert job.assign(1) == {0: 2}


def test_a_mini_batch_fails_after_run_max_try_tries_and_not_before() -> None:
    job = Job(1, workers=2, run_max_try=3)
    verdicts = []
    for attempt, worker in ((1, 1), (2, 2), (3, 1)):
        assert job.assign(worker) == {0: attempt}
        verdicts.append(job.fail(worker, 0))
    assert verdicts == [Retry, Retry, Fail]
    assert job.phase is JobPhase.COMPLETE
    counts = job.scheduler.counts()
    assert (counts.done, counts.failed, counts.items_failed, counts.retried) == (0, 1, ITEMS, 2)


# Thresholds


@pytest.mark.parametrize(
    ("policy", "aborts_at"),
    [
        ({"error_threshold": 0}, 1),
        ({"error_threshold": 4}, 1),
        ({"error_threshold": 5}, 2),
        ({"error_threshold": 10}, 3),
        ({"error_threshold": -1}, None),
        ({"allowed_failed_count": 0}, 1),
        ({"allowed_failed_count": 3}, 4),
        ({"allowed_failed_count": -1}, None),
        ({"allowed_failed_percent": 0.0}, 1),
        ({"allowed_failed_percent": 25.0}, 3),
        ({"allowed_failed_percent": 100.0}, None),
        ({"allowed_failed_percent": -1.0}, None),
        ({"allowed_failed_count": 3, "error_threshold": 10}, 3),
        ({}, None),
    ],
)
def test_a_threshold_aborts_when_it_is_exceeded_and_not_before(policy: dict[str, Any], aborts_at: int | None) -> None:
    job = Job(8, workers=1, run_max_try=1, **policy)
    job.scheduler.check()
    failed = 0
    while job.phase is JobPhase.RUNNING:
        for number in job.assign(1):
            job.fail(1, number)
            failed += 1
            if job.phase is not JobPhase.RUNNING:
                break
    assert failed == (aborts_at or 8)
    assert job.phase is (JobPhase.COMPLETE if aborts_at is None else JobPhase.ABORTED)
    if aborts_at is not None:
        assert any(name in job.reason for name in policy)


def test_items_that_a_finished_mini_batch_has_not_returned_count_as_failed() -> None:
    job = Job(9, workers=1, error_threshold=2)
    job.assign(1)
    job.scheduler.finished(1, record(0, returned=ITEMS - 2), 0.0)
    job.assign(1)
    job.scheduler.finished(1, record(1, returned=ITEMS + 3), 0.0)  # more is no failure, and makes up for nothing
    assert job.phase is JobPhase.RUNNING
    job.assign(1)
    job.scheduler.finished(1, record(2, returned=ITEMS - 1), 0.0)
    assert job.phase is JobPhase.ABORTED
    assert job.reason == "3 items failed, more than error_threshold allows (2)"


def test_an_exceeded_threshold_wins_over_the_end_of_the_work() -> None:
    job = Job(1, workers=1, run_max_try=1, error_threshold=0)
    job.assign(1)
    job.fail(1, 0)
    assert job.phase is JobPhase.ABORTED
    assert job.assign(1) == {}


# Starting user processes


def test_init_failing_twice_in_every_process_aborts_the_job() -> None:
    job = Job(9)
    for worker in (1, 2):
        job.add(worker, processes=2, ready=False)
    everybody = [(worker, process) for worker in (1, 2) for process in range(2)]
    assert all(job.init_failed(*one) for one in everybody)
    assert all(job.init_failed(*one) for one in everybody[:-1])
    assert job.phase is JobPhase.RUNNING
    assert not job.init_failed(*everybody[-1])
    assert (job.phase, job.reason) == (JobPhase.ABORTED, "init() failed in all 4 user processes")


def test_init_failing_elsewhere_does_not_abort_a_job_in_which_one_process_has_come_up() -> None:
    job = Job(9, workers=1)
    job.add(2, processes=2, ready=False)
    for _ in range(2):
        assert all(job.init_failed(2, process) for process in range(2))
    assert not any(job.init_failed(2, process) for process in range(2))
    assert job.phase is JobPhase.RUNNING
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE


def test_the_job_aborts_when_every_process_is_given_up() -> None:
    job = Job(9, workers=2, init_tries=3)
    for worker in (1, 2):
        job.assign(worker)
        job.gone(worker, 0)
        assert [job.init_failed(worker, 0) for _ in range(3)][:2] == [True, True]
    assert job.phase is JobPhase.ABORTED
    assert "no user process is left" in job.reason


def test_one_try_of_init_is_enough_when_the_policy_says_so() -> None:
    job = Job(9, init_tries=1)
    job.add(1, ready=False)
    assert not job.init_failed(1, 0)
    assert job.phase is JobPhase.ABORTED


def test_a_process_that_has_worked_has_all_its_tries_again() -> None:
    job = Job(9, workers=2, init_tries=2)
    for _ in range(5):
        assert job.init_failed(1, 0)
        job.ready(1, 0)
        job.gone(1, 0)
    assert job.phase is JobPhase.RUNNING


def test_a_process_that_comes_up_and_dies_before_it_has_worked_is_given_up() -> None:
    job = Job(9, workers=2, init_tries=3)
    answers = []
    for _ in range(3):
        job.ready(1, 0)
        answers.append(job.init_failed(1, 0))
    assert answers == [True, True, False]
    assert job.assign(1) == {}
    assert job.phase is JobPhase.RUNNING


def test_losing_the_only_worker_that_works_aborts_when_all_others_are_given_up() -> None:
    job = Job(9, workers=1)
    job.add(2, ready=False)
    for _ in range(3):
        job.init_failed(2, 0)
    job.lose(1)
    assert job.phase is JobPhase.ABORTED


def test_a_lost_worker_whose_init_failed_says_nothing_about_the_others() -> None:
    job = Job(9)
    for worker in (1, 2):
        job.add(worker, ready=False)
    for _ in range(2):
        job.init_failed(1, 0)
    job.lose(1)
    assert job.init_failed(2, 0)
    assert job.phase is JobPhase.RUNNING


def test_a_lost_worker_that_was_given_up_says_nothing_about_the_others() -> None:
    job = Job(9, workers=2)
    for _ in range(3):
        job.init_failed(1, 0)
    job.lose(1)
    assert job.init_failed(2, 0)
    assert job.phase is JobPhase.RUNNING


def test_what_waits_at_a_worker_whose_processes_are_all_given_up_goes_to_others() -> None:
    job = Job(4, workers=2)
    job.assign(1)
    assert job.scheduler.held > 0
    for _ in range(3):
        job.init_failed(1, 0)
    assert job.scheduler.held == 0
    job.has[1].clear()
    job.finish_all()
    assert (job.phase, job.scheduler.counts().done) == (JobPhase.COMPLETE, 4)


def test_a_drain_does_not_wait_for_a_worker_whose_processes_are_all_given_up() -> None:
    job = Job(4, workers=2)
    job.assign(1)
    job.drain("a signal")
    for _ in range(3):
        assert not job.init_failed(1, 0) or job.phase is JobPhase.DRAINING
    assert job.phase is JobPhase.DRAINED


# Lost workers


def test_what_a_lost_worker_held_is_tried_again_and_that_is_no_attempt() -> None:
    job = Job(2, workers=2)
    job.assign(1)
    assert job.lose(1) == []
    assert job.assign(2)[0] == 1
    job.finish_all()
    assert (job.scheduler.counts().done, job.scheduler.counts().retried) == (2, 0)


def test_a_mini_batch_that_loses_run_max_try_workers_is_failed() -> None:
    job = Job(1, workers=4, run_max_try=3)
    lost = []
    for worker in (1, 2, 3):
        assert job.assign(worker) == {0: 1}
        lost.append(job.lose(worker))
    assert lost == [[], [], [0]]
    assert (job.phase, job.scheduler.counts().items_failed) == (JobPhase.COMPLETE, ITEMS)


def test_a_mini_batch_that_kills_workers_takes_no_innocent_ones_along() -> None:
    killer = 3
    job = Job(64, workers=12, run_max_try=3, window=1.0)
    for worker in job.has:
        job.assign(worker)
    for worker in list(job.has):
        job.finish(worker, *[number for number in job.has[worker] if number != killer], run=0.05)
    while job.phase is JobPhase.RUNNING:
        for worker in list(job.has):
            job.assign(worker)
            if killer in job.has[worker]:
                job.lose(worker)
            elif job.has[worker]:
                job.finish(worker, run=0.05)
    assert job.phase is JobPhase.COMPLETE
    assert (job.scheduler.counts().done, job.scheduler.counts().failed) == (63, 1)


def test_mini_batches_that_one_more_loss_would_fail_are_at_different_workers() -> None:
    job = Job(8, workers=4, processes=2, run_max_try=3)
    for worker in (1, 2):
        assert list(job.assign(worker)) == [0, 1]
        job.lose(worker)
    assert list(job.assign(3)) == [0, 2, 3, 4]
    job.finish(3, 2, 3, 4)
    assert list(job.assign(3)) == [5]
    assert 1 in job.assign(4)
    assert job.lose(4) == [1]


def test_losing_the_last_worker_strands_the_job_with_its_reason() -> None:
    job = Job(9, workers=2)
    job.lose(1)
    assert job.phase is JobPhase.RUNNING
    job.lose(2, "its MPI process has died")
    assert (job.phase, job.reason) == (
        JobPhase.STRANDED,
        "no worker is left (the last one: its MPI process has died)",
    )


def test_a_threshold_that_a_loss_exceeds_aborts() -> None:
    job = Job(9, workers=2, run_max_try=1, error_threshold=0)
    for worker in (1, 2):
        assert job.phase is JobPhase.RUNNING, "one loss alone fails no mini-batch"
        assert 0 in job.assign(worker)
        failed = job.lose(worker)
    assert failed
    assert job.phase is JobPhase.ABORTED


def test_a_worker_is_lost_once() -> None:
    job = Job(9, workers=2)
    job.assign(1)
    job.lose(1)
    assert job.lose(1, "again") == []
    assert job.scheduler.lost_workers == {1: "it is gone"}


# Time


def test_a_worker_is_reported_when_it_has_been_silent_for_too_long() -> None:
    job = Job(9, workers=2, heartbeat_timeout=10)
    job.tell(WorkerHeard(1), 8.0)
    assert job.tick(10.0) == []
    assert job.tick(11.0) == [(2, "no sign of life for 11 s")]


def test_a_job_in_which_nothing_moves_is_stranded() -> None:
    job = Job(9, workers=1, progress_update_timeout=60)
    job.assign(1)
    job.tick(0.0)
    job.finish(1, 0, now=50.0)
    job.tick(110.0)
    assert job.phase is JobPhase.RUNNING
    job.tick(111.0)
    assert (job.phase, job.reason) == (
        JobPhase.STRANDED,
        "no mini-batch has finished for 60 s (progress_update_timeout)",
    )


def test_a_failed_attempt_is_a_movement_too() -> None:
    job = Job(9, workers=1, progress_update_timeout=60)
    job.assign(1)
    job.tick(0.0)
    job.fail(1, 0, now=50.0)
    job.tick(110.0)
    assert job.phase is JobPhase.RUNNING


def test_the_time_of_the_first_init_is_not_a_lack_of_progress() -> None:
    job = Job(9, heartbeat_timeout=1000, progress_update_timeout=60)
    job.add(1, ready=False)
    job.tick(500.0)
    job.ready(1, 0)
    job.tick(550.0)
    assert job.phase is JobPhase.RUNNING
    job.tick(561.0)
    assert job.phase is JobPhase.STRANDED


# Stopping


def test_a_drain_ends_when_nothing_is_held_any_more() -> None:
    job = Job(9, workers=1, processes=2)
    job.assign(1)
    job.drain("a signal")
    assert job.assign(1) == {}
    waiting = sorted(job.has[1])
    job.finish(1, waiting[0])
    job.fail(1, waiting[1])
    assert job.phase is JobPhase.DRAINING
    job.given_back(1, [(number, 1, 1) for number in waiting[2:]])
    assert (job.phase, job.reason) == (JobPhase.DRAINED, "a signal")
    assert job.scheduler.left == 8


def test_a_drain_that_finishes_everything_is_complete() -> None:
    job = Job(1, workers=1)
    job.assign(1)
    job.drain("a signal")
    job.finish(1)
    assert (job.phase, job.reason) == (JobPhase.COMPLETE, "")


def test_a_drain_of_idle_workers_ends_at_once() -> None:
    job = Job(1, workers=1)
    job.drain("a signal")
    assert job.phase is JobPhase.DRAINED


def test_a_stop_ends_the_job_with_work_in_hand() -> None:
    job = Job(9, workers=1)
    job.assign(1)
    job.drain("a signal")
    job.stop("a second signal")
    assert (job.phase, job.reason) == (JobPhase.STOPPED, "a second signal")
    job.finish(1)  # an answer that was on its way still counts
    assert job.phase is JobPhase.STOPPED
    job.drain("a third signal")
    assert job.reason == "a second signal"


# How much a worker gets


def settled_worker(
    run: float, *, processes: int = 1, overhead: float = 0.0, mini_batches: int = 10**6, **policy: Any
) -> Job:
    """A worker that has worked long enough for its pace to be known."""
    job = Job(mini_batches, workers=1, processes=processes, **policy)
    for _ in range(20):
        job.assign(1)
        job.finish(1, run=run, overhead=overhead)
    return job


@pytest.mark.parametrize("processes", [1, 8])
@pytest.mark.parametrize(
    ("run", "waiting"), [(10.0, 1), (0.031, 1), (0.016, 2), (0.001, 30), (0.0001, 300), (1e-7, 4096)]
)
def test_a_process_gets_work_for_the_window_and_one_mini_batch_at_least(
    run: float, waiting: int, processes: int
) -> None:
    job = settled_worker(run, processes=processes)
    assert len(job.assign(1)) == pytest.approx(processes * (1 + waiting), rel=0.05)


def test_a_process_that_loads_ahead_gets_more_however_long_mini_batches_take() -> None:
    job = settled_worker(10.0, least_waiting=3)
    assert len(job.assign(1)) == 4


@pytest.mark.parametrize(("mini_batches", "first"), [(100, 16), (20, 8)])
def test_a_process_that_runs_several_at_once_gets_as_many_and_near_the_end_no_more(
    mini_batches: int, first: int
) -> None:
    job = Job(mini_batches)
    for worker in (1, 2):
        job.add(worker, ready=False)
        job.ready(worker, 0, at_once=8)
    assert len(job.assign(1)) == first
    assert len(job.assign(2)) == first


def test_time_around_run_counts_as_well() -> None:
    job = settled_worker(0.0, overhead=0.011)
    assert len(job.assign(1)) == 4


def test_one_long_mini_batch_is_enough_to_make_the_queue_short() -> None:
    job = settled_worker(0.001)
    job.assign(1)
    job.finish(1, next(iter(job.has[1])), run=10.0)
    job.finish(1, run=0.001)
    assert len(job.assign(1)) == 2


def test_near_the_end_a_slow_worker_has_nothing_waiting_where_a_fast_one_has() -> None:
    job = Job(30, workers=2)
    while job.scheduler.left > 8:
        job.assign_all()
        for worker, run in ((1, 1.0), (2, 10.0)):
            job.finish(worker, run=run)
    assert [len(job.assign(worker)) for worker in (2, 1)] == [1, 2]


@pytest.mark.parametrize("processes", [1, 2, 16, 64])
def test_no_process_waits_for_a_message_to_be_worth_it_when_mini_batches_are_long(processes: int) -> None:
    job = settled_worker(10.0, processes=processes)
    job.assign(1)
    for _ in range(processes):
        job.finish(1, next(iter(job.has[1])), run=10.0)
        assert len(job.assign(1)) == 1


@pytest.mark.parametrize("processes", [1, 2, 16, 64])
def test_no_process_is_idle_at_the_end_while_something_is_to_be_done(processes: int) -> None:
    job = Job(4 * processes, workers=1, processes=processes)
    job.assign(1)
    while job.phase is JobPhase.RUNNING:
        job.finish(1, next(iter(job.has[1])), run=10.0)
        job.assign(1)
        assert len(job.has[1]) >= processes or job.scheduler.held == job.scheduler.left


def test_short_mini_batches_are_not_sent_one_by_one() -> None:
    job = settled_worker(0.001)
    job.assign(1)
    job.finish(1, next(iter(job.has[1])), run=0.001)
    assert job.assign(1) == {}


def test_a_worker_gets_nothing_before_a_process_is_ready_nor_after_it_is_gone() -> None:
    job = Job(9)
    job.add(1, ready=False)
    assert job.assign(1) == {}
    job.ready(1, 0)
    assert job.assign(1)
    job.finish(1)
    job.gone(1, 0)
    assert job.assign(1) == {}


# Mini-batches that share what is decoded for them


def test_neighbours_of_a_row_group_stay_at_one_worker() -> None:
    job = Job(40, workers=4, stay=10)
    owners: dict[int, set[int]] = {}
    while job.scheduler.left > 20:
        for worker in job.has:
            for number in job.assign(worker):
                owners.setdefault(number // 10, set()).add(worker)
            job.finish(worker)
    assert sorted(owners.values(), key=str) == [{1}, {2}, {3}, {4}]


def test_who_has_nothing_left_takes_half_of_what_the_longest_stay_has_left() -> None:
    job = Job(16, workers=2, stay=16)
    assert min(job.assign(1)) == 0
    assert min(job.assign(2)) in range(7, 10)
    job.finish_all()
    assert job.scheduler.counts().done == 16


def test_the_rest_of_a_lost_workers_stay_is_handed_out() -> None:
    job = Job(20, workers=2, stay=10)
    job.assign_all()
    job.lose(1)
    job.finish_all()
    assert job.scheduler.counts().done == 20
