"""A proxy between a client and a blob store that does what networks and stores do: throttle, cut, dawdle.

Faults are ordered for the requests to come (``proxy.throttle(times=3)``), and each is used up by one request. Requests
are signed over the account and the path, not over host and port, so they go through unchanged.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes:
        status: answer this instead of asking the store; 0: ask it.
        retry_after: seconds, for the header ``Retry-After``; ``None``: without.
        cut_after: send so many bytes of the body and close the connection; -1: all. -2: close without an answer.
        method: of the requests that it happens to; ``None``: any.
    """

    status: int = 0
    retry_after: int | None = None
    cut_after: int = -1
    method: str | None = None


class FaultProxy:
    """A proxy on a free port of 127.0.0.1.

    Attributes:
        port: where it listens.
        delay: seconds that each answer is held back.
        hold_until: requests are held back until so many of them are under way at once (at most 30 s each); 0: none is.
        requests: method and path of each request, in the order they came.
        most_at_once: the most requests that were under way at the same time.
    """

    def __init__(self, store_port: int) -> None:
        self.delay = 0.0
        self.hold_until = 0
        self.requests: list[tuple[str, str]] = []
        self.most_at_once = 0
        self._store_port = store_port
        self._faults: list[Fault] = []
        self._under_way = 0
        self._lock = threading.Condition()
        self._upstream = threading.local()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    # What the tests order

    def throttle(
        self,
        times: int,
        *,
        status: int = 503,
        retry_after: int | None = None,
        method: str | None = None,
        after: int = 0,
    ) -> None:
        """Answer the next requests (of a method) with an error, once ``after`` requests have gone through."""
        self._order(Fault(), after)
        self._order(Fault(status=status, retry_after=retry_after, method=method), times)

    def cut(self, times: int, *, after: int = 1000, method: str | None = "GET") -> None:
        """Cut the connection in the middle of the next answers, after so many bytes of the body."""
        self._order(Fault(cut_after=after, method=method), times)

    def hang_up(self, times: int, *, method: str | None = None) -> None:
        """Close the connection on the next requests without an answer."""
        self._order(Fault(cut_after=-2, method=method), times)

    def _order(self, fault: Fault, times: int) -> None:
        with self._lock:
            self._faults += [fault] * times

    @property
    def faults_left(self) -> int:
        """Faults that no request has met yet."""
        with self._lock:
            return len(self._faults)

    @property
    def under_way(self) -> int:
        """Requests that have no answer yet."""
        with self._lock:
            return self._under_way

    def count(self, method: str) -> int:
        """Requests of a method so far."""
        with self._lock:
            return sum(1 for each, _ in self.requests if each == method)

    def forget(self) -> None:
        """Start the counts anew, without faults and delay."""
        with self._lock:
            self.delay = 0.0
            self.hold_until = 0
            self.requests.clear()
            self.most_at_once = 0
            self._faults.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # What the handlers ask

    def begin(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            self._lock.notify_all()
            for number, fault in enumerate(self._faults):
                if fault.method in (None, method):
                    return self._faults.pop(number)
        return None

    def hold(self) -> None:
        """Wait until as many requests as the test wants have been under way at once."""
        with self._lock:
            self._lock.wait_for(lambda: self.most_at_once >= self.hold_until, timeout=30)

    def end(self) -> None:
        with self._lock:
            self._under_way -= 1

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The store's answer; each thread keeps a connection."""
        for attempt in itertools.count():
            connection: http.client.HTTPConnection | None = self._upstream.__dict__.get("connection")
            if connection is None:
                connection = self._upstream.connection = http.client.HTTPConnection("127.0.0.1", self._store_port)
            try:
                connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body or None)
                return connection.getresponse()
            except (http.client.HTTPException, OSError):  # the store had closed the idle connection
                self.drop()
                if attempt:
                    raise
        raise AssertionError

    def drop(self) -> None:
        """Close this thread's connection to the store."""
        connection = self._upstream.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        fault = self.owner.begin(self.command, self.path)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.owner.hold()
            if self.owner.delay:
                time.sleep(self.owner.delay)
            if fault is not None and fault.status:
                self._refuse(fault)
            elif fault is not None and fault.cut_after == -2:
                self._hang_up()
            else:
                self._pass_on(body, fault.cut_after if fault is not None else -1)
        finally:
            self.owner.end()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def finish(self) -> None:
        self.owner.drop()
        super().finish()

    def _refuse(self, fault: Fault) -> None:
        code = "ServerBusy" if fault.status == 503 else "InternalError"
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>refused</Message></Error>'.encode()
        self.send_response_only(fault.status)
        self.send_header("x-ms-error-code", code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        if fault.retry_after is not None:
            self.send_header("Retry-After", str(fault.retry_after))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, body: bytes, cut_after: int) -> None:
        answer = self.owner.ask(self.command, self.path, body, dict(self.headers.items()))
        self.send_response_only(answer.status, answer.reason)
        chunked = answer.chunked
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "keep-alive", "transfer-encoding"):
                self.send_header(name, value)
        if chunked:
            content = answer.read()
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        left = cut_after if cut_after >= 0 else None
        if chunked:
            self.wfile.write(content[:left])
        else:
            while piece := answer.read(_PIECE if left is None else min(_PIECE, left)):
                self.wfile.write(piece)
                left = None if left is None else left - len(piece)
        if cut_after >= 0:
            self.owner.drop()
            self._hang_up()


@contextmanager
def fault_proxy(store_port: int) -> Iterator[FaultProxy]:
    """A proxy before the store on a port of 127.0.0.1; it ends with the block."""
    proxy = FaultProxy(store_port)
    try:
        yield proxy
    finally:
        proxy.close()
