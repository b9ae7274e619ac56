"""What made an output: ``_run/provenance.json``, and its essentials for the metadata of Parquet and HDF5.

::

    begin ──► a thread: the interpreter's packages; digests of large files ──► provenance.json
    first tick with workers: nodes, GPUs ─────────────────────────────────────────┘ │
    end: the outcome, in the start's entry ─────────────────────────────────────────┘

It is for people who ask later; that it cannot be written ends no job.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpi_prs import __version__
from mpi_prs.core.contents import Content, Sources, content_of
from mpi_prs.core.environ import HERE, without_rank
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import replacing
from mpi_prs.core.records import read_dataclass, read_json, write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import size
from mpi_prs.core.urls import is_url
from mpi_prs.engine.master.master import Master
from mpi_prs.engine.node import node_name
from mpi_prs.job.config.model import JobConfig
from mpi_prs.job.run.fingerprint import fingerprint
from mpi_prs.monitor.status import iso_time
from mpi_prs.slurm.environment import SlurmEnvironment

_log = logging.getLogger("mpi_prs.job")

_PACKAGES = Path(__file__).parents[2] / "child" / "packages.py"
_ASK_SECONDS = 120.0
_WAIT_SECONDS = 60.0
"""How long the end of a run waits for the digests of large files; they are read while it is at work."""
_LAST_SECONDS = 2.0
_MOST_READ = 100 << 30
"""Bytes of large files that are read for their digests: a minute or two of one core."""


class Provenance:
    """What is known of one start of a run, and of those before it."""

    def __init__(self, config: JobConfig, directory: RunDirectory, run: str) -> None:
        """Begins to look, in a thread."""
        self._config = config
        self._directory = directory
        self._run = run
        self._settings = fingerprint(config)
        self._lock = threading.Lock()
        self._sources = read_dataclass(Sources, directory.sources) or Sources(run)
        self._python: dict[str, Any] = {"problem": "not known yet"}
        slurm = SlurmEnvironment.of()
        self._start: dict[str, Any] = {
            "began": iso_time(time.time()),
            "ended": None,
            "outcome": None,
            "exit_code": None,
            "mpi_prs": __version__,
            "master": node_name(),
            "slurm_job_id": slurm.job_id if slurm else None,
            "workers": {},
            "gpus": {},
        }
        self._earlier = self._starts_so_far()
        self._looked = threading.Event()
        self._over = False
        self._write()
        threading.Thread(target=self._look, name="provenance", daemon=True).start()

    def on_tick(self, master: Master) -> None:
        """Note who works, as soon as that is known."""
        workers = dict(sorted(Counter(master.nodes.values()).items()))
        if workers != self._start["workers"]:
            self._start |= {"workers": workers, "gpus": dict(sorted(master.gpus.items()))}
            self._write()

    def essentials(self) -> dict[str, str]:
        """What goes into the output file itself; the same for the same job on the same files."""
        self._looked.wait(_WAIT_SECONDS)
        return {
            "mpi_prs": __version__,
            "name": self._config.name,
            "digest": self._digest(),
            "entry_script": self._config.entry_script.name,
            "entry_script_sha256": self._settings["entry_script_sha256"],
            "python": str(self._python.get("version", "")),
        }

    def end(self, outcome: str, exit_code: int) -> None:
        """Note how the start has ended."""
        self._looked.wait(_LAST_SECONDS)
        self._start |= {"ended": iso_time(time.time()), "outcome": outcome, "exit_code": exit_code}
        self._write()
        with self._lock:
            self._over = True  # the folder is others' business now

    def _starts_so_far(self) -> list[dict[str, Any]]:
        try:
            known = read_json(self._directory.provenance, "the provenance")
        except (OSError, WorkspaceError):
            return []
        starts = known.get("starts") if known.get("run") == self._run else None
        return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []

    def _look(self) -> None:
        try:
            self._python = _about_python(self._config)
            self._write()
            self._sources = _with_digests(self._sources)
            with self._lock:
                if self._directory.sources.exists() and not self._over:
                    write_dataclass(self._directory.sources, self._sources, lasting=True)
            self._write()
        except OSError as error:
            _log.warning("what made the output is not known in full: %s", error)
        finally:
            self._looked.set()

    def _digest(self) -> str:
        """Of settings and files. Of a file that was not read, its size has to do."""
        files = {
            key: {path: content.sha256 or content.size for path, content in sorted(known.items())}
            for key, known in self._sources.files.items()
        }
        return hashlib.sha256(json.dumps([self._settings, files], sort_keys=True).encode()).hexdigest()

    def _write(self) -> None:
        files = {
            key: {path: _described(content) for path, content in sorted(known.items())}
            for key, known in self._sources.files.items()
        }
        digest = self._digest()
        record = {
            "run": self._run,
            "name": self._config.name,
            "config": str(self._config.file),
            "digest": digest,
            "settings": self._settings,
            "files": files,
            "python": self._python,
            "starts": [*self._earlier, {**self._start, "digest": digest}],
        }
        try:
            with self._lock:
                if not self._over:
                    with replacing(self._directory.provenance, mode=0o600) as file:  # not all secrets look like one
                        file.write(json.dumps(record, indent=1).encode() + b"\n")
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._directory.provenance, error.strerror)


def _described(content: Content) -> dict[str, Any]:
    changed = iso_time(content.changed / 1e9) if content.changed else None
    return {"bytes": content.size, "changed": changed, "sha256": content.sha256 or None}


def _about_python(config: JobConfig) -> dict[str, Any]:
    """The interpreter of the user processes and its packages, as the master's node has them."""
    command = [str(config.environment or sys.executable), str(_PACKAGES)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**without_rank(HERE), **config.environment_variables},
            timeout=_ASK_SECONDS,
            check=True,
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return {"executable": command[0], "problem": f"it did not say what it is: {error}"}
    return found if isinstance(found, dict) else {"executable": command[0], "problem": "it did not say what it is"}


def _with_digests(sources: Sources) -> Sources:
    """The same with digests of those files that had been too large to read when the run was begun."""
    left = _MOST_READ
    files: dict[str, dict[str, Content]] = {}
    for key, known in sources.files.items():
        files[key] = dict(known)
        for path, then in known.items():
            if then.sha256 or is_url(path):
                continue
            if then.size > left:
                _log.warning("%s (%s) is known by size and time alone: that is much to read", path, size(then.size))
                continue
            try:
                now = content_of(path, None)
            except OSError as error:
                _log.warning("%s is known by size and time alone: %s", path, error.strerror)
                continue
            left -= now.size
            if (now.size, now.changed) == (then.size, then.changed):
                files[key][path] = replace(then, sha256=now.sha256)
    return replace(sources, files=files)
