"""Real jobs whose stragglers are done by others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpi_prs.output.journal import read_journal
from tests.support.jobs import Job, Mpi, assert_every_row_once

NewJob = Callable[..., Job]

SCRIPT = """
import os, time

HERE = os.path.dirname(__file__)

def run(mini_batch, context):
    name = f"{context.minibatch_index}"
    if context.minibatch_index in (3, 12):
        try:
            os.mkdir(os.path.join(HERE, name))
        except FileExistsError:
            assert not context.is_part
            time.sleep(0.3)
        else:
            time.sleep(1000)
    time.sleep(0.05)
    return [os.path.basename(path) for path in mini_batch]
"""
"""Mini-batches 3 and 12 hang for whoever has them first."""


@pytest.mark.parametrize("under_mpi", [False, True])
def test_who_has_nothing_to_do_does_what_hangs_elsewhere(new_job: NewJob, mpich: Mpi, under_mpi: bool) -> None:
    settings = {"mini_batch_size": 1, "output_order": "input", "run_max_try": 1, "run_invocation_timeout": 60}
    job = new_job(SCRIPT, items=16, speculative_copies=True, **settings)
    done = job.under(mpich, ranks=5, timeout=50) if under_mpi else job.local(processes=4, timeout=50)
    assert done.returncode == 0, done.stdout
    assert job.rows() == job.names
    assert "ended, as another was done first" in done.stdout
    events = [entry.event for entry in read_journal(job.directory.journal) if entry.event is not None]
    ended = [event["mini_batch"] for event in events if event["event"] == "attempt_ended"]
    assert {3, 12} <= set(ended)  # and on a busy machine perhaps another one that took long
    assert len(set(ended)) == len(ended)
    assert not [event for event in events if event["event"] in ("attempt_failed", "failed")]
    assert job.ledger().done == set(range(16))


SHORT = """
import os, time

HERE = os.path.dirname(__file__)

def run(mini_batch, context):
    if context.minibatch_index == 200:
        with open(os.path.join(HERE, "calls"), "a") as file:
            file.write("x")
        try:
            os.mkdir(os.path.join(HERE, "begun"))
        except FileExistsError:
            pass
        else:
            time.sleep(1000)
    time.sleep(0.001)
    return [os.path.basename(path) for path in mini_batch]
"""


def test_what_was_done_elsewhere_is_not_begun_again_with_what_waited_behind_it(new_job: NewJob, mpich: Mpi) -> None:
    """Of short mini-batches several go to a process at once, and come back together when it is ended."""
    job = new_job(SHORT, items=400, mini_batch_size=1, speculative_copies=True, run_invocation_timeout=60)
    done = job.under(mpich, ranks=3, timeout=50)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert (job.folder / "calls").read_text() == "xx"
