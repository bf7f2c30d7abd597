"""A client's connection: what uvicorn leaves open to the slow and the endless is bounded here.

The head of a request has a size and a time; connections have a number. Bodies are bounded by
`bodies.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request line and its headers.
HEAD_BYTES = 2**15


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol, bounded. `limited` makes a class with a server's own limits."""

    header_s = 10.0
    most = 512

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heads = 0
        self._begin_head()
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come; one too many is turned away."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._turn_away(b"503 Service Unavailable", b"Retry-After: 1\r\n")
        else:
            self._await_head()

    def _begin_head(self) -> None:
        self._in_head, self._head_bytes, self._unfinished = True, 0, 0
        self._heads += 1

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.header_s, self._too_slow)

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.transport is not None and not self.transport.is_closing():
            self._turn_away(b"408 Request Timeout")

    def _turn_away(self, status: bytes, headers: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\n" + headers
            + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )  # fmt: skip
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.transport.is_closing():
            return
        if self._head_timer is None and self._in_head:
            self._await_head()  # the next request of a kept connection has begun
        before = self._heads
        super().data_received(data)
        # A name or a value without end is not told of before it ends.
        if self._in_head and self._heads == before:
            self._unfinished += len(data)
            if self._unfinished > 2 * HEAD_BYTES and not self.transport.is_closing():
                self._turn_away(b"431 Request Header Fields Too Large")

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._turn_away(b"431 Request Header Fields Too Large")
            raise ValueError("the head of the request is too large")

    def send_400_response(self, msg: str) -> None:
        """The parser gave up; nothing is said where that was said already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole; what follows is another head."""
        super().on_message_complete()
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def limited(header_s: float, most: int) -> type[HttpConnection]:
    """A class of connections with these limits."""
    return type("LimitedConnection", (HttpConnection,), {"header_s": header_s, "most": most})
