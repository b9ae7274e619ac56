"""Several Python processes that do the same at the same time."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

from tests.support.jobs import REPOSITORY

_READY = "import sys; print('ready', flush=True); sys.stdin.readline()"


def together(count: int, code: str, *arguments: object) -> list[str]:
    """What so many processes print that run ``code`` at the same time.

    Each gets the arguments, and after them its number from 0 on. They start when all of them are ready.
    """
    with ExitStack() as stack:
        started = []
        for number in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", f"{_READY}\n{code}", *map(str, arguments), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=REPOSITORY,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)
    return said
