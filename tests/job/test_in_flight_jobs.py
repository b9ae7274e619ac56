"""``async def run`` in whole jobs: what is in flight at once, and what a poisoned mini-batch costs the others."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.jobs import Job

NewJob = Callable[..., Job]

SCRIPT = """
import asyncio, os, threading, time

at_once = 0
together = None

async def init():
    global together
    together = asyncio.Event()

async def run(mini_batch, context):
    global at_once
    at_once += 1
    if at_once == 4:
        together.set()
    if context.minibatch_index == 5:
        # nobody can tell whose it is: the event loop goes on meanwhile
        await asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.2), os._exit(7)))
    if context.minibatch_index in (4, 6, 7):
        await asyncio.sleep(0.6)
    try:
        # alone, since it was in flight with the poisoned one, or one of the last
        await asyncio.wait_for(together.wait(), 1)
        print("together", flush=True)
    except asyncio.TimeoutError:
        print("alone", flush=True)
    at_once -= 1
    return [os.path.basename(path) for path in mini_batch]
"""


def test_a_mini_batch_that_kills_the_process_from_a_thread_fails_alone(new_job: NewJob) -> None:
    job = new_job(SCRIPT, 12, mini_batch_size=1, mini_batches_in_flight=4, run_max_try=2)
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert sorted(job.rows()) == [name for number, name in enumerate(job.names) if number != 5]
    (failure,) = job.ledger().failed
    assert failure == 5
    assert job.ledger().attempts == {}, "nobody else lost a try"
    assert {"together", "alone"} <= set(job.log("stdout").split())
