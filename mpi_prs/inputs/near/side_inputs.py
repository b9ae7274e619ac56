"""Side inputs: reference data that is there on every node before ``init()``, fetched once a node.

::

    node scratch/mpi_prs-side-<token>/    one for each start of a job
        lock                              held (shared) by every worker of the start on this node
        <name>.lock                       held by the one that fetches
        <name>.new/  ──rename──►  <name>/ complete

The kernel drops the locks of whoever dies. So what a killed worker has half fetched is fetched anew by the next; the
last worker that leaves removes the folder, and what killed ones left behind is removed by the next start on the node.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mpi_prs.core.errors import InputError
from mpi_prs.core.files import RUN_FOLDER, move, walk
from mpi_prs.core.locks import is_still, share, try_alone
from mpi_prs.core.urls import Names, is_url
from mpi_prs.inputs.near.staging import copy
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.downloading import begin_download, finish, local_name
from mpi_prs.storage.remote import list_urls

_PREFIX = "mpi_prs-side-"
_REFERENCE = re.compile(r"\$\{side_inputs\.([^}]*)\}")
_PAUSE = 0.05


@dataclass(frozen=True)
class SideInput:
    """Reference data.

    Attributes:
        name: for ``${side_inputs.NAME}``; a plain name.
        path: a file or folder, or a URL of one.
        mode: ``mount``: a path is used as it is; ``download``: it is copied to node-local scratch. URLs always are.
        storage: how to get at the store of a URL.
    """

    name: str
    path: str
    mode: Literal["mount", "download"] = "mount"
    storage: Storage = field(default_factory=Storage)

    @property
    def is_fetched(self) -> bool:
        """Whether it has to be brought to the node."""
        return is_url(self.path) or self.mode == "download"

    def secret(self) -> dict[str, Any]:
        """Everything, as JSON values, for :meth:`from_secret` in another process, by memory alone; credentials only of
        what is reached by URL.

        Raises:
            InputError: a file of credentials cannot be read.
        """
        storage = self.storage.secret() if is_url(self.path) else {}
        return {"name": self.name, "path": self.path, "mode": self.mode, "storage": storage}

    @classmethod
    def from_secret(cls, values: Mapping[str, Any]) -> SideInput:
        """The inverse of :meth:`secret`."""
        return cls(**{**values, "storage": Storage.from_secret(values["storage"])})


class Provided:
    """Side inputs that are here, until :meth:`close`.

    Attributes:
        paths: name → local path.
    """

    def __init__(self, paths: Mapping[str, str], folder: _Folder | None) -> None:
        self.paths = dict(paths)
        self._folder = folder

    def close(self) -> None:
        """This process needs them no longer; the last one of the node removes them. A second call does nothing."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.leave()


def provide(
    side_inputs: Sequence[SideInput],
    node_scratch: Path,
    token: str,
    *,
    check: Callable[[], None] = lambda: None,
) -> Provided:
    """Have the side inputs on this node; every worker of the node calls it, and one of them fetches. Blocks.

    Args:
        side_inputs: which.
        node_scratch: a folder that the workers of this node share, and no other node.
        token: of this start of the job; plain characters that nobody can guess.
        check: called now and then while another worker fetches; what it raises ends the waiting.

    Raises:
        InputError: one does not exist or cannot be fetched; all workers of the node raise the same.
    """
    paths = {}
    folder: _Folder | None = None
    try:
        for side_input in side_inputs:
            if side_input.is_fetched:
                if folder is None:
                    remove_stale(node_scratch)
                    folder = _Folder(node_scratch / (_PREFIX + token))
                paths[side_input.name] = folder.have(side_input, check)
            else:
                if not os.path.exists(side_input.path):
                    raise InputError(f"side_inputs.{side_input.name}: {side_input.path} does not exist on this node")
                paths[side_input.name] = os.path.abspath(side_input.path)
    except BaseException:
        if folder is not None:
            folder.leave()
        raise
    return Provided(paths, folder)


def begin_provide(
    side_inputs: Sequence[SideInput],
    node_scratch: Path,
    token: str,
    *,
    check: Callable[[], None],
) -> Future[Provided]:
    """:func:`provide` in a thread: a daemon, so that a filesystem that never answers keeps nobody from leaving."""
    given: Future[Provided] = Future()

    def fetch() -> None:
        try:
            given.set_result(provide(side_inputs, node_scratch, token, check=check))
        except BaseException as error:
            given.set_exception(error)

    threading.Thread(target=fetch, name="side inputs", daemon=True).start()
    return given


def substitute(arguments: Sequence[str], paths: Mapping[str, str]) -> list[str]:
    """The arguments with the path of a side input for each ``${side_inputs.NAME}``.

    Raises:
        ValueError: there is no side input of a name; the text lists those that there are.
    """

    def path(match: re.Match[str]) -> str:
        if match[1] not in paths:
            known = f"the names are {', '.join(sorted(paths))}" if paths else "there are none"
            raise ValueError(f"{match[0]}: there is no side input named {match[1]!r}; {known}")
        return paths[match[1]]

    return [_REFERENCE.sub(path, argument) for argument in arguments]


def substitute_values(variables: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """The same with the values of environment variables."""
    return dict(zip(variables, substitute(list(variables.values()), paths), strict=True))


def remove_stale(node_scratch: Path) -> None:
    """Remove the folders of starts of which no worker lives on this node."""
    with contextlib.suppress(OSError):
        for folder in node_scratch.glob(_PREFIX + "*"):
            with contextlib.suppress(OSError), _opened(folder / "lock", os.O_RDWR) as lock:
                if _is_ours(folder) and try_alone(lock):
                    _remove(folder)


class _Folder:
    """The folder of one start on this node; this process is one of its users from here to :meth:`leave`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        while True:
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not _is_ours(path):
                    raise InputError(f"side_inputs: {path} belongs to somebody else; set scratch to another folder")
                self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # removed as stale in this very moment
                continue
            except OSError as error:
                raise InputError(
                    f"side_inputs: cannot use the scratch folder {path.parent}: {error.strerror}; set scratch elsewhere"
                ) from None
            share(self._lock)
            if is_still(self._lock, path / "lock"):
                return
            os.close(self._lock)

    def have(self, side_input: SideInput, check: Callable[[], None]) -> str:
        """The local path of a side input, fetched by this process or another."""
        name = side_input.name
        complete, failed = self._path / name, self._path / f"{name}.failed"
        with _opened(self._path / f"{name}.lock", os.O_RDWR | os.O_CREAT) as lock:
            while not try_alone(lock):
                check()
                time.sleep(_PAUSE)
            if not complete.exists():
                with contextlib.suppress(FileNotFoundError):
                    raise InputError(failed.read_text("utf-8"))
                partial = self._path / f"{name}.new"
                shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
                try:
                    _fetch(side_input, partial, check)
                except InputError as error:
                    shutil.rmtree(partial, ignore_errors=True)
                    message = f"side_inputs.{name}: {error}"
                    failed.write_text(message, "utf-8")  # the others need not find out by themselves
                    raise InputError(message) from None
                move(partial, complete)
        [content] = os.listdir(complete)
        return str(complete / content)

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            if try_alone(self._lock):
                _remove(self._path)
        os.close(self._lock)


def _fetch(side_input: SideInput, folder: Path, check: Callable[[], None]) -> None:
    """Bring a file or folder into a new folder, under its own name. Raises InputError."""
    source, storage = side_input.path.rstrip("/"), side_input.storage
    path = local_name(source, storage) if is_url(source) else source
    target = folder / path.rpartition("/")[2]
    folder.mkdir(mode=0o700)
    if is_url(source):
        found = [url for url, _size in list_urls(side_input.path, storage, Names.ALL)]
        if found != [source] and not all(url.startswith(source + "/") for url in found):
            raise InputError(f"{source} is a glob; a side input is one file or one folder")
        pairs = [(url, Path(f"{target}{local_name(url, storage)[len(path) :]}")) for url in found]
        finish(begin_download(pairs, storage), check)
    elif os.path.isdir(source):
        target.mkdir()
        own = f"/{RUN_FOLDER}/"
        try:
            for name in walk(source, lambda name: f"/{name}".endswith(own)):
                copy(f"{source}/{name}", target / name, lambda _size: None, check)
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    elif os.path.exists(source):
        copy(source, target, lambda _size: None, check)
    else:
        raise InputError(f"{source} does not exist on this node")


def _remove(folder: Path) -> None:
    """The lock goes last: without it nobody would find the rest, should this process be killed at it."""
    for name in os.listdir(folder):
        if name != "lock":
            if (path := folder / name).is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    (folder / "lock").unlink()
    folder.rmdir()


# Locks


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # and with it its lock


def _is_ours(folder: Path) -> bool:
    found = os.lstat(folder)
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077 and folder.is_dir()
