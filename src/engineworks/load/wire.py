"""A lean HTTP/1.1 client for one request sent many times; its own CPU must not be what is measured.

Knows connections and statuses, no schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from engineworks.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where one request goes, and what it is."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    payload: bytes
    """The whole request, head and body."""


def target(
    url: str,
    body: bytes,
    *,
    content_type: str,
    headers: dict[str, str] | None = None,
    ca_file: str = "",
) -> Endpoint:
    """A POST of a body.

    Raises:
        DataError: The URL is none of HTTP.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise DataError(
            f"{url} is no address of a server", hint="give for example http://127.0.0.1:8000/detect"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {
        "Host": parts.netloc.rpartition("@")[2],
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise DataError("a header holds a line break", hint="check the URL and the key")
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    context = (
        ssl.create_default_context(cafile=ca_file or None) if parts.scheme == "https" else None
    )
    return Endpoint(host=parts.hostname, port=port, path=path, tls=context, payload=head + body)


class _Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.open = True
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._got = bytearray()
        self._status = self._wanted = -1
        self._close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # of a stream socket

    def send(self, payload: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; the future gets its status and body."""
        assert self.transport is not None  # noqa: S101 - connected before
        self._answer = asyncio.get_running_loop().create_future()
        self._got.clear()
        self._wanted = -1
        self.transport.write(payload)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._wanted < 0:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._got[:end]).lower()
            self._status = int(head[9:12])
            length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
            self._close = b"connection: close" in head
            self._wanted = end + 4 + int(length or 0)
        if len(self._got) >= self._wanted and self._answer and not self._answer.done():
            start = self._got.find(b"\r\n\r\n") + 4
            self.open = self.open and not self._close
            self._answer.set_result((self._status, bytes(self._got[start : self._wanted])))

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed without an answer"))


@dataclass
class Client:
    """Sends one request over as many connections as it needs at once."""

    target: Endpoint
    most: int = 512
    """Connections at once; more requests wait, and their waiting counts."""
    _idle: deque[_Connection] = field(default_factory=deque)
    _room: asyncio.Semaphore | None = None

    async def ask(self) -> tuple[int, bytes]:
        """Send the request; status and body.

        Raises:
            OSError: There is no connection, or it broke before the answer.
        """
        self._room = self._room or asyncio.Semaphore(self.most)
        async with self._room:
            connection = await self._connection()
            try:
                answer = await connection.send(self.target.payload)
            except BaseException:
                if connection.transport is not None:
                    connection.transport.close()
                raise
            if connection.open:
                self._idle.append(connection)
            return answer

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.transport and not connection.transport.is_closing():
                return connection
        where = self.target
        _, protocol = await asyncio.get_running_loop().create_connection(
            _Connection, where.host, where.port, ssl=where.tls
        )
        return protocol

    def close(self) -> None:
        """Close what is open."""
        for connection in self._idle:
            with contextlib.suppress(OSError):
                if connection.transport is not None:
                    connection.transport.close()
        self._idle.clear()
