"""A real user process with its supervisor, for tests of what the worker learns of it."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi_prs.engine.awake import AwakeClock
from mpi_prs.engine.worker.guard_client import Guard
from mpi_prs.engine.worker.supervisor import UserProcess
from mpi_prs.engine.worker.trust import Trust
from mpi_prs.inputs.manifest import Loaded
from mpi_prs.wire.failure import Failure
from mpi_prs.wire.work import News, ProcessPlace, State
from tests.support.jobs import wait_until
from tests.support.processes import PLAIN, process_settings


class Supervised:
    """One user process, and all the news of it."""

    def __init__(self, folder: Path, script: str, **changes: Any) -> None:
        path = folder / "script.py"
        path.write_text(script)
        files = {"entry_script": str(path), "source_directory": str(folder), "spill": str(folder)}
        settings = process_settings(**files, columns=str(folder / "columns"), row_form=PLAIN, **changes)
        logs = {name: folder / f"{name}.txt" for name in ("stdout", "stderr", "error")}
        self.place = ProcessPlace(
            number=0, scratch=folder / "scratch", environment=dict(os.environ), placement="here", **logs
        )
        self.guard = Guard(folder / "scratch")
        self.process = UserProcess(settings, self.place, self.guard, Trust(), AwakeClock())
        self.rows = b""
        self.failures: list[Failure] = []
        self.unstarted: list[tuple[int, int, int]] = []
        self.rests = self.readies = self.suspects = 0
        self.gone = False
        self.wait(lambda: self.process.state is not State.STARTING)

    def send(self, first: int, *mini_batches: str, attempt: int = 1) -> None:
        payloads = [text.encode() for text in mini_batches]
        count = len(payloads)
        items = struct.pack(f"<{count}I", *[1] * count)
        sizes = struct.pack(f"<{count}I", *map(len, payloads))
        self.process.send(Loaded(first, count, items, sizes, b"".join(payloads)), attempt)

    def look(self) -> News:
        news = self.process.poll(time.monotonic())
        self.rows += b"".join(news.rows)
        self.failures += news.failures
        self.unstarted += [(chunk.first, chunk.count, chunk.attempt) for chunk in news.unstarted]
        self.rests += news.rests
        self.suspects += news.suspects
        self.readies += news.became_ready
        self.gone |= news.gone
        return news

    @property
    def failed(self) -> list[str]:
        return [failure.code for failure in self.failures]

    def wait(self, condition: Callable[[], object]) -> None:
        wait_until(lambda: self.look() and condition(), 30, lambda: str(vars(self)))

    def close(self) -> None:
        if not self.gone:
            self.process.kill()
            self.wait(lambda: self.gone)
        self.process.close()
        self.guard.close()
