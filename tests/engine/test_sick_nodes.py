"""A sick node in a real job: it is benched, said everywhere, and no row is lost."""

from __future__ import annotations

import json
from collections.abc import Callable

from mpi_prs.output.journal import read_journal
from tests.support.jobs import Job, Mpi, assert_every_row_once

NewJob = Callable[..., Job]

SICK_RUN = """
import os, time

def run(mini_batch):
    if os.environ["SLURMD_NODENAME"] == "sick":
        raise OSError("no GPU")
    time.sleep(0.05)
    return [os.path.basename(path) for path in mini_batch]
"""

SICK_INIT = """
import os, time

def init():
    if os.environ["SLURMD_NODENAME"] == "sick":
        raise OSError("no GPU")

def run(mini_batch):
    time.sleep(0.05)
    return [os.path.basename(path) for path in mini_batch]
"""


def run_on(job: Job, mpi: Mpi, *nodes: str) -> str:
    """A rank on each of these nodes, of which the first is the master's. Returns what it said."""
    ranks = []
    for node in nodes:
        ranks += [":"] if ranks else []
        ranks += ["-n", "1", "env", f"SLURMD_NODENAME={node}", str(mpi.python), "-m", "mpi_prs", "run", str(job.config)]
    done = job.finish(job.start([*mpi.mpirun, *ranks]))
    assert done.returncode == 0, done.stdout
    return done.stdout


def assert_it_was_said(job: Job, said: str, why: str) -> None:
    status = json.loads(job.directory.status.read_text())
    assert status["benched_nodes"] == ["sick"]
    assert f"node sick is benched, it gets no more work: {why}" in job.directory.progress_overview.read_text()
    assert f"benched nodes sick: {why}" in said
    assert f"benched nodes sick: {why}" in job.directory.job_result.read_text()
    events = [entry.event for entry in read_journal(job.directory.journal) if entry.event is not None]
    assert [event["node"] for event in events if event["event"] == "benched"] == ["sick"]


def test_a_node_on_which_every_run_fails_is_benched_and_no_row_is_lost(mpi: Mpi, new_job: NewJob) -> None:
    job = new_job(SICK_RUN, items=200, mini_batch_size=2, run_max_try=2, error_threshold=0)
    said = run_on(job, mpi, "first", "first", "second", "sick")
    assert_every_row_once(job)
    assert_it_was_said(job, said, "5 mini-batches in a row failed there and succeeded on other nodes")


def test_a_node_on_which_init_always_fails_is_benched_and_no_row_is_lost(mpi: Mpi, new_job: NewJob) -> None:
    job = new_job(SICK_INIT, items=200, mini_batch_size=2, error_threshold=0)
    said = run_on(job, mpi, "first", "first", "sick")
    assert_every_row_once(job)
    assert_it_was_said(job, said, "init() has failed in all its user processes again and again")
