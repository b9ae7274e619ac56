"""What the journal keeps of failures: their messages, and each distinct traceback once.

::

    failure ──► {"event": "traceback", "id": 1, "text": …}   where it is a new one
            ──► {"event": "failed", …, "traceback_id": 1}     ──► reader: the text again

A million failed tries for one reason would otherwise write 16 kB each. A start keeps a thousand tracebacks of 4 kB;
the whole story is in the process's error log.
"""

from __future__ import annotations

import re
from typing import Any

from mpi_prs.core.secrecy import scrub
from mpi_prs.wire.failure import shorten

LONGEST_TRACEBACK = 4096
LONGEST_MESSAGE = 1024
MOST = 1000


class KeptTracebacks:
    """Those that this start has written down already."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def shortened(self, fields: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """A failure as it is kept, and before it the fields of an event that says its traceback, if that is new."""
        found = {**fields, "message": shorten(scrub(fields["message"]), LONGEST_MESSAGE), "traceback": ""}
        text = fields["traceback"]
        if not text:
            return None, found
        key = _what_is_alike(text)
        known = self._ids.get(key)
        if known is not None:
            return None, {**found, "traceback_id": known}
        if len(self._ids) >= MOST:
            return None, found
        number = self._ids[key] = len(self._ids) + 1
        said = {"id": number, "text": shorten(scrub(text), LONGEST_TRACEBACK)}
        return said, {**found, "traceback_id": number}


def _what_is_alike(text: str) -> str:
    """Of two tracebacks that differ in their values alone: where they were, and the type of the error."""
    lines = text.rstrip().split("\n")
    frames = [line for line in lines if line.startswith("  File ")]
    return (
        "\n".join([*frames, re.sub(r"\d+", "#", lines[-1].partition(":")[0])]) if frames else re.sub(r"\d+", "#", text)
    )


class ReadTracebacks:
    """Those of a journal that is read, of the start that is read."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def take(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event with its traceback, where it has one that was said before."""
        if event["event"] == "traceback":
            self._texts[event["id"]] = event["text"]
        elif event["event"] == "start":
            self._texts.clear()
        elif "traceback_id" in event and not event.get("traceback"):
            return {**event, "traceback": self._texts.get(event["traceback_id"], "")}
        return event
