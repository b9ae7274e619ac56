"""The guard: kills a worker's user processes, and what these started, when the worker dies by ``kill -9``.

A user process asks the kernel to die with its worker, but the processes that the user's script started know nothing of
that. So each worker keeps one tiny process beside it that reads a pipe. The worker writes ``+<group>`` when it starts a
user process and ``-<group>`` when that is gone; at the end of the pipe, which comes when the worker ends in whatever way,
the guard kills the groups that are left, removes the worker's scratch folder, and ends.

Started as ``python -I -S guard.py SCRATCH``; standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def main(scratch: str) -> None:
    """Read group ids from standard input until its end, then kill those that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # it ends when the worker ends, not before
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
