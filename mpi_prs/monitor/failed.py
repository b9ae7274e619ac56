"""What failed, from the journal and the manifest alone: a list for machines and a report for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import replacing
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import count, many, printable
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.payload import names
from mpi_prs.monitor.columns import Columns, read_columns
from mpi_prs.monitor.status import outcome, read_status
from mpi_prs.output.journal import read_journal

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


def what_failed(journal: Path) -> Iterator[dict[str, Any] | Short]:
    """The ``failed`` events that still hold, and the mini-batches that returned too few. Reads the journal twice.

    Raises:
        OutputError, FileNotFoundError: see :func:`mpi_prs.output.journal.read_journal`.
    """
    events = (entry.event for entry in read_journal(journal))
    reopenings = sum(event is not None and event["event"] == "reopened" for event in events)
    for part in read_columns(journal):
        if isinstance(part, Columns):
            short = part.records[part.records["returned"] < part.records["items"]]
            for mini_batch, items, returned in short[["mini_batch", "items", "returned"]].tolist():
                yield Short(mini_batch, items, returned)
        elif part["event"] == "reopened":
            reopenings -= 1
        elif part["event"] == "failed" and not reopenings:
            yield part


def write_failed_items(journal: Path, manifest: Manifest, path: Path) -> int:
    """Write every failed item as a line of JSON; an older file is replaced. Returns the number of failed items.

    A mini-batch that failed gives a line for each file, or for each range of a table's rows or bytes::

        {"item": path or range, "mini_batch", "reason", "message", "attempts", "node", "process", "log"}

    and one that returned too few, of which nobody knows the missing ones, a single line::

        {"mini_batch", "items": [path, …], "missing", "reason": "short", "message"}

    Bytes of a path that are no text come back as :func:`os.fsdecode` would give them.

    Raises:
        OSError: the file cannot be written.
        OutputError: the journal or the manifest cannot be read.
    """
    failed = 0
    with replacing(path) as file:
        for what in what_failed(journal):
            number = what.mini_batch if isinstance(what, Short) else what["mini_batch"]
            described = names(manifest, number)
            if isinstance(what, Short):
                missing = what.items - what.returned
                lines = [
                    {
                        "mini_batch": number,
                        "items": described,
                        "missing": missing,
                        "reason": SHORT,
                        "message": what.message,
                    }
                ]
                failed += missing
            else:
                told = {
                    "mini_batch": number,
                    "reason": what["kind"],
                    "message": what["message"],
                    "attempts": what["attempt"],
                    **{name: what[name] for name in ("node", "process", "log")},
                }
                lines = [{"item": item, **told} for item in described]
                failed += manifest.items_of(number)
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode("ascii"))
    return failed


@dataclass
class _Group:
    """Failures for the same reason.

    Attributes:
        reason: the kind and the first message, as it was.
        general: the same, without what varies.
        varies: whether the messages differ.
        failures, items: how many mini-batches and items.
        mini_batches: some of them.
        traceback, logs: of some of them.
    """

    reason: str
    general: str
    varies: bool = False
    failures: int = 0
    items: int = 0
    mini_batches: list[int] = field(default_factory=list)
    traceback: str = ""
    logs: list[str] = field(default_factory=list)

    def add(self, mini_batch: int, items: int, reason: str, traceback: str, log: str) -> None:
        self.failures += 1
        self.items += items
        self.varies |= reason != self.reason
        self.traceback = self.traceback or traceback
        if len(self.mini_batches) < _EXAMPLES:
            self.mini_batches.append(mini_batch)
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
        manifest = Manifest.open(run.manifest)
        groups = sorted(_groups(run.journal, manifest), key=lambda group: -group.items)
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
        manifest = Manifest.open(run.manifest)
        groups = sorted(_groups(run.journal, manifest), key=lambda group: -group.items)
    except FileNotFoundError:
        return ""
    if not groups:
        return ""
    lines = list(_described(groups[0], manifest))
    if len(groups) > 1:
        lines.append(f"… and {many(len(groups) - 1, 'other reason')}")
    return "\n".join(lines)


def _groups(journal: Path, manifest: Manifest) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for what in what_failed(journal):
        if isinstance(what, Short):
            number, items, told = what.mini_batch, what.items - what.returned, {}
            reason = f"{SHORT}: {what.message}"
        else:
            number, told = what["mini_batch"], what
            items = manifest.items_of(number)
            first_line = what["message"].partition("\n")[0]
            reason = f"{what['kind']}: {first_line[:_LONGEST]}"
        general = generalised(reason)
        if general not in groups and len(groups) >= _MOST_GROUPS:
            general = "other reasons"
        group = groups.setdefault(general, _Group(reason, general))
        group.add(number, items, reason, told.get("traceback", ""), told.get("log", ""))
    return list(groups.values())


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
    yield f"  {many(group.items, 'item')} of {many(group.failures, 'mini-batch')}"
    if group.traceback:
        yield "  an example:"
        yield from (f"    {line}" for line in printable(group.traceback.strip("\n"), keep="\n\t").split("\n"))
    for number in group.mini_batches:
        described = names(manifest, number)
        more = f" and {count(len(described) - 1)} more" if len(described) > 1 else ""
        yield f"  mini-batch {number}: {printable(described[0])}{more}"
    for log in group.logs:
        yield f"  log: {printable(log)}"
