"""Whether a new user process has imported the code, and loaded the models, that the run was begun with.

Somebody who edits a module while the job is at work changes nothing for processes that run, and all for one that takes
the place of another: its rows would be of another version. So when a process is ready, the worker looks at sizes and
times, once for all its processes, and reads what small files differ in these.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mpi_prs.core.contents import Content, Sources, content_of, has_changed, is_built
from mpi_prs.core.records import read_dataclass
from mpi_prs.core.urls import is_url

_SMALL = 1 << 20
"""Bytes up to which a file is read where its time is another: a worker has other things to do."""
_MOST = 2_000
"""Files that are looked at: some seconds' time where a file server is slow."""
_KEYS = ("side_inputs", "arguments", "environment_variables", "source_directory")
"""Those of the record that say what no script writes."""


class CodeCheck:
    """The files that decide the output of a run, as one node sees them.

    Files elsewhere than in the source directory may be copies of the node's own, with times of their own: they count as
    they are found here first. So does what is compiled, which the first ``init()`` may have made anew. The same goes
    for large files; another size always tells.
    """

    def __init__(self, sources: Path, log: logging.Logger) -> None:
        """
        Args:
            sources: the run's ``sources.json``; where there is none, nothing is checked.
            log: gets what cannot be seen.
        """
        self._log = log
        found = read_dataclass(Sources, sources)
        if found is None:
            log.warning("%s cannot be read: a change of the code would not be noticed", sources)
        files = {} if found is None else found.files
        self._looked = False
        self._own = {path for path in files.get("source_directory", {}) if not is_built(path)}
        everything = {path: then for key in _KEYS for path, then in files.get(key, {}).items()}
        local = [(path, then) for path, then in everything.items() if not is_url(path)]
        self._then = dict(local[:_MOST])
        if len(local) > _MOST:
            log.warning(
                "of %d files that decide the output, changes of the first %d would be noticed", len(local), _MOST
            )

    def changed(self) -> str | None:
        """The path of a file that is not what it was when the run was begun; ``None``: all are. About 10 µs a file, and
        a millisecond where its attributes come from a file server."""
        found = self._first_look() if not self._looked else self._next_look()
        self._looked = True
        return found

    def _first_look(self) -> str | None:
        here = {}
        for path, then in self._then.items():
            with self._seen(path):
                found = os.stat(path)
                if path in self._own and self._differs(found.st_size, path, then):
                    return path
                here[path] = Content(found.st_size, found.st_mtime_ns, found.st_ino, then.sha256)
                if is_built(path) and (found.st_size, found.st_mtime_ns) != (then.size, then.changed):
                    here[path] = content_of(path, _SMALL)
        self._then = here
        return None

    def _differs(self, size: int, path: str, then: Content) -> bool:
        if then.sha256 and then.size <= _SMALL:
            return has_changed(path, then, _SMALL)
        return size != then.size

    def _next_look(self) -> str | None:
        for path, then in self._then.items():
            with self._seen(path):
                os.stat(path)
                if has_changed(path, then, _SMALL):
                    return path
        return None

    @contextlib.contextmanager
    def _seen(self, path: str) -> Iterator[None]:
        """What is gone makes itself felt, if anybody needs it."""
        try:
            yield
        except FileNotFoundError:
            pass
        except OSError as error:
            self._log.warning("cannot see whether %s has changed: %s", path, error.strerror)
