"""Any other filesystem of fsspec: ``s3://``, ``gs://``, ``https://``, ``sftp://``, ``file://``, …"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mpi_prs.core.free_space import FULL
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.urls import Names, is_url, is_web
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.stores import (
    Entry,
    Listed,
    NotThere,
    Requests,
    StoredFile,
    StoreProblem,
    Trouble,
    disk,
    in_ranges,
    is_http_error,
    listed,
    run,
)

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class FsspecStore:
    """The filesystem of a protocol; implements :class:`~mpi_prs.storage.stores.Store`.

    Args:
        url: one of its URLs.
        storage: its ``options`` go to the filesystem.

    Raises:
        StoreProblem: there is no such protocol, a package is missing, or the options do not fit.
    """

    def __init__(self, url: str, storage: Storage) -> None:
        self._secrets = storage.secrets()
        self._requests = Requests(self._judge)
        self._protocol = url.partition("://")[0]
        if "::" in url:
            raise StoreProblem("chains of URLs (::) are not supported; name one file or folder")
        try:
            import fsspec
        except ImportError:
            raise StoreProblem("URLs need the package fsspec; install it with: pip install fsspec") from None
        try:
            kind = fsspec.get_filesystem_class(self._protocol)
            # What the URL itself says, such as the host of sftp://
            options = {**kind._get_kwargs_from_urls(url), **storage.options}
            self._filesystem = kind(**options, use_listings_cache=False, skip_instance_cache=True)
        except Exception as error:  # whatever the many filesystems raise
            raise StoreProblem(
                f"cannot use {self._protocol}://: {scrub(str(error), self._secrets)}"
                + (" (pip installs it)" if isinstance(error, ImportError) else "; check the URL and storage.options")
            ) from None

    def path_of(self, url: str) -> str:
        return str(self._path(url)).partition("://")[2] if is_web(url) else str(self._path(url)).lstrip("/")

    def _path(self, url: str) -> str:
        path: str = self._filesystem._strip_protocol(url)
        return path

    def list(self, url: str, names: Names) -> Iterator[Listed]:
        def exact(name: str) -> StoredFile | None:
            try:
                details = run(self._file, self._url_of(name))
            except NotThere:
                return None
            return StoredFile(int(details["size"]), _version(details))

        path = self._path(url) + ("/" if url.endswith("/") else "")
        return listed(_Listing(self, "/" if path.startswith("/") else ""), path, names, self._url_of, exact)

    def _url_of(self, path: str) -> str:
        return path if is_url(path) else f"{self._protocol}://{path}"

    async def look_up(self, url: str) -> StoredFile:
        # Without a version: a read cannot ask for one
        return StoredFile(int((await self._file(url))["size"]), "")

    async def _file(self, url: str) -> dict[str, Any]:
        """What the store says of a file, its size among it."""
        details: dict[str, Any] = await self.call("info", self._path(url))
        if details.get("type") == "directory":
            raise NotThere("it is a folder")
        if details.get("size") is None:
            raise StoreProblem("the server does not say how large it is")
        return details

    async def read_into(self, url: str, start: int, target: memoryview, version: str) -> None:  # noqa: ARG002
        path = self._path(url)

        async def one(part: tuple[int, int]) -> None:
            begin, stop = part
            data = await self.call("cat_file", path, start=begin, end=stop)
            if len(data) != stop - begin:
                raise StoreProblem(
                    f"asked for {stop - begin} bytes, got {len(data)}: the server gives no ranges, or the file changed"
                )
            target[begin - start : stop - start] = data

        await in_ranges(start, start + len(target), one)

    async def fetch(self, url: str, file: int, folder: Path, reserve: Callable[[int], None]) -> int:
        size = (await self.look_up(url)).size
        reserve(size)

        async def request() -> None:
            os.ftruncate(file, 0)
            try:  # by its descriptor: the file keeps its name of our choice
                await self._invoke("get_file", self._path(url), f"/proc/self/fd/{file}")
            except OSError as error:
                if error.errno in FULL:
                    with disk(folder):
                        raise
                raise
            if (written := os.fstat(file).st_size) != size:
                raise ConnectionError(f"{written} bytes came of {size}")

        await self._requests.send(request)
        return size

    async def put(self, path: Path, url: str) -> None:
        target = self._target(url)
        partial = f"{target}.part"
        size = path.stat().st_size
        await self.call("makedirs", os.path.dirname(target), exist_ok=True)
        await self.call("put_file", str(path), partial)
        await asyncio.to_thread(self._filesystem.mv, partial, target)
        stored = (await self.look_up(url)).size
        if stored != size:
            raise StoreProblem(f"{stored} bytes are stored of {size}")

    def _target(self, url: str) -> str:
        if is_web(url):
            raise StoreProblem("files cannot be uploaded to a web server; name a store, such as abfs://container/path")
        target = self._path(url)
        if not target or url.endswith("/"):
            raise StoreProblem("the URL names no file; expected one such as s3://bucket/folder/name")
        return target

    async def check_put(self, url: str) -> None:
        partial = self._target(url) + ".part"
        await self.call("makedirs", os.path.dirname(partial), exist_ok=True)
        await self.call("pipe_file", partial, b"")
        await self.call("rm_file", partial)

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """One of the filesystem's methods, tried again as long as there is patience."""
        return await self._requests.send(lambda: self._invoke(method, *arguments, **options))

    async def _invoke(self, method: str, *arguments: Any, **options: Any) -> Any:
        native = getattr(self._filesystem, f"_{method}", None) if self._filesystem.async_impl else None
        if native is not None and asyncio.iscoroutinefunction(native):
            return await native(*arguments, **options)
        return await asyncio.to_thread(getattr(self._filesystem, method), *arguments, **options)

    def _judge(self, error: Exception) -> Trouble | None:
        text = scrub(str(error), self._secrets).partition("\n")[0] or type(error).__name__
        status = _status(error)
        cause = error.__cause__
        # Of a web server's every error fsspec says that the file is not there
        if isinstance(cause, Exception) and is_http_error(cause) and _status(cause) != 404:
            return self._judge(cause)
        if isinstance(error, FileNotFoundError) or status == 404:
            return Trouble(NotThere("it does not exist"))
        if isinstance(error, PermissionError) or status in (401, 403):
            return Trouble(StoreProblem(f"the store refuses ({text}); check the credentials"))
        if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
            return Trouble(StoreProblem(text))
        if status is not None and 400 <= status < 500 and status not in _TRANSIENT:
            return Trouble(StoreProblem(f"the store refuses ({text})"))
        if isinstance(error, (OSError, asyncio.TimeoutError)) or is_http_error(error):
            return Trouble(StoreProblem(text), transient=True, reached=status is not None)
        return Trouble(StoreProblem(f"{type(error).__name__}: {text}"))


_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "modified")


def _version(details: dict[str, Any]) -> str:
    """Each filesystem of fsspec has a word of its own for it, or none."""
    return next((str(details[name]) for name in _VERSIONS if details.get(name)), "")


def _status(error: Exception) -> int | None:
    """Of the server's answer."""
    if type(error).__module__ == "aiohttp.http_exceptions":  # no answer: one that cannot be read, or half of one
        return None
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else None


class _Listing:
    """Lists folder by folder; implements :class:`~mpi_prs.storage.stores.Lister`.

    Args:
        root: ``/`` where absolute paths begin so.
    """

    def __init__(self, store: FsspecStore, root: str) -> None:
        self._store = store
        self._root = root

    def folder(self, prefix: str) -> Iterator[Entry]:
        above = prefix.rpartition("/")[0]
        try:
            listing = run(self._store.call, "ls", above or self._root, detail=True)
        except NotThere:
            return
        entries = []
        for each in listing:
            name = each["name"].rstrip("/")
            if name.startswith(prefix) and name != above:
                if each.get("type") == "directory":
                    entries.append(Entry(name + "/", -1))
                else:
                    entries.append(Entry(name, int(each.get("size") or 0), _version(each)))
        yield from sorted(entries)

    def below(self, prefix: str) -> Iterator[Entry]:
        for entry in self.folder(prefix):
            if entry.is_folder:
                yield from self.below(entry.name)
            else:
                yield entry
