"""A real blob store for the tests: Azurite, Microsoft's emulator, on a free port; it ends with the tests.

``make test`` installs it by npm into ``.azurite``; ``MPI_PRS_TEST_AZURITE`` names another ``azurite-blob``.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.storage.credentials import Storage
from tests.support.jobs import REPOSITORY, need, wait_until

ACCOUNT = "devstoreaccount1"
# Azurite's own key, the same everywhere and no secret
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
OTHER_ACCOUNT = "pipelinedata"  # that of Azure's tutorials
OTHER_KEY = base64.b64encode(b"the key of the other account; no secret, either.").decode()
KEYS = {ACCOUNT: KEY, OTHER_ACCOUNT: OTHER_KEY}


@dataclass(frozen=True)
class Azurite:
    """An account of a running server.

    Attributes:
        port: on 127.0.0.1.
        account: its name; the server has all of :data:`KEYS`.
    """

    port: int
    account: str = ACCOUNT

    def of(self, account: str) -> Azurite:
        """Another account of the same server."""
        return replace(self, account=account)

    def account_url(self, port: int | None = None) -> str:
        """The address of the account, or that of a proxy on another port."""
        return f"http://127.0.0.1:{port or self.port}/{self.account}"

    def connection_string(self, port: int | None = None, key: str | None = None) -> str:
        key = key or KEYS[self.account]
        return f"BlobEndpoint={self.account_url(port)};AccountName={self.account};AccountKey={key};"

    def storage(self, port: int | None = None) -> Storage:
        """How to get at it, or at a proxy before it."""
        return Storage(connection_string=self.connection_string(port))

    def client(self) -> Any:
        """``azure.storage.blob.BlobServiceClient``, for what the tests prepare."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string())

    def container(self, name: str, blobs: dict[str, bytes] | None = None, **options: Any) -> None:
        """Make a container with these blobs; ``public_access="container"``: for everybody."""
        with self.client() as client, client.create_container(name, **options) as container:
            for blob, content in (blobs or {}).items():
                container.upload_blob(blob, content)

    def read(self, container: str, blob: str) -> bytes:
        """A blob's content."""
        with self.client() as client:
            content: bytes = client.get_blob_client(container, blob).download_blob().readall()
            return content

    def large_blob(self, container: str, blob: str, block: bytes, times: int) -> None:
        """A blob that repeats one block: the block is sent once, however large the blob is."""
        from azure.storage.blob import BlobBlock

        with self.client() as client, client.get_blob_client(container, blob) as target:
            target.stage_block("00000000", block)
            target.commit_block_list([BlobBlock("00000000")] * times)


def azurite_program() -> Path | None:
    """``azurite-blob``, where it is installed."""
    named = os.environ.get("MPI_PRS_TEST_AZURITE")
    program = Path(named) if named else REPOSITORY / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
    return program if program.exists() else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except urllib.error.HTTPError as refused:
        refused.close()
        return True
    except OSError:
        return False


def running_azurite() -> Iterator[Azurite]:
    """Start a server that keeps everything in memory, and kill it at the end."""
    program = azurite_program()
    if program is None:
        need("Azurite in .azurite (make test installs it), or its path in MPI_PRS_TEST_AZURITE")
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder, open(Path(folder, "log"), "w+b") as log:
        port = _free_port()
        server = subprocess.Popen(
            [
                str(program),
                *("--blobPort", str(port), "--inMemoryPersistence"),
                *("--skipApiVersionCheck", "--disableTelemetry", "--silent"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in KEYS.items())},
        )

        def said() -> str:
            return Path(folder, "log").read_text(errors="replace")

        try:
            wait_until(lambda: server.poll() is not None or _answers(port), 60, said)
            assert server.poll() is None, f"Azurite ended: {said()}"
            yield Azurite(port)
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """The tests' blob store; containers are made by the tests, each with a name of its own."""
    if importlib.util.find_spec("adlfs") is None:
        need("adlfs: make test installs it")
    yield from running_azurite()
