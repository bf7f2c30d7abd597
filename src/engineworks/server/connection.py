"""A client's connection: what uvicorn leaves open to the slow and the endless is bounded here.

The head of a request has a size and a time; connections have a number. Bodies are bounded by
`bodies.py`. While an engine has too much to do, a request for it is refused here, by its head:
no task is made for it, and its body is let go as it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request line and its headers.
HEAD_BYTES = 2**15

#: Bytes of a refused request's body that are let go; a longer one ends the connection.
_LET_GO_BYTES = 8 * 2**20

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""

TurnAway = Callable[[MutableMapping[str, Any]], Answer | None]
"""The answer to a request that is refused by its head; None where it may come in."""


class HttpConnection(HttpToolsProtocol):
    """uvicorn's protocol, bounded. `limited` makes a class with a server's own limits."""

    header_s = 10.0
    most = 512
    turned_away: TurnAway = staticmethod(lambda scope: None)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heads = 0
        self._begin_head()
        self._head_timer: asyncio.TimerHandle | None = None
        self._letting_go = self._last = False
        self._let_go_bytes = 0

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
        answer = self._refusal()
        if answer is None:
            super().on_headers_complete()
        else:
            self._refuse(*answer)

    def _refusal(self) -> Answer | None:
        """The answer to a request that can be refused here and now."""
        if self.cycle is not None and not self.cycle.response_complete:
            return None  # the answer before it comes first
        url = httptools.parse_url(self.url)
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["path"] = unquote(url.path.decode("ascii"))
        self.scope["query_string"] = url.query or b""
        return self.turned_away(self.scope)  # type: ignore[arg-type]

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer now, and let go what still comes of the request."""
        # Who waits to be told to go on may never send the body: what follows is no next request.
        self._last = self.expect_100_continue or not self.parser.should_keep_alive()
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [b": ".join(pair) for pair in (*self.server_state.default_headers, *headers)]
        lines += [b"connection: close"] if self._last else []
        self.transport.write(b"\r\n".join((*lines, b"", body)))
        self._letting_go, self._let_go_bytes = True, 0
        self._head_timer = self.loop.call_later(self.header_s, self.transport.close)

    def on_body(self, body: bytes) -> None:
        """A part of the body; that of a refused request is let go."""
        if not self._letting_go:
            super().on_body(body)
            return
        self._let_go_bytes += len(body)
        if self._let_go_bytes > _LET_GO_BYTES:
            self.transport.close()

    def on_message_complete(self) -> None:
        """The body is whole; what follows is another head."""
        if self._letting_go:
            self._letting_go = False
            self._stop_timer()
            if self._last:
                self.transport.close()
            self.on_response_complete()
        else:
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


def limited(header_s: float, most: int, turned_away: TurnAway) -> type[HttpConnection]:
    """A class of connections with these limits; `turned_away` refuses by the head alone."""
    limits = {"header_s": header_s, "most": most, "turned_away": staticmethod(turned_away)}
    return type("LimitedConnection", (HttpConnection,), limits)
