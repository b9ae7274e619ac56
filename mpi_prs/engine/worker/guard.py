"""The guard: kills a worker's user processes, and what these started, when the worker dies by ``kill -9``.

A user process asks the kernel to die with its worker, but the processes that the user's script started know nothing of
that. So each worker keeps one tiny process beside it that reads a pipe. The worker writes ``+<group>`` when it starts a
user process and ``-<group>`` when that is gone; at the end of the pipe, which comes when the worker ends in whatever
way, the guard kills the groups that are left, removes the worker's scratch folder, and ends.

A process that has left its group (a daemon, ``start_new_session=True``) still has the environment it was started with,
and in it the mark: the private folder of the user process that it descends from.

Started as ``python -I -S guard.py SCRATCH VARIABLE``; standard library only, and nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys


def kill_marked(folder: str, variable: str) -> None:
    """Kill every process whose mark lies in ``folder``, until there is none. Some 10 µs a process of the node.

    Args:
        variable: the name of the environment variable with the mark.
    """
    mark = os.fsencode(f"\0{variable}={folder.rstrip('/')}/")
    killed: set[int] = set()
    found = _marked(mark)
    while found:
        killed |= found
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        found = _marked(mark) - killed


def _marked(mark: bytes) -> set[int]:
    return {pid for pid in _pids() if _has(mark, pid)}


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _has(mark: bytes, pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in b"\0" + file.read()
    except OSError:  # it has ended, or is somebody else's
        return False


def main(scratch: str, variable: str) -> None:
    """Read group ids from standard input until its end, then kill those that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # it ends when the worker ends, not before
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    kill_marked(scratch, variable)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
