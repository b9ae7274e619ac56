"""Azure's blob storage: adlfs connects, its service client is asked.

Requests are sent by the client itself, for three things that adlfs's filesystem does not give: listings by the page,
parts of a blob that is known not to have changed in between, and patience of our own (the client's first pause would be
15 seconds).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mpi_prs.storage.azure_errors import ONCE, AzureErrors, NoContainer
from mpi_prs.storage.azure_listing import Container
from mpi_prs.storage.azure_url import AzureUrl, connection, parse
from mpi_prs.storage.credentials import Storage, scrub
from mpi_prs.storage.stores import (
    RANGE,
    RANGES_AT_ONCE,
    Found,
    Listed,
    NotThere,
    Requests,
    StoreProblem,
    for_each,
    listed,
    ranges,
    run,
    write_at,
)

T = TypeVar("T")

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
        self._errors = AzureErrors(place, storage.secrets())
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

    def list(self, url: str, hidden: bool) -> Iterator[Listed]:
        place = parse(url, self._storage)

        def exact(name: str) -> Found | None:
            try:
                return run(self.look_up, place.url_of(name))
            except NoContainer:
                raise
            except NotThere:
                return None

        container = Container(
            self._filesystem.service_client.get_container_client(place.container), partial(self._send, place)
        )
        return listed(container, place.path, hidden, place.url_of, exact)

    async def look_up(self, url: str) -> Found:
        place = parse(url, self._storage)
        if not place.path:
            raise NotThere("the URL names no file")
        properties = await self._send(place, lambda: self._blob(place).get_blob_properties(**ONCE))
        if _is_folder(properties):
            raise NotThere("it is a folder")  # hierarchical namespaces have a blob for each
        return Found(properties.size, properties.etag)

    async def read_into(self, url: str, start: int, target: memoryview, version: str) -> None:
        place = parse(url, self._storage)

        async def one(part: tuple[int, int]) -> None:
            begin, stop = part
            target[begin - start : stop - start] = await self._range(place, begin, stop, version)

        try:
            await for_each(ranges(start, start + len(target)), one, min(RANGES_AT_ONCE, -(-len(target) // RANGE)))
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
            await for_each(ranges(found.size - rest, found.size), one, min(RANGES_AT_ONCE, -(-rest // RANGE)))
        return found.size

    async def _head(self, place: AzureUrl) -> tuple[bytes, Found]:
        """The first range of a blob, and how large it is: one request for most blobs."""
        from azure.core.exceptions import HttpResponseError

        blob = self._blob(place)
        try:
            stream = await blob.download_blob(offset=0, length=RANGE, decompress=False, **ONCE)
        except HttpResponseError as error:
            if error.status_code != 416:
                raise
            properties = await blob.get_blob_properties(**ONCE)  # a blob without bytes has no range
            if properties.size:
                raise
            return b"", Found(0, properties.etag)
        data = await stream.readall()
        size = int(stream.properties.content_range.rpartition("/")[2])
        if len(data) != min(RANGE, size):
            raise ConnectionError(f"{len(data)} bytes came of {min(RANGE, size)}")
        return data, Found(size, stream.properties.etag)

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
                    **ONCE,
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
                    place, lambda: blob.stage_block(_block_id(number), data, validate_content=True, **ONCE)
                )

            await for_each(range(len(starts)), one, BLOCKS_AT_ONCE)
        blocks = [BlobBlock(_block_id(number)) for number in range(len(starts))]
        await self._send(place, lambda: blob.commit_block_list(blocks, **ONCE))
        stored = (await self.look_up(url)).size
        if stored != size or path.stat().st_size != size:
            raise StoreProblem(f"{stored} bytes are stored of {path.stat().st_size}: the file changed meanwhile")

    async def check_put(self, url: str) -> None:
        place = _target(parse(url, self._storage))
        # A block that is never committed: nothing appears, and Azure forgets it
        await self._send(place, lambda: self._blob(place).stage_block(_block_id(0), b"\0", **ONCE))

    async def create_container(self, url: str) -> bool:
        """Make the container of a URL, for its owner alone; whether there was none."""
        from azure.core.exceptions import ResourceExistsError

        place = parse(url, self._storage)
        client = self._filesystem.service_client.get_container_client(place.container)

        async def request() -> bool:
            try:
                await client.create_container(**ONCE)
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
        except NoContainer:
            raise NoContainer(f"there is no container {place.container!r} in {self._errors.shown()}") from None


def _is_folder(properties: Any) -> bool:
    return str((properties.metadata or {}).get("hdi_isfolder", "")).lower() == "true"


def _target(place: AzureUrl) -> AzureUrl:
    if not place.path or place.path.endswith("/"):
        raise StoreProblem("the URL names no file; expected one such as abfs://container/folder/name")
    return place


def _block_id(number: int) -> str:
    return f"{number:08d}"  # all of a blob must be of one length
