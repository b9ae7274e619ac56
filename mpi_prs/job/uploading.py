"""The finished output, stored where ``output_url`` says."""

from __future__ import annotations

import json
import logging
from typing import Any

from mpi_prs.errors import JobStopped, OutputError
from mpi_prs.job.config import JobConfig
from mpi_prs.replacing import replacing
from mpi_prs.run_directory import RunDirectory
from mpi_prs.storage.upload import check_upload, upload

_log = logging.getLogger("mpi_prs.job")


def output_blob(config: JobConfig) -> str | None:
    """The URL of the output file; ``None``: it is not uploaded."""
    if config.output_url is None or config.output_action != "append_row":
        return None
    return f"{config.output_url.rstrip('/')}/{config.append_row_file_name}"


def check_destination(config: JobConfig) -> None:
    """Try whether the output can be stored where it should go, before the night's work and not after it.

    Raises:
        OutputError: it cannot; the message says why.
    """
    if (url := output_blob(config)) is not None:
        check_upload(url, config.storage.storage())


def upload_output(config: JobConfig, directory: RunDirectory) -> None:
    """Upload the complete output, unless this very file has been uploaded already.

    Raises:
        JobStopped: the store cannot be reached, or refuses; the same command tries again.
    """
    url = output_blob(config)
    if url is None:
        return
    file = directory.output_file(config.append_row_file_name)
    status = file.stat()
    told: dict[str, Any] = {"url": url, "bytes": status.st_size, "changed": status.st_mtime_ns}
    try:
        if json.loads(directory.uploaded.read_bytes()) == told:
            return
    except (OSError, ValueError):
        pass
    _log.info("uploading the output to %s (%d bytes)", url, status.st_size)
    try:
        upload(file, url, config.storage.storage())
    except OutputError as error:
        raise JobStopped(str(error)) from error
    with replacing(directory.uploaded, lasting=True) as marker:
        marker.write(json.dumps(told).encode())
