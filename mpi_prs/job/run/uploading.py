"""The finished output folder, stored where ``output_url`` says.

::

    what the script has written there, file by file ─► the append_row file ─► _run/uploaded.json
                                                         last: who sees it sees all

The run directory stays here. What was uploaded and has not changed since is not uploaded again, so a start that is
killed on the way loses little.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mpi_prs.core.errors import JobStopped, OutputError
from mpi_prs.core.files import replacing, walk
from mpi_prs.core.records import read_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.urls import is_web, percent_encoded
from mpi_prs.job.config.model import JobConfig
from mpi_prs.storage.upload import check_upload, upload, upload_all

_log = logging.getLogger("mpi_prs.job")

_FILES_A_RECORD = 500
"""So many files at least are uploaded between two updates of the record, and an eighth of those that it has already: it
is written as a whole, so that a million files would otherwise write it two thousand times."""


def check_destination(config: JobConfig) -> None:
    """Try whether the output can be stored where it should go, before the night's work and not after it.

    Raises:
        OutputError: it cannot; the message says why.
    """
    if config.output_url is not None:
        check_upload(url_below(config.output_url, config.append_row_file_name), config.storage.storage())


def upload_output(config: JobConfig, directory: RunDirectory) -> None:
    """Upload everything in the output folder of a complete run, but what has been uploaded already.

    Raises:
        JobStopped: the store cannot be reached, or refuses; the same command tries again.
    """
    if config.output_url is None:
        return
    rows = config.append_row_file_name if config.output_action == "append_row" else None
    try:
        record = _Record(directory, config.output_url)
        storage = config.storage.storage()
        left = (name for name in _names_below(directory) if name != rows and record.is_new(directory.output / name))
        while names := list(islice(left, max(_FILES_A_RECORD, len(record) // 8))):
            _log.info("uploading %d files of the output folder to %s", len(names), config.output_url)
            paths = [directory.output / name for name in names]
            states = [_state(path) for path in paths]
            pairs = [(path, url_below(config.output_url, name)) for path, name in zip(paths, names, strict=True)]
            upload_all(pairs, storage)
            record.add(dict(zip(names, states, strict=True)))
        if rows is not None and record.is_new(file := directory.output_file(rows)):
            state, url = _state(file), url_below(config.output_url, rows)
            _log.info("uploading the output to %s (%d bytes)", url, state[0])
            upload(file, url, storage)
            record.add({rows: state})
    except OutputError as error:
        raise JobStopped(str(error)) from error
    except OSError as error:
        raise JobStopped(f"the output in {directory.output} cannot be uploaded: {error.strerror or error}") from error


def uploaded_files(directory: RunDirectory) -> dict[str, int]:
    """The files that have been uploaded, by their names below ``output_url``, with their sizes in bytes."""
    return {name: size for name, (size, _changed) in _read(directory.uploaded).files.items()}


def url_below(url: str, name: str) -> str:
    """The URL of a file in a folder. Names are percent-encoded where the folder's are, which is after ``http``."""
    below = percent_encoded(name) if is_web(url) else name
    return f"{url.rstrip('/')}/{below}"


_State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


@dataclass(frozen=True)
class Uploaded:
    """The content of ``uploaded.json``: where to, of which run, and name → state of each file."""

    url: str = ""
    run: str = ""
    files: dict[str, tuple[int, int]] = field(default_factory=dict)


class _Record:
    """What is in the store already."""

    def __init__(self, directory: RunDirectory, url: str) -> None:
        self._path = directory.uploaded
        self._url = url.rstrip("/")
        self._run = directory.run_id()
        known = _read(self._path)
        self._files = known.files if (known.url, known.run) == (self._url, self._run) else {}
        self._folder = directory.output

    def __len__(self) -> int:
        return len(self._files)

    def is_new(self, file: Path) -> bool:
        """Whether a file has not been uploaded as it is now."""
        return self._files.get(os.path.relpath(file, self._folder)) != _state(file)

    def add(self, files: dict[str, _State]) -> None:
        """These have been uploaded, in the state that they were in before."""
        self._files |= files
        with replacing(self._path, lasting=True) as marker:  # a million are too many for a dataclass's deep copy
            marker.write(json.dumps({"url": self._url, "run": self._run, "files": self._files}).encode())


def _read(path: Path) -> Uploaded:
    return read_dataclass(Uploaded, path) or Uploaded()


def _state(file: Path) -> _State:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _names_below(directory: RunDirectory) -> Iterator[str]:
    """The files of the output folder, sorted, without the run directory; links are followed."""
    own = f"{directory.root.name}/"
    for name in walk(directory.output, lambda name: name == own):
        if (directory.output / name).is_file():
            yield name
        else:
            _log.warning("%s is not uploaded: it is a broken link, or no file", directory.output / name)
