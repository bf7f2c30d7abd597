"""The first that sees a request: who may come in, with how much, and how it ended.

Key and rights, name of the host, size of the body, before anything is read. A plain ASGI
application around the real one, so that a refusal costs next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO
from urllib.parse import urlsplit

from engineworks.runtime.metrics import Recorder
from engineworks.server.engine import OpenEngine
from engineworks.server.keys import KeyRing
from engineworks.server.refusals import Refusal, too_large
from engineworks.server.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The one route that takes more than an image.
VIDEO = "/video"

#: Answered to anybody.
OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})

_REQUEST_ID = re.compile(rb"[\w.:-]{1,64}", re.ASCII)
_ADMIN = re.compile(r"/admin/|/v2/repository/models/")
_LABELS = (
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "/v2/infer"),
    (re.compile(r"/v2/repository/"), "/v2/repository"),
    (re.compile(r"/v2(/|$)"), "/v2"),
    (re.compile(r"/admin/"), "/admin"),
)

#: Bytes of a refused body that are still read, so that a client gets to see why.
_DRAIN_BYTES = 8 * 2**20

_WORDS = {
    200: "ok", 400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "unknown_path",
    405: "bad_request", 413: "too_large", 415: "undecodable", 422: "bad_request",
}  # fmt: skip


@dataclass
class Note:
    """What the application says about a request for metrics and logs."""

    request_id: str
    client: str = ""
    """Its key's name, else its address."""
    engine: OpenEngine | None = None
    outcome: str = ""
    status: int = 0


class RequestGate:
    """Wraps the application.

    Args:
        app: What answers.
        settings: Limits, names of this host.
        keys: None: everybody may do everything.
        record: Takes note of every request.
        routes: Paths that are labels of their own; all others share one.
        overload: Why a request's engine does not let it in now, by path and query.
        log: One JSON line a request.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        keys: KeyRing | None,
        record: Recorder,
        routes: frozenset[str],
        overload: Callable[[str, bytes], tuple[OpenEngine, Refusal] | None],
        log: TextIO | None = None,
    ) -> None:
        self._app, self._settings, self._keys, self._record = app, settings, keys, record
        self._routes, self._overload, self._log = routes, overload, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        begun = time.monotonic()
        headers = dict(scope["headers"])
        note = _note(headers)
        scope["engineworks"] = note
        scope["begun"] = begun

        exchange = _Exchange(headers, receive, send, note)
        try:
            key = self._check(scope["path"], scope["method"], headers)
            note.client = key or str((scope.get("client") or ("",))[0])
        except Refusal as refusal:
            note.outcome = refusal.outcome
            status, answer_headers, body = refusal_body(refusal)
            await exchange.send(
                {"type": "http.response.start", "status": status, "headers": answer_headers}
            )
            await exchange.send({"type": "http.response.body", "body": body})
        else:
            await self._app(scope, exchange.receive, exchange.send)
        self._told(scope, note, time.monotonic() - begun)

    def turned_away(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
        """The refusal of a request by its head alone, while its engine has too much; None: none.

        Nothing of it was received beyond its head, and no task was made for it.
        """
        overload = self._overload(scope["path"], scope["query_string"])
        if overload is None or scope["method"] != "POST":
            return None
        begun = time.monotonic()
        headers = dict(scope["headers"])
        note = _note(headers)
        note.engine, refusal = overload
        try:
            self._check(scope["path"], scope["method"], headers)
        except Refusal as other:  # who may not ask at all is told that
            note.engine, refusal = None, other
        note.outcome, note.status = refusal.outcome, refusal.status
        status, answer_headers, body = refusal_body(refusal)
        self._told(scope, note, time.monotonic() - begun)
        return status, [*answer_headers, (b"x-request-id", note.request_id.encode())], body

    def _check(self, path: str, method: str, headers: dict[bytes, bytes]) -> str:
        """The name of the request's key, "" where none is asked for.

        Raises:
            Refusal: It may not come in.
        """
        name = ""
        host = headers.get(b"host", b"").decode("latin-1")
        if self._settings.hosts and _name(host) not in self._settings.hosts:
            raise Refusal(
                421, "forbidden", f"this server is not {host[:80]!r}",
                hint=f"call it {self._settings.hosts[0]}",
            )  # fmt: skip
        origin = headers.get(b"origin")
        if origin is not None and method not in ("GET", "HEAD"):
            came = urlsplit(origin.decode("latin-1")).netloc
            if came != host:
                raise Refusal(
                    403, "forbidden", f"a page of {origin[:80].decode('latin-1')!r} may not ask",
                    hint="no other site's page may; let its server ask instead",
                )  # fmt: skip
        if self._keys is not None and path not in OPEN:
            name = self._hold_to_key(self._keys, path, headers)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(
                415, "bad_request", "packed bodies are not read", hint="send it without packing"
            )
        length = headers.get(b"content-length", b"0")
        limits = self._settings.limits
        most = limits.max_video if path == VIDEO else limits.max_body
        if not length.isdigit() or len(length) > 15 or int(length) > most:
            raise too_large(
                f"a body of {length[:20].decode('latin-1')} bytes, more than {most:,}",
                hint="send less, or raise the server's limit",
            )
        return name

    def _hold_to_key(self, keys: KeyRing, path: str, headers: dict[bytes, bytes]) -> str:
        key = keys.find(headers)
        if key is None:
            raise Refusal(
                401, "unauthorized", "no key of this server came with the request",
                hint="send it as Authorization: Bearer KEY",
            )  # fmt: skip
        right = "metrics" if path == "/metrics" else "admin" if _ADMIN.match(path) else "infer"
        if right not in key.rights:
            raise Refusal(
                403, "forbidden", f"the key {key.name!r} has no right {right!r}",
                hint="use another key",
            )  # fmt: skip
        wait_s = keys.wait_s(key)
        if wait_s:
            raise Refusal(
                429, "limited", f"the key {key.name!r} may ask {key.per_second:g} times a second",
                hint="ask less often", retry_s=wait_s,
            )  # fmt: skip
        return key.name

    def _told(self, scope: Scope, note: Note, took_s: float) -> None:
        path = scope["path"]
        route = path if path in self._routes else next(
            (label for pattern, label in _LABELS if pattern.match(path)), "other"
        )  # fmt: skip
        word = "error" if note.status >= 500 else "ok" if note.status < 400 else "bad_request"
        outcome = note.outcome or _WORDS.get(note.status, word)
        record = note.engine.record if note.engine is not None else self._record
        record.request(route, outcome, took_s)
        if self._log is None:
            return
        engine = note.engine.about if note.engine is not None else {}
        line = {
            "timestamp": time.time(), "event": "request", "request_id": note.request_id,
            "method": scope["method"], "path": path[:200], "status": note.status,
            "outcome": outcome, "took_ms": round(took_s * 1e3, 3),
            **{key: engine.get(name, "") for key, name in
               (("model", "name"), ("variant", "variant"), ("version", "version"))},
        }  # fmt: skip
        with contextlib.suppress(OSError, ValueError):
            self._log.write(json.dumps(line) + "\n")


def _note(headers: dict[bytes, bytes]) -> Note:
    given = headers.get(b"x-request-id", b"")
    return Note(given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def refusal_body(refusal: Refusal) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and JSON of a refusal."""
    body = json.dumps({"error": refusal.message, "hint": refusal.hint}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refusal.retry_s is not None:
        headers.append((b"retry-after", str(max(1, round(refusal.retry_s + 0.5))).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="engineworks"'))
        headers.append((b"www-authenticate", b'Basic realm="engineworks"'))
    return refusal.status, headers, body


class _Exchange:
    """The way in and out of one request.

    An answer given before the body has come ends the connection, but not before a client in the
    middle of sending has had a moment to see it.
    """

    def __init__(
        self, headers: dict[bytes, bytes], receive: Receive, send: Send, note: Note
    ) -> None:
        self._receive, self._send, self._note = receive, send, note
        none = headers.get(b"content-length", b"0") == b"0"
        self._complete = none and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """See ASGI."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._complete = True
        return message

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self._note.status = message["status"]
            more = [(b"x-request-id", self._note.request_id.encode())]
            if not self._complete:
                more.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", ()), *more]
        elif not self._complete and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._drain(), 1.0)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drain(self) -> None:
        left = _DRAIN_BYTES
        while left > 0 and not self._complete:
            message = await self.receive()
            if message["type"] != "http.request":
                return
            left -= len(message.get("body", b""))
