"""Azure's blob storage: adlfs connects, its service client is asked.

Requests are sent by the client itself, for three things that adlfs's filesystem does not give: listings by the page,
parts of a blob that is known not to have changed in between, and patience of our own (the client's first pause would be
15 seconds).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote
from xml.etree import ElementTree

from mpi_prs.core.secrecy import scrub
from mpi_prs.core.urls import Names
from mpi_prs.storage.accounts import AzureUrl, Connection, connection, parse
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.stores import (
    RANGE,
    Entry,
    Listed,
    NotThere,
    Requests,
    StoredFile,
    StoreProblem,
    Trouble,
    for_each,
    in_ranges,
    is_http_error,
    listed,
    run,
    submit,
    write_at,
)

T = TypeVar("T")

_ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 15, "read_timeout": 60}
"""For each request by the client: what is tried again is ours to say."""
PAGE = 5000
"""Blobs in a page; the most that Azure gives."""
BLOCK = 8 * 2**20
"""Bytes of a block that is uploaded; larger ones where there would be too many."""
BLOCKS_AT_ONCE = 4
MOST_BLOCKS = 50_000
"""In one blob."""


class _Changed(Exception):
    """The blob was replaced while it was read."""


class AzureStore:
    """One storage account; implements :class:`~mpi_prs.storage.stores.Store`.

    Args:
        url: one of its URLs.
        storage: resolved.

    Raises:
        StoreProblem: the credentials cannot be used, or adlfs is missing.
    """

    def __init__(self, url: str, storage: Storage) -> None:
        self._storage = storage
        place = connection(parse(url, storage), storage)
        self._errors = _Errors(place, storage.secrets())
        self._requests = Requests(self._errors.judge)
        try:
            from adlfs import AzureBlobFileSystem
        except ImportError:
            raise StoreProblem(
                "reading from Azure needs the packages adlfs and fsspec; install them with: pip install mpi_prs[azure]"
            ) from None
        for name in ("azure", "adlfs"):  # they log each request, and what is tried again here
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            self._filesystem = AzureBlobFileSystem(**place.options, skip_instance_cache=True, use_listings_cache=False)
        except Exception as error:  # whatever the libraries think of the credentials
            raise StoreProblem(
                f"cannot use the {place.credentials or 'address'} of {self._errors.shown()}: "
                f"{scrub(str(error), storage.secrets())}"
            ) from None

    # Reading

    def path_of(self, url: str) -> str:
        place = parse(url, self._storage)
        return f"{place.container}/{place.path}".rstrip("/")

    def list(self, url: str, names: Names) -> Iterator[Listed]:
        place = parse(url, self._storage)

        def exact(name: str) -> StoredFile | None:
            try:
                return run(self.look_up, place.url_of(name))
            except _NoContainer:
                raise
            except NotThere:
                return None

        container = _Container(
            self._filesystem.service_client.get_container_client(place.container), partial(self._send, place)
        )
        return listed(container, place.path, names, place.url_of, exact)

    async def look_up(self, url: str) -> StoredFile:
        place = parse(url, self._storage)
        if not place.path:
            raise NotThere("the URL names no file")
        properties = await self._send(place, lambda: self._blob(place).get_blob_properties(**_ONCE))
        if _is_folder(properties):
            raise NotThere("it is a folder")  # hierarchical namespaces have a blob for each
        return StoredFile(properties.size, properties.etag)

    async def read_into(self, url: str, start: int, target: memoryview, version: str) -> None:
        place = parse(url, self._storage)

        async def one(part: tuple[int, int]) -> None:
            begin, stop = part
            target[begin - start : stop - start] = await self._range(place, begin, stop, version)

        try:
            await in_ranges(start, start + len(target), one)
        except _Changed:
            raise StoreProblem("it was replaced in the store while it was being read") from None

    async def fetch(self, url: str, file: int, folder: Path, reserve: Callable[[int], None]) -> int:
        place = parse(url, self._storage)
        for _ in range(3):
            try:
                return await self._fetch(place, file, folder, reserve)
            except _Changed:
                os.ftruncate(file, 0)
        raise StoreProblem("it was replaced in the store each time it was being read")

    async def _fetch(self, place: AzureUrl, file: int, folder: Path, reserve: Callable[[int], None]) -> int:
        data, found = await self._send(place, lambda: self._head(place))
        reserve(found.size)
        await write_at(file, folder, data, 0)
        rest = found.size - len(data)
        del data

        async def one(part: tuple[int, int]) -> None:
            await write_at(file, folder, await self._range(place, *part, found.version), part[0])

        if rest > 0:
            await in_ranges(found.size - rest, found.size, one)
        return found.size

    async def _head(self, place: AzureUrl) -> tuple[bytes, StoredFile]:
        """The first range of a blob, and how large it is: one request for most blobs."""
        from azure.core.exceptions import HttpResponseError

        blob = self._blob(place)
        try:
            stream = await blob.download_blob(offset=0, length=RANGE, decompress=False, **_ONCE)
        except HttpResponseError as error:
            if error.status_code != 416:
                raise
            properties = await blob.get_blob_properties(**_ONCE)  # a blob without bytes has no range
            if properties.size:
                raise
            return b"", StoredFile(0, properties.etag)
        data = await stream.readall()
        size = int(stream.properties.content_range.rpartition("/")[2])
        if len(data) != min(RANGE, size):
            raise ConnectionError(f"{len(data)} bytes came of {min(RANGE, size)}")
        return data, StoredFile(size, stream.properties.etag)

    async def _range(self, place: AzureUrl, start: int, stop: int, version: str) -> bytes:
        """Bytes of a blob that must not have changed. Raises _Changed."""
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        async def request() -> bytes:
            try:
                stream = await self._blob(place).download_blob(
                    offset=start,
                    length=stop - start,
                    etag=version,
                    match_condition=MatchConditions.IfNotModified,
                    decompress=False,
                    **_ONCE,
                )
                data: bytes = await stream.readall()
            except HttpResponseError as error:
                if error.status_code == 412:
                    raise _Changed from None
                raise
            if len(data) != stop - start:
                raise ConnectionError(f"{len(data)} bytes came of {stop - start}")
            return data

        return await self._send(place, request)

    # Writing

    async def put(self, path: Path, url: str) -> None:
        from azure.storage.blob import BlobBlock

        place = _target(parse(url, self._storage))
        blob = self._blob(place)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            block = max(BLOCK, -(-size // MOST_BLOCKS))
            starts = range(0, size, block)

            async def one(number: int) -> None:
                data = await asyncio.to_thread(os.pread, file.fileno(), block, starts[number])
                await self._send(
                    place, lambda: blob.stage_block(_block_id(number), data, validate_content=True, **_ONCE)
                )

            await for_each(range(len(starts)), one, BLOCKS_AT_ONCE)
        blocks = [BlobBlock(_block_id(number)) for number in range(len(starts))]
        await self._send(place, lambda: blob.commit_block_list(blocks, **_ONCE))
        stored = (await self.look_up(url)).size
        if stored != size or path.stat().st_size != size:
            raise StoreProblem(f"{stored} bytes are stored of {path.stat().st_size}: the file changed meanwhile")

    async def check_put(self, url: str) -> None:
        place = _target(parse(url, self._storage))
        # A block that is never committed: nothing appears, and Azure forgets it
        await self._send(place, lambda: self._blob(place).stage_block(_block_id(0), b"\0", **_ONCE))

    async def create_container(self, url: str) -> bool:
        """Make the container of a URL, for its owner alone; whether there was none."""
        from azure.core.exceptions import ResourceExistsError

        place = parse(url, self._storage)
        client = self._filesystem.service_client.get_container_client(place.container)

        async def request() -> bool:
            try:
                await client.create_container(**_ONCE)
            except ResourceExistsError:
                return False
            return True

        return await self._send(place, request)

    # Requests

    def _blob(self, place: AzureUrl) -> Any:
        return self._filesystem.service_client.get_blob_client(place.container, place.path)

    async def _send(self, place: AzureUrl, request: Callable[[], Awaitable[T]]) -> T:
        """See :meth:`Requests.send`; problems name the container where it is the cause."""
        try:
            return await self._requests.send(request)
        except _NoContainer:
            raise _NoContainer(f"there is no container {place.container!r} in {self._errors.shown()}") from None


def _is_folder(properties: Any) -> bool:
    return str((properties.metadata or {}).get("hdi_isfolder", "")).lower() == "true"


def _target(place: AzureUrl) -> AzureUrl:
    if not place.path or place.path.endswith("/"):
        raise StoreProblem("the URL names no file; expected one such as abfs://container/folder/name")
    return place


def _block_id(number: int) -> str:
    return f"{number:08d}"  # all of a blob must be of one length


# Listing

_Page = tuple[list[Entry], str]
"""The files and folders of a page, and the mark of the next one; empty: there is none."""


class _Container:
    """Lists a container, page by page; implements :class:`~mpi_prs.storage.stores.Lister`.

    The client would make an object of some thirty fields for each blob, at 200 µs apiece: half an hour for ten million.
    So a page is read as the XML that it is.

    Args:
        client: the container's.
        send: sends a request, as often as it takes.
    """

    def __init__(self, client: Any, send: Callable[[Callable[[], Awaitable[_Page]]], Awaitable[_Page]]) -> None:
        self._client = client
        self._send = send

    def folder(self, prefix: str) -> Iterator[Entry]:
        return self._listing(prefix, "walk_blobs")

    def below(self, prefix: str) -> Iterator[Entry]:
        return self._listing(prefix, "list_blobs")

    def _listing(self, prefix: str, method: str) -> Iterator[Entry]:
        with closing(self._pages(prefix, method)) as pages:
            for page in pages:
                yield from page

    def _pages(self, prefix: str, method: str) -> Generator[list[Entry], None, None]:
        """The next page is under way while one is looked at."""
        coming: Future[_Page] = submit(self._page, prefix, method, "")
        try:
            while True:
                page, mark = coming.result()
                if mark:
                    coming = submit(self._page, prefix, method, mark)
                yield page
                if not mark:
                    return
        finally:
            coming.cancel()

    async def _page(self, prefix: str, method: str, mark: str) -> _Page:
        async def request() -> _Page:
            listing = getattr(self._client, method)(
                name_starts_with=prefix or None,
                include=["metadata"],
                results_per_page=PAGE,
                raw_response_hook=_take,
                **_ONCE,
            )
            try:
                async for _ in listing.by_page(continuation_token=mark or None):
                    break
            except _Taken as taken:
                return _read_page(taken.content)
            raise AssertionError("the client did not call its hook")

        return await self._send(request)


class _Taken(Exception):
    """Carries a page out of the client before it makes its objects."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content


def _take(response: Any) -> None:
    if response.http_response.status_code == 200:
        raise _Taken(response.http_response.body())


def _read_page(content: bytes) -> _Page:
    """Read a page; what it holds is in the order of the names.

    A hierarchical namespace has a blob for each folder, and some tools make one with a slash at the end: these are no
    files.
    """
    root = ElementTree.fromstring(content)
    entries = []
    for element in root.iterfind("Blobs/*"):
        name = _name(element)
        if element.tag == "BlobPrefix":
            entries.append(Entry(name, -1))
        elif not name.endswith("/") and not _is_folder_element(element):
            size = int(element.findtext("Properties/Content-Length") or 0)
            entries.append(Entry(name, size, element.findtext("Properties/Etag") or ""))
    return sorted(entries), root.findtext("NextMarker") or ""


def _name(element: ElementTree.Element) -> str:
    found = element.find("Name")
    if found is None:
        return ""
    # Names with characters that XML does not have
    return unquote(found.text or "") if found.get("Encoded") == "true" else found.text or ""


def _is_folder_element(element: ElementTree.Element) -> bool:
    if element.findtext("Properties/ResourceType") == "directory":
        return True
    metadata = element.find("Metadata")
    return metadata is not None and any(
        each.tag.lower() == "hdi_isfolder" and (each.text or "").lower() == "true" for each in metadata
    )


# Errors

_TRANSIENT = (408, 429, 500, 502, 503, 504)


class _NoContainer(NotThere):
    """The container does not exist."""


class _Errors:
    """Judges the errors of one storage account.

    Args:
        connection: which account, and what credentials.
        secrets: may be in no text.
    """

    def __init__(self, connection: Connection, secrets: Sequence[str]) -> None:
        self._connection = connection
        self._secrets = secrets

    def shown(self) -> str:
        """The account, for a message."""
        account = f"the storage account {self._connection.account!r}" if self._connection.account else "the store"
        return f"{account} ({scrub(self._connection.address)})"

    def judge(self, error: Exception) -> Trouble | None:
        """What an error means; ``None``: it is none of the store's or the network's."""
        from azure.core import exceptions as azure

        if isinstance(error, azure.HttpResponseError) and (error.status_code or 0) >= 400:
            return self._refused(error)
        if isinstance(error, azure.ClientAuthenticationError):
            return Trouble(StoreProblem(self._no_entry(scrub(str(error), self._secrets).partition("\n")[0])))
        if isinstance(error, azure.ServiceRequestError):
            return self._unreachable(error)
        if isinstance(error, (azure.AzureError, OSError, asyncio.TimeoutError)) or is_http_error(error):
            text = scrub(str(error), self._secrets).partition("\n")[0] or type(error).__name__
            return Trouble(StoreProblem(f"the connection to {self.shown()} broke ({text})"), transient=True)
        return None

    def _refused(self, error: Any) -> Trouble:
        status = error.status_code
        code = str(getattr(error.error_code, "value", error.error_code) or getattr(error, "reason", None) or "")
        headers = getattr(error.response, "headers", {})
        shown = scrub(f"{code}, HTTP {status}".removeprefix(", "), self._secrets)
        if status in _TRANSIENT:
            pause = headers.get("Retry-After", "")
            return Trouble(
                StoreProblem(f"{self.shown()} is busy or out of order ({shown})"),
                transient=True,
                pause=float(pause) if pause.isdigit() else None,
            )
        if code == "ContainerNotFound":
            return Trouble(_NoContainer(code))
        if status in (401, 403) or code == "PublicAccessNotPermitted":
            return Trouble(StoreProblem(self._no_entry(shown)))
        if status == 404:
            if not self._connection.credentials and code != "BlobNotFound":
                return Trouble(StoreProblem(self._no_entry(shown)))
            return Trouble(NotThere(f"it does not exist in {self.shown()}"))
        return Trouble(StoreProblem(f"{self.shown()} refuses ({shown})"))

    def _no_entry(self, reason: str) -> str:
        kind = self._connection.credentials
        if not kind:
            return (
                f"{self.shown()} gives nothing without credentials ({reason}); remove storage.anonymous and give "
                "credentials, or check that the container exists and is public"
            )
        if kind == "identity":
            return (
                f"no credentials for {self.shown()} ({reason}); set AZURE_STORAGE_CONNECTION_STRING, or "
                "storage.account_key_file or storage.sas_token_file, or storage.anonymous: true for public data"
            )
        if "Permission" in reason:
            return f"the {kind} for {self.shown()} does not allow this ({reason}); give one with the right to do it"
        return (
            f"the {kind} for {self.shown()} is not accepted ({reason}); check that it is right and not expired, "
            "and that the account lets this network in"
        )

    def _unreachable(self, error: Any) -> Trouble:
        causes = []
        cause: BaseException | None = error
        while cause is not None and cause not in causes:
            causes.append(cause)
            cause = getattr(cause, "os_error", None) or cause.__cause__ or getattr(cause, "inner_exception", None)
        address = scrub(self._connection.address)
        for each in causes:
            if isinstance(each, socket.gaierror):
                problem = (
                    f"no server has the name in {address} ({each.strerror}); check the name of the storage account, "
                    "and that this node reaches the network"
                )
                return Trouble(StoreProblem(problem), transient=True, reached=False)
        text = scrub(str(error), self._secrets).partition("\n")[0]
        return Trouble(StoreProblem(f"cannot connect to {address} ({text})"), transient=True, reached=False)
