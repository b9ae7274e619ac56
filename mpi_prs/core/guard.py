"""The guard: kills a worker's user processes, and what these started, when the worker dies by ``kill -9``.

A user process asks the kernel to die with its worker, but the processes that the user's script started know nothing of
that. So each worker keeps one tiny process beside it that reads a pipe. The worker writes ``+<group>`` when it starts a
user process and ``-<group>`` when that is gone; at the end of the pipe, which comes when the worker ends in whatever
way, the guard kills the groups that are left, removes the worker's scratch folder, and ends.

What the script has started is found in three ways:

* below the process in which it runs, whatever it has done to its environment or its session: whoever has lost its
  parent there becomes the child of the process of ours that waits above the script (``child/host.py``).
* by its group, where that process is dead.
* by the environment that it was started with, where it has left its group as well: in it is the mark, the private
  folder of the user process that it descends from.

Started as ``python -I -S guard.py SCRATCH VARIABLE``; standard library only, and nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def kill_below(root: int) -> None:
    """Kill every process that descends from ``root``, but not ``root`` itself.

    Nobody escapes where ``root`` is alive and adopts orphans: who is killed starts nothing more, and what has lost its
    parent while we looked is a child of ``root`` when we look again. Some 50 µs a thread of these. Where the kernel
    does not list children (it was built without ``CONFIG_PROC_CHILDREN``) it finds none.
    """
    killed: set[int] = set()
    dead: set[int] = set()
    quiet = 0
    while quiet < 2:
        before = len(killed) + len(dead)
        stack = _children(root)
        while stack:
            pid = stack.pop()
            if pid not in killed:
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if pid not in dead:
                stack += _children(pid)
                if _is_dead(pid):  # by now its children may be those of root
                    dead.add(pid)
        quiet = quiet + 1 if len(killed) + len(dead) == before else 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:  # it has ended
        pass
    return found


def _is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


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
    import shutil  # before it is needed: by then the filesystem may be gone, too

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # it ends when the worker ends, not before
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        kill_below(group)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    kill_marked(scratch, variable)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
