"""Open a run: new, resumed, reopened for its failed mini-batches, or complete already.

``run.json`` is written last, so where it exists the manifest is whole; whatever a crash left before that is made anew.
It has the id of the run, which manifest and journal have as well, and the manifest's digest: files of two runs do not
mix. A run of a version that knew none of these has empty ones, and goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs import __version__
from mpi_prs.child.rows.columns import read_columns
from mpi_prs.child.rows.row_format import Form, form_of
from mpi_prs.core.contents import Sources
from mpi_prs.core.errors import OutputError, WorkspaceError
from mpi_prs.core.files import NoRegularFile, empty_folder, own_file, replacing
from mpi_prs.core.records import read_dataclass, read_json, write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.inputs.manifest import Manifest, digest_of, write_manifest
from mpi_prs.inputs.reader.survey import plan_apart
from mpi_prs.job.config.model import JobConfig
from mpi_prs.job.run.fingerprint import changes_manifest, differences, fingerprint, sealed
from mpi_prs.job.run.ownership import check_ownership, refuse_links
from mpi_prs.job.run.run_lock import RunLock
from mpi_prs.job.run.sources import changes, gather, gather_here, with_stores
from mpi_prs.output.append_row import AppendRow, put_aside, storage_errors, take_up
from mpi_prs.output.journal import read_journal
from mpi_prs.output.ledger import Ledger, Replay, read_ledger
from mpi_prs.output.ordering import finishing_file
from mpi_prs.output.script_files import remove_strays
from mpi_prs.slurm.environment import SlurmEnvironment

_log = logging.getLogger("mpi_prs.job")

_LOCK_SECONDS = 150.0
"""An NFS server keeps the locks of a silent client for 90 s by default, and then another while for its own restart."""

_PLACE_OF_ROWS = ("output_action", "append_row_file_name")
"""With another value of these, the rows of finished mini-batches would not be where they are looked for."""


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks for, beyond the job config.

    Attributes:
        overwrite: throw away what an earlier run has left.
        only_failed: try the failed mini-batches of an earlier run again, too.
        accept_changes: resume although the script or its arguments are others than before.
        accept_owner: go on in a run directory of another user.
        limit: work on the first so many mini-batches only.
    """

    overwrite: bool = False
    only_failed: bool = False
    accept_changes: bool = False
    accept_owner: bool = False
    limit: int | None = None


@dataclass
class OpenRun:
    """A run that this process holds the lock of.

    Attributes:
        directory: its paths.
        id: names the run; empty for one from before there were ids.
        manifest: its mini-batches.
        ledger: what is done already.
        output: the open output; ``None`` when the run is complete.
        token: names this start.
    """

    directory: RunDirectory
    id: str
    manifest: Manifest
    ledger: Ledger
    output: AppendRow | None
    token: str
    _lock: RunLock

    def close(self) -> None:
        """Close the output and let others in."""
        if self.output is not None:
            self.output.close()
        self._lock.release()


def open_run(config: JobConfig, options: RunOptions, listed: Callable[[int], None] | None = None) -> OpenRun:
    """Open the run that ``config`` and ``options`` describe; lists the inputs if it is new.

    Raises:
        OutputError: the output is not writable, in use, of another run, or of something else.
        InputError: a new run's inputs cannot be listed.
        JobStopped: the disk is full or the like.
    """
    directory = RunDirectory(config.output)
    with storage_errors(directory.output):
        check_ownership(directory, options.accept_owner)
        _make_folders(directory)
        lock = RunLock(directory.lock, _patience())
        try:
            directory.cancelled.unlink(missing_ok=True)
            if options.overwrite and not _was_begun_by_this_job(directory):
                _remove_run(directory, config)
            refuse_links(directory)
            if directory.description.exists():
                _accept_or_refuse(directory, config, options)
            else:
                _begin(directory, config, listed)
            return _resume(directory, config, options, lock)
        except BaseException:
            lock.release()
            raise


def is_complete_already(config: JobConfig, options: RunOptions) -> bool:
    """Whether :func:`open_run` would find nothing to do, and the output where it belongs. Changes nothing.

    Raises:
        OutputError: it would refuse, because of another run's settings or of files that are not from a run.
    """
    directory = RunDirectory(config.output)
    check_ownership(directory, options.accept_owner)
    if options.overwrite:
        return False
    refuse_links(directory)
    if not directory.description.exists():
        _check_nothing_is_there(directory, config)
        return False
    description, _ = _check_same(directory, config, options)
    if not directory.journal.exists():
        return False
    rows = config.output_action == "append_row"
    return _needs_no_work(read_ledger(directory.journal, None, _id_of(description)), options) and (
        not rows or directory.output_file(config.append_row_file_name).exists()
    )


def _needs_no_work(ledger: Ledger, options: RunOptions) -> bool:
    return ledger.complete and not (options.only_failed and ledger.has_failed)


def _was_begun_by_this_job(directory: RunDirectory) -> bool:
    """Whether an earlier start of the same batch job began this run: the job was requeued, or lost its MPI. Its script
    gives the same options each time, and ``--overwrite`` must not throw away what the job itself has done."""
    slurm = SlurmEnvironment.of()
    if slurm is None or not slurm.by_batch_script:
        return False
    try:
        return bool(_read_description(directory).get("slurm_job_id") == slurm.job_id)
    except OutputError:
        return False


def _patience() -> float:
    """Seconds to wait for the lock: only one that a lost node has left goes away by itself."""
    slurm = SlurmEnvironment.of()
    return _LOCK_SECONDS if slurm is not None and slurm.is_restart else 0.0


def _make_folders(directory: RunDirectory) -> None:
    for folder in (directory.output, directory.root):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise OutputError(f"the output {folder} is a file; expected a folder. Choose another one") from None
        except NotADirectoryError:
            raise OutputError(f"the output {folder} lies below something that is not a folder") from None
        except OSError as error:
            raise OutputError(f"cannot create the output folder {folder}: {error.strerror}") from error
    for folder in (directory.output, directory.root):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"the output folder {folder} is not writable for you; choose another one")


def _remove_run(directory: RunDirectory, config: JobConfig) -> None:
    names = {config.append_row_file_name, _old_output_name(directory) or config.append_row_file_name}
    directory.description.unlink(missing_ok=True)  # first: without it there is no run
    for name in names:
        part = directory.partial_output_file(name)
        for path in (directory.output_file(name), part, finishing_file(part)):
            path.unlink(missing_ok=True)
    remove_strays(directory.script_files, Ledger())
    empty_folder(directory.root, keep=(directory.lock.name, directory.slurm.name))


def _old_output_name(directory: RunDirectory) -> str | None:
    """The name of an earlier run's output file, as far as its description can be read and trusted."""
    try:
        name = _read_description(directory)["fingerprint"].get("append_row_file_name")
    except OutputError:
        return None
    return name if isinstance(name, str) and name == Path(name).name else None


def _begin(directory: RunDirectory, config: JobConfig, listed: Callable[[int], None] | None) -> None:
    """List the inputs, freeze them in the manifest, and write down what the run is."""
    _check_nothing_is_there(directory, config)
    directory.journal.unlink(missing_ok=True)
    run = uuid.uuid4().hex
    with ThreadPoolExecutor(1, thread_name_prefix="sources") as meanwhile:
        sources = meanwhile.submit(gather_here, config, run)
        planned = plan_apart(config.datasets(), config.batch_size(), config.partition_keys)
        write_manifest(directory.manifest, planned, run=run, progress=listed)
        write_dataclass(directory.sources, with_stores(sources.result(), config), lasting=True)
    description = {
        "id": run,
        "manifest_sha256": digest_of(directory.manifest),
        "name": config.name,
        "version": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "slurm_job_id": slurm.job_id if (slurm := SlurmEnvironment.of()) else None,
        "fingerprint": fingerprint(config),
    }
    _describe(directory, description)


def _check_nothing_is_there(directory: RunDirectory, config: JobConfig) -> None:
    """Refuse to take an output for our own that no run is known of."""
    if config.output_action != "append_row":
        return
    name = config.append_row_file_name
    for path in (directory.output_file(name), directory.partial_output_file(name)):
        if path.exists():
            raise OutputError(
                f"{path} is there already, and it is not from a run known in {directory.root}. Move it away, "
                "choose another output, or throw it away with --overwrite"
            )


def _accept_or_refuse(directory: RunDirectory, config: JobConfig, options: RunOptions) -> None:
    """Resume with the settings of the run, or with other ones that were accepted."""
    description, lines = _check_same(directory, config, options)
    if lines:
        _log.warning("going on with changed settings; finished mini-batches keep their rows:\n%s", lines)
        write_dataclass(directory.sources, gather(config, _id_of(description)), lasting=True)
        _describe(directory, {**description, "fingerprint": fingerprint(config)})


def _check_same(directory: RunDirectory, config: JobConfig, options: RunOptions) -> tuple[dict[str, Any], str]:
    """Refuse to mix rows of two different jobs, and show what differs; returns the run's description and what differs
    of it by consent."""
    description = _read_description(directory)
    old, new = sealed(description["fingerprint"]), fingerprint(config)
    different = differences(old, new) + _changed_sources(directory, config, _id_of(description))
    if not different:
        return description, ""
    lines = "\n".join(f"  {line}" for line in different)
    mixes_rows = changes_manifest(old, new) or any(old.get(key) != new.get(key) for key in _PLACE_OF_ROWS)
    if (options.accept_changes or options.only_failed) and not mixes_rows:
        return description, lines
    hint = "--overwrite starts anew, --output DIR writes elsewhere"
    if not mixes_rows:
        hint = f"--accept-changes goes on and keeps the finished rows, {hint}"
    raise OutputError(f"{directory.output} holds a run with other settings:\n{lines}\n{hint}")


def changed_since(config: JobConfig) -> list[str]:
    """What differs from the run in the output folder, a line each; changes nothing.

    Raises:
        OutputError: there is no run, or one whose mini-batches are others.
    """
    directory = RunDirectory(config.output)
    description = _read_description(directory)
    old, new = sealed(description["fingerprint"]), fingerprint(config)
    lines = [*differences(old, new), *_changed_sources(directory, config, _id_of(description))]
    if changes_manifest(old, new) or any(old.get(key) != new.get(key) for key in _PLACE_OF_ROWS):
        shown = "\n".join(f"  {line}" for line in lines)
        raise OutputError(
            f"{directory.output} holds the run of another job:\n{shown}\n"
            "give the config it was run with, and the same --set"
        )
    return lines


def _changed_sources(directory: RunDirectory, config: JobConfig, run: str) -> list[str]:
    """A line for each key whose files are others than when the run was begun."""
    if not directory.sources.exists():  # begun by a version that did not ask
        return []
    then = read_dataclass(Sources, directory.sources)
    if then is None or then.run != run:
        return [f"{directory.sources}: cannot be read, or is of another run, so nobody knows which code has changed"]
    return changes(then, config, _at_work_until(directory))


def _at_work_until(directory: RunDirectory) -> int:
    """When the run was at work last, in nanoseconds since 1970. The journal alone does not tell: a mini-batch may take
    long, and nothing is written there when a job is killed."""
    times = [0]
    for path in (directory.journal, directory.status):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def _read_description(directory: RunDirectory) -> dict[str, Any]:
    """What the run is, by its own word; raises OutputError where that cannot be read."""
    try:
        description = read_json(directory.description, "the run")
        if not isinstance(description.get("fingerprint"), dict):
            raise ValueError("it has no fingerprint")
    except (OSError, ValueError, WorkspaceError) as error:
        raise OutputError(f"{directory.description} cannot be read ({error}); start anew with --overwrite") from error
    return description


def _id_of(description: dict[str, Any]) -> str:
    return str(description.get("id", ""))


def _resume(directory: RunDirectory, config: JobConfig, options: RunOptions, lock: RunLock) -> OpenRun:
    description = _read_description(directory)
    run = _id_of(description)
    manifest = Manifest.open(directory.manifest, run)
    rows = config.output_action == "append_row"
    part = directory.partial_output_file(config.append_row_file_name) if rows else None
    final = directory.output_file(config.append_row_file_name)
    replay = Replay(directory.journal, run, manifest.mini_batches) if directory.journal.exists() else None
    ledger = replay.claimed() if replay is not None else Ledger()
    if _needs_no_work(ledger, options):
        if part is None or final.exists():
            if part is not None:
                put_aside(part, directory.kept_rows, keep=ledger.has_failed)
            with contextlib.suppress(OSError):
                empty_folder(directory.spill)  # killed before that was done
            return OpenRun(directory, run, manifest, ledger, None, "", lock)
        if not part.exists() and not directory.kept_rows.exists():
            raise OutputError(f"the run is complete, but its output {final} is gone; start anew with --overwrite")
        # Killed while it was being reopened: complete it again.
    if run and digest_of(directory.manifest) != description.get("manifest_sha256"):
        raise OutputError(
            f"the manifest {directory.manifest} is not the one that the run was begun with: put that back, or start "
            "the run anew with --overwrite"
        )
    if part is not None:
        take_up(part, final, directory.kept_rows)
        if replay is not None:
            ledger = replay.checked(part)
    token = uuid.uuid4().hex
    directory.spill.mkdir(exist_ok=True)
    empty_folder(directory.spill)
    remove_strays(directory.script_files, ledger)
    if not ledger.output_end:  # nothing is written, so nothing stands below the columns of an earlier start
        directory.columns.unlink(missing_ok=True)
    elif rows and form_of(final.name) is Form.TEXT and run:
        _check_columns(directory, run)
    with open(directory.token, "w", encoding="ascii", opener=own_file) as file:  # in place: a node may cache the name
        file.write(token)
    output = AppendRow(part, directory.journal, ledger, run)
    if options.only_failed and ledger.has_failed:
        output.event("reopened", time=time.time())
        ledger.reopen()
    output.event("start", time=time.time(), start=ledger.starts + 1)
    return OpenRun(directory, run, manifest, ledger, output, token, lock)


def _check_columns(directory: RunDirectory, run: str) -> None:
    """Refuse to write further rows of DataFrames in another order than those before."""
    try:
        read_columns(directory.columns, run)
    except FileNotFoundError:
        results = (entry.results for entry in read_journal(directory.journal) if entry.results is not None)
        first = next((each for each in results if each.length), None)  # items that failed alone have no rows
        if first is not None and not first.records:  # the header; lists of rows have none
            raise OutputError(
                f"{directory.columns} is gone, and with it the order of the columns below the header of the output: "
                "put it back, or start the run anew with --overwrite"
            ) from None
    except (NoRegularFile, ValueError) as error:
        raise OutputError(str(error)) from None


def _describe(directory: RunDirectory, description: dict[str, Any]) -> None:
    with replacing(directory.description, lasting=True, mode=0o600) as file:  # not all secrets look like one
        file.write(json.dumps(description, indent=2).encode() + b"\n")
