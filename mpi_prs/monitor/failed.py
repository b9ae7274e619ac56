"""What failed, from the journal and the manifest alone: a list for machines and a report for people."""

from __future__ import annotations

import abc
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mpi_prs.core.errors import OutputError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import count, many, printable
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.payload import names, names_of_items
from mpi_prs.monitor.columns import Columns, listen
from mpi_prs.monitor.status import outcome, read_status
from mpi_prs.output.journal import LostItems

SHORT = "short"
"""The reason of items that ``run()`` did not return, of a mini-batch that is done."""

_MOST_GROUPS = 200
_SHOWN_GROUPS = 12
_EXAMPLES = 3
_LONGEST = 160  # characters of a message


class Short(NamedTuple):
    """A finished mini-batch that returned fewer rows than it had items."""

    mini_batch: int
    items: int
    returned: int

    @property
    def message(self) -> str:
        """What is known of it, in a line."""
        return f"run() returned {self.returned} of {self.items}; which ones are missing is not known"


class _WhatFailed(abc.ABC):
    """A listener that is told what has failed. Failures before a ``reopened`` event don't hold any more."""

    def take_columns(self, columns: Columns) -> None:
        short = columns.records[columns.records["returned"] < columns.records["items"]]
        for mini_batch, items, returned in short[["mini_batch", "items", "returned"]].tolist():
            self.short(Short(mini_batch, items, returned))

    def take_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "reopened":
            self.reopened()
        elif event["event"] == "failed":
            self.failed(event)

    def take_lost(self, lost: LostItems, *, answered: bool) -> None:  # noqa: ARG002
        self.lost(lost)

    @abc.abstractmethod
    def lost(self, lost: LostItems) -> None:
        """Items of a mini-batch have failed each for itself."""

    @abc.abstractmethod
    def short(self, what: Short) -> None:
        """A mini-batch that is done returned too few."""

    @abc.abstractmethod
    def failed(self, event: dict[str, Any]) -> None:
        """A mini-batch has failed for good."""

    @abc.abstractmethod
    def reopened(self) -> None:
        """All that have failed are to be tried again."""


class FailedItems(_WhatFailed):
    """Writes every failed item as a line of JSON.

    A mini-batch that returned too few, of which nobody knows the missing ones, gives a single line::

        {"mini_batch", "items": [path, …], "missing", "reason": "short", "message"}

    Behind these, one that failed gives a line for each file, or for each range of a table's rows or bytes::

        {"item": path or range, "mini_batch", "reason", "message", "attempts", "node", "process", "log"}

    and an item that failed for itself the same, of its own, with "traceback". Of a table it is a row::

        "path, row 17", or "path, row 17 of those from byte 4096 on"

    Bytes of a path that are no text come back as :func:`os.fsdecode` would give them. Memory: bounded.

    Raises:
        OSError: the file cannot be written.
        OutputError: the manifest cannot be read.
    """

    def __init__(self, manifest: Manifest, path: Path, file: BinaryIO) -> None:
        """
        Args:
            path: where the list will be; what may not hold in the end is kept in the same folder meanwhile.
            file: to write it into.
        """
        self._manifest = manifest
        self._file = file
        self._failures = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  # closed by close()
        self._items_short = 0
        self._items_of_failures = 0

    def short(self, what: Short) -> None:
        missing = what.items - what.returned
        line = {
            "mini_batch": what.mini_batch,
            "items": names(self._manifest, what.mini_batch),
            "missing": missing,
            "reason": SHORT,
            "message": what.message,
        }
        self._file.write(json.dumps(line).encode("ascii") + b"\n")
        self._items_short += missing

    def failed(self, event: dict[str, Any]) -> None:
        number = event["mini_batch"]
        told = {
            "mini_batch": number,
            "reason": event["kind"],
            "message": event["message"],
            "attempts": event["attempt"],
            **{name: event[name] for name in ("node", "process", "log")},
        }
        for item in names(self._manifest, number):
            self._failures.write(json.dumps({"item": item, **told}).encode("ascii") + b"\n")
        self._items_of_failures += self._manifest.items_of(number)

    def lost(self, lost: LostItems) -> None:
        failure = lost.failure
        told = {
            "mini_batch": lost.mini_batch,
            "reason": failure["kind"],
            "message": failure["message"],
            "attempts": failure["attempt"],
            **{name: failure[name] for name in ("node", "process", "log", "traceback")},
        }
        place = failure.get("place")
        where = (
            [place] if place and isinstance(place, str) else names_of_items(self._manifest, lost.mini_batch, lost.at)
        )
        for item in where:
            self._failures.write(json.dumps({"item": item, **told}).encode("ascii") + b"\n")
        self._items_of_failures += len(lost.at)

    def reopened(self) -> None:
        self._failures.seek(0)
        self._failures.truncate()
        self._items_of_failures = 0

    def finish(self) -> int:
        """Complete the list; returns the number of failed items."""
        self._failures.seek(0)
        shutil.copyfileobj(self._failures, self._file)
        return self._items_short + self._items_of_failures

    def close(self) -> None:
        """Give up what was kept meanwhile."""
        self._failures.close()


@dataclass
class _Group:
    """Failures for the same reason.

    Attributes:
        reason: the kind and the first message, as it was.
        general: the same, without what varies.
        varies: whether the messages differ.
        failures, items: how many mini-batches and items.
        mini_batches: some of them, and which of their items failed; ``None``: all, or it is not known.
        traceback, logs: of some of them.
    """

    reason: str
    general: str
    varies: bool = False
    failures: int = 0
    items: int = 0
    mini_batches: list[tuple[int, list[int] | None]] = field(default_factory=list)
    traceback: str = ""
    logs: list[str] = field(default_factory=list)

    def add(
        self, mini_batch: int, items: int, reason: str, traceback: str, log: str, at: list[int] | None = None
    ) -> None:
        self.failures += 1
        self.items += items
        self.varies |= reason != self.reason
        self.traceback = self.traceback or traceback
        if len(self.mini_batches) < _EXAMPLES:
            self.mini_batches.append((mini_batch, at))
        if log and log not in self.logs and len(self.logs) < _EXAMPLES:
            self.logs.append(log)


def failed_report(run: RunDirectory) -> str:
    """What failed, grouped by reason, for people. Reads files only, also those of a run that is under way.

    Memory: some kilobytes for each of at most 200 reasons.

    Raises:
        OutputError: the journal or the manifest cannot be read.
    """
    lines = []
    status = read_status(run.status)
    if status is not None and status.exit_code and status.reason:
        lines.append(printable(f"The run has ended: {outcome(status.phase, status.reason, status.exit_code)}"))
    try:
        manifest, groups = _groups(run)
    except PermissionError as error:
        raise OutputError(f"cannot read {run.journal}: check its permissions") from error
    except (FileNotFoundError, OutputError):
        if run.journal.exists():
            raise
        groups = []
    if not groups:
        return "\n".join([*lines, "No mini-batch has failed."])
    items, mini_batches = sum(group.items for group in groups), sum(group.failures for group in groups)
    lines.append(
        f"{many(items, 'item')} of {many(mini_batches, 'mini-batch')} failed, for {many(len(groups), 'reason')}."
    )
    for group in groups[:_SHOWN_GROUPS]:
        lines += ["", *_described(group, manifest)]
    if len(groups) > _SHOWN_GROUPS:
        lines += ["", f"… and {many(len(groups) - _SHOWN_GROUPS, 'other reason')}"]
    lines += ["", f"Every failed item, once the run has ended: {run.failed_items}"]
    if any(not group.reason.startswith(f"{SHORT}: ") for group in groups):
        lines.append("To try the failed mini-batches again: mpi-prs run CONFIG --only-failed")
    if any(group.reason.startswith(f"{SHORT}: ") for group in groups):
        lines.append("A mini-batch that returned too few is not tried again: the rows it returned are in the output.")
    return "\n".join(lines)


def main_reason(run: RunDirectory) -> str:
    """Why most items of a run failed, with a traceback where there is one, for people; empty: no mini-batch has failed.

    Raises:
        OutputError: the journal or the manifest cannot be read.
    """
    try:
        manifest, groups = _groups(run)
    except FileNotFoundError:
        return ""
    if not groups:
        return ""
    lines = list(_described(groups[0], manifest))
    if len(groups) > 1:
        lines.append(f"… and {many(len(groups) - 1, 'other reason')}")
    return "\n".join(lines)


class _Groups(_WhatFailed):
    """Groups failures by their reasons. Memory: some kilobytes for each of at most 200."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._short: dict[str, _Group] = {}
        self._failed: dict[str, _Group] = {}

    def short(self, what: Short) -> None:
        reason = f"{SHORT}: {what.message}"
        _group(self._short, reason).add(what.mini_batch, what.items - what.returned, reason, "", "")

    def failed(self, event: dict[str, Any]) -> None:
        number, reason = event["mini_batch"], f"{event['kind']}: {_first_line(event['message'])}"
        traceback, log = event.get("traceback", ""), event.get("log", "")
        _group(self._failed, reason).add(number, self._manifest.items_of(number), reason, traceback, log)

    def lost(self, lost: LostItems) -> None:
        failure = lost.failure
        reason = f"{failure['kind']}: {_first_line(failure['message'])}"
        _group(self._failed, reason).add(
            lost.mini_batch, len(lost.at), reason, failure["traceback"], failure["log"], lost.at
        )

    def reopened(self) -> None:
        self._failed.clear()

    def largest_first(self) -> list[_Group]:
        return sorted([*self._failed.values(), *self._short.values()], key=lambda group: -group.items)


def _first_line(message: str) -> str:
    line = message.partition("\n")[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rpartition(' ')[0] or line[:_LONGEST]} …"


def _group(groups: dict[str, _Group], reason: str) -> _Group:
    general = generalised(reason)
    if general not in groups and len(groups) >= _MOST_GROUPS:
        general = "other reasons"
    return groups.setdefault(general, _Group(reason, general))


def _groups(run: RunDirectory) -> tuple[Manifest, list[_Group]]:
    """What failed, the largest group first."""
    manifest = Manifest.open(run.manifest)
    groups = _Groups(manifest)
    listen(run.journal, groups, mini_batches=manifest.mini_batches)
    return manifest, groups.largest_first()


# A quote that is an apostrophe stands inside a word.
_VARYING = (
    (re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\""), "'…'"),
    (re.compile(r"(?<![\w/])(?:[\w.~-]+:/)?[\w.~-]*(?:/[^\s/:;,()<>\[\]]+)+/?"), "…"),
    (re.compile(r"\b0x[0-9a-fA-F]+"), "#"),
    (re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?"), "#"),
)


def generalised(message: str) -> str:
    """A message without what varies from one failure to the next: quoted words, paths, numbers."""
    for pattern, stand_in in _VARYING:
        message = pattern.sub(stand_in, message)
    return message


def _described(group: _Group, manifest: Manifest) -> Iterator[str]:
    yield printable(group.general if group.varies else group.reason)
    if group.varies and not group.traceback:
        yield f"  such as: {printable(group.reason)}"
    yield f"  {many(group.items, 'item')} of {many(group.failures, 'mini-batch')}"
    if group.traceback:
        yield "  an example:"
        yield from (f"    {line}" for line in printable(group.traceback.strip("\n"), keep="\n\t").split("\n"))
    for number, at in group.mini_batches:
        described = names(manifest, number) if at is None else names_of_items(manifest, number, at)
        more = f" and {count(len(described) - 1)} more" if len(described) > 1 else ""
        yield f"  mini-batch {number}: {printable(described[0])}{more}"
    for log in group.logs:
        yield f"  log: {printable(log)}"
