"""The progress bar of a terminal, drawn by rich."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

_WIDTH = 20


class Bar:
    """One line at the bottom of a terminal; what is printed meanwhile appears above it.

    It is redrawn when it is updated and at no other time: no thread. Costs about a millisecond each time.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True)
        self._progress = Progress(
            BarColumn(bar_width=_WIDTH),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def update(self, done: int, total: int | None, text: str) -> None:
        """Show so much of the total; without one, the bar only says that something is going on."""
        room = max(1, self._console.width - _WIDTH - 2)  # a longer text would squeeze out the bar
        if len(text) > room:
            text = f"{text[: room - 1]}…"
        self._progress.update(self._task, completed=done, total=total, description=text, refresh=True)

    def print(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it is, and the terminal as it was."""
        self._progress.stop()
