"""Listings of a container, page by page.

The client would make an object of some thirty fields for each blob, at 200 µs apiece: half an hour for ten million. So
a page is read as the XML that it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from mpi_prs.storage.azure_errors import ONCE
from mpi_prs.storage.stores import Entry, submit

Page = tuple[list[Entry], str]
"""The files and folders of a page, and the mark of the next one; empty: there is none."""

PAGE = 5000
"""Blobs in a page; the most that Azure gives."""


class Container:
    """Lists a container; implements :class:`~mpi_prs.storage.stores.Lister`.

    Args:
        client: the container's.
        send: sends a request, as often as it takes.
    """

    def __init__(self, client: Any, send: Callable[[Callable[[], Awaitable[Page]]], Awaitable[Page]]) -> None:
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
        coming: Future[Page] = submit(self._page, prefix, method, "")
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

    async def _page(self, prefix: str, method: str, mark: str) -> Page:
        async def request() -> Page:
            listing = getattr(self._client, method)(
                name_starts_with=prefix or None,
                include=["metadata"],
                results_per_page=PAGE,
                raw_response_hook=_take,
                **ONCE,
            )
            try:
                async for _ in listing.by_page(continuation_token=mark or None):
                    break
            except _Taken as taken:
                return parse_page(taken.content)
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


def parse_page(content: bytes) -> Page:
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
        elif not name.endswith("/") and not _is_folder(element):
            size = int(element.findtext("Properties/Content-Length") or 0)
            entries.append(Entry(name, size, element.findtext("Properties/Etag") or ""))
    return sorted(entries), root.findtext("NextMarker") or ""


def _name(element: ElementTree.Element) -> str:
    found = element.find("Name")
    if found is None:
        return ""
    # Names with characters that XML does not have
    return unquote(found.text or "") if found.get("Encoded") == "true" else found.text or ""


def _is_folder(element: ElementTree.Element) -> bool:
    if element.findtext("Properties/ResourceType") == "directory":
        return True
    metadata = element.find("Metadata")
    return metadata is not None and any(
        each.tag.lower() == "hdi_isfolder" and (each.text or "").lower() == "true" for each in metadata
    )
