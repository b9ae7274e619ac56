"""``allow_reuse``: a step that has been run before, with the same code on the same inputs, is not run again.

::

    job config, compiled for a place that says nothing of this run ─┐
    files of the inputs: names, sizes, times of change              ├─► digest ─► reuse/DIGEST.json: who has done it
    of outputs of earlier steps: the runs that made them            ┘                    complete, and its output there?

Code and environment are in the job config: the snapshot is named by its content, a built environment by what it is made
of. Which models are registered is there too, since a script may ask for the latest one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mpi_prs.child.context.run_record import RunRecord, read_record
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.child.rows.row_format import form_of
from mpi_prs.core.errors import InputError, WorkspaceError
from mpi_prs.core.files import walk
from mpi_prs.core.records import read_json, write_json
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.urls import Names, is_url
from mpi_prs.engine.scheduler.states import JobPhase
from mpi_prs.inputs.listing import FileInput, list_files
from mpi_prs.job.config.model import JobConfig
from mpi_prs.job.run.uploading import uploaded_files, url_below
from mpi_prs.monitor.status import read_status
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import list_urls, list_versions

UPSTREAM = "/mpi_prs-upstream"
"""Stands for the place of earlier outputs: what follows is the step run that made one, and the output's name."""

LISTING_SECONDS = 60.0
"""So long the inputs are looked at. With more files than that allows a step is simply run again."""

_NO_MATTER = {"slurm", "description"}
_MOST_RUNS = 20
_CHECKED = 1000  # files between two looks at the clock


def digest_of(job: JobConfig, others: Sequence[str]) -> str:
    """What a step does, in a word.

    Args:
        job: the job config, compiled for a place that is the same in every run.
        others: what else counts: what :func:`digest_of_files` gives, and where outputs go.
    """
    what = job.model_dump(mode="json", exclude_unset=True, exclude=_NO_MATTER)
    text = json.dumps([what, *others], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def digest_of_files(config: JobConfig, clock: Callable[[], float] = time.monotonic) -> str | None:
    """What the files of a job's inputs and side inputs are known by, without those of earlier steps.

    Costs one ``stat`` for each file, or one request for 5,000 blobs.

    Returns:
        ``None``: there are too many for the time that this may take, or a store does not tell its versions.

    Raises:
        InputError: they cannot be listed.
    """
    found = hashlib.sha256()
    deadline = clock() + LISTING_SECONDS
    for number, (name, size, version) in enumerate(_files(config)):
        if not version or (number % _CHECKED == 0 and clock() > deadline):
            return None
        found.update(f"{name}\0{size}\0{version}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def check_inputs(config: JobConfig) -> None:
    """Whether each input has a first file. Costs little, and saves a wait in the queue. Raises InputError."""
    for section in config.inputs:
        dataset = section.to_dataset(config.storage.storage())
        if not any(_is_upstream(pattern) for pattern in dataset.input.files):
            next(iter(dataset.paths()))


def find_reusable(layout: WorkspaceFolder, digest: str, is_there: Callable[[RunRecord], bool]) -> RunRecord | None:
    """The latest step run that has done what the digest stands for, if it is complete and its output still there.

    Args:
        is_there: whether the output of a complete step run still is where it was.
    """
    for experiment, run_id in reversed(_known(layout, digest)):
        try:
            record = read_record(layout, experiment, run_id)
        except WorkspaceError:  # removed meanwhile
            continue
        if record.step is not None and is_complete(record) and is_there(record):
            return record
    return None


def remember(layout: WorkspaceFolder, digest: str, record: RunRecord) -> None:
    """A step run does what this digest stands for. Of two at once one may be forgotten, which costs a run and no more.

    Raises:
        WorkspaceError: it cannot be written.
    """
    runs = [*_known(layout, digest), (record.experiment, record.id)][-_MOST_RUNS:]
    write_json(layout.reusable(digest), {"runs": [list(run) for run in runs]})


def is_complete(record: RunRecord) -> bool:
    """Whether a step run has done all of its work, by its own word."""
    assert record.step is not None
    status = read_status(RunDirectory(Path(record.step.folder)).status)
    return status is not None and status.exit_code == 0 and status.phase == JobPhase.COMPLETE.value


def output_is_there(record: RunRecord, storage_of: Callable[[str], Storage | None]) -> bool:
    """Whether the output of a complete step run still is where it was.

    Args:
        storage_of: how to get at the datastore of a name; ``None``: there is no such datastore any more.
    """
    assert record.step is not None
    run = RunDirectory(Path(record.step.folder))
    for output in record.step.outputs.values():
        if is_url(output.url):
            storage = storage_of(output.datastore)
            if storage is None or not _blobs_are_there(output.url, uploaded_files(run), storage):
                return False
        elif not run.output.is_dir() or (record.step.rows is not None and not _rows_are_there(run, record.step.rows)):
            return False
    return True


def _rows_are_there(run: RunDirectory, name: str) -> bool:
    """Whether the file of the rows is as large as it was at the end; how large one is that was made of them at the end,
    is not on record."""
    status = read_status(run.status)
    try:
        size = run.output_file(name).stat().st_size
    except OSError:
        return False
    return size > 0 if form_of(name).is_made_at_the_end else status is not None and size == status.output_bytes


def _blobs_are_there(url: str, expected: Mapping[str, int], storage: Storage) -> bool:
    above = f"{url.rstrip('/')}/"
    try:
        found = dict(list_urls(above, storage, Names.ALL))
    except InputError:
        return False
    return all(found.get(url_below(url, name)) == size for name, size in expected.items())


def _known(layout: WorkspaceFolder, digest: str) -> list[tuple[str, str]]:
    path = layout.reusable(digest)
    try:
        return [
            (str(experiment), str(run_id)) for experiment, run_id in read_json(path, "what could be reused")["runs"]
        ]
    except (FileNotFoundError, WorkspaceError, LookupError, TypeError, ValueError):
        return []


# Files


def _files(config: JobConfig) -> Iterator[tuple[str, int, str]]:
    """Name, size and version of each file."""
    default = config.storage.storage()
    for section in config.inputs:
        dataset = section.to_dataset(default)
        if dataset.input.files_from is not None:
            yield from _local(dataset.paths())
            continue
        for pattern in dataset.input.files:
            if not _is_upstream(pattern):
                yield from _matching(pattern, dataset.storage)
    for name, side in sorted(config.side_inputs.items()):
        side_input = side.to_side_input(name, default)
        if not _is_upstream(side_input.path):
            yield from _below(side_input.path, side_input.storage)


def _is_upstream(path: str) -> bool:
    return path.startswith(f"{UPSTREAM}/")


def _matching(pattern: str, storage: Storage) -> Iterator[tuple[str, int, str]]:
    if is_url(pattern):
        yield from list_versions(pattern, storage)
    else:
        yield from _local(list_files(FileInput((pattern,))))


def _below(path: str, storage: Storage) -> Iterator[tuple[str, int, str]]:
    if is_url(path):
        yield from list_versions(path, storage, Names.ALL)
    elif os.path.isdir(path):
        yield from _local(os.fsencode(os.path.join(path, name)) for name in walk(path))
    else:
        yield from _local([os.fsencode(path)])


def _local(paths: Iterable[bytes]) -> Iterator[tuple[str, int, str]]:
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:  # gone meanwhile, or a broken link: whoever reads it will say so
            yield os.fsdecode(path), -1, "cannot be read"
        else:
            yield os.fsdecode(path), found.st_size, str(found.st_mtime_ns)
