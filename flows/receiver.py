"""Receives MLflow's webhooks, and tells Prefect of those that a flow is to be started for.

    ENGINEWORKS_WEBHOOK_SECRET=... python -m flows.receiver --port 4400
    ENGINEWORKS_WEBHOOK_SECRET=... python -m flows.receiver --register http://127.0.0.1:4400/mlflow

Listens on 127.0.0.1 unless it is told otherwise. Needs PREFECT_API_URL; the automations of
`make deploy` start the flows. What it loses, the next poll finds.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from artifacts.registry.webhook import Inbox, RegistryEvent
from engineworks import loglevels, streams
from engineworks.errors import EngineworksError, StoreError
from flows.commands.settings import configure

log = logging.getLogger("engineworks.receiver")

SECRET = "ENGINEWORKS_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
#: Letters of a secret, at least.
LEAST_LETTERS = 16
PATH = "/mlflow"
#: A webhook has a few hundred bytes; a model's description may be in it.
MOST_BYTES = 2**18
#: Seconds for a whole request, and for each wait in it.
WAIT_S = 10.0
#: Requests at the same time; others are told to come again.
MOST_AT_ONCE = 16
#: Seconds in which a model's moved aliases are told of once: every promotion moves two.
QUIET_S = 30.0


class Receiver(ThreadingHTTPServer):
    """The server.

    Args:
        address: Host and port.
        inbox: Judges deliveries.
        passes_on: Tells Prefect of an event; raises when that is not possible now.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], inbox: Inbox, passes_on: Callable[[RegistryEvent], None]
    ) -> None:
        self.inbox, self._passes_on = inbox, passes_on
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._moved: dict[str, float] = {}
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, as long as there are not too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See `process_request`."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller who breaks off is no error of ours."""
        log.info("a request broke off: %s", type(sys.exc_info()[1]).__name__)

    def pass_on(self, event: RegistryEvent) -> str:
        """Tell Prefect; what was done, in words."""
        if event.kind == "moved":
            now = time.monotonic()
            with self._lock:
                self._moved = {m: at for m, at in self._moved.items() if now - at < QUIET_S}
                if event.model in self._moved:
                    return "told just now"
                self._moved[event.model] = now
        self._passes_on(event)
        return event.kind


class _Handler(BaseHTTPRequestHandler):
    timeout = WAIT_S
    server: Receiver
    server_version, sys_version = "engineworks", ""

    def do_GET(self) -> None:
        """`/health`: it listens."""
        self._say(HTTPStatus.OK if self.path == "/health" else HTTPStatus.NOT_FOUND, "")

    def do_POST(self) -> None:
        """A delivery of MLflow."""
        if self.path != PATH:
            self._say(HTTPStatus.NOT_FOUND, f"post to {PATH}")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            self._say(HTTPStatus.LENGTH_REQUIRED, "say how long the body is")
            return
        if len(length) > 9 or int(length) > MOST_BYTES:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BYTES} bytes")
            return
        body = self._body(int(length))
        if body is None:
            self._say(HTTPStatus.REQUEST_TIMEOUT, "the body did not come")
            return
        inbox = self.server.inbox
        judged = inbox.judge({k.lower(): v for k, v in self.headers.items()}, body)
        reason = judged.reason
        if judged.event is not None:
            try:
                reason = self.server.pass_on(judged.event)
            except Exception as error:  # whatever it is, MLflow is to come again
                inbox.forget(judged.delivery)
                log.warning("Prefect was not told (%s): %s", type(error).__name__, judged.event)
                self._say(HTTPStatus.SERVICE_UNAVAILABLE, "Prefect's server does not answer")
                return
            log.info("%s: %s", reason, judged.event)
        elif judged.status != HTTPStatus.OK:
            log.warning("refused from %s: %s", self.client_address[0], reason)
        self._say(judged.status, reason)

    def _body(self, length: int) -> bytes | None:
        """The body; None: it takes too long, or breaks off."""
        data, until = bytearray(), time.monotonic() + WAIT_S
        while len(data) < length:
            block = self.rfile.read1(min(2**16, length - len(data)))
            data += block
            if not block or time.monotonic() > until:
                return None
        return bytes(data)

    def _say(self, status: int, words: str) -> None:
        data = f"{words}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged by what they say."""


def secrets() -> list[str]:
    """The secrets of the environment: one, or two with a blank between while it is changed.

    Raises:
        StoreError: There is none, or it is short.
    """
    found = os.environ.get(SECRET, "").split()
    if not found or min(map(len, found)) < LEAST_LETTERS:
        raise StoreError(
            f"{SECRET} is not set, or has fewer than {LEAST_LETTERS} letters",
            hint="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return found


def to_prefect(event: RegistryEvent) -> None:
    """Post what an automation of `make deploy` waits for."""
    from flows.fleet import events

    names = {"promote": events.PROMOTE, "ship": events.SHIP, "moved": events.MOVED}
    about = f"{event.model}/{event.version}" if event.version else event.model
    payload = {"model": event.model, "version": event.version, "recipe": event.recipe}
    events.tell(names[event.kind], about, {**payload, "registered": about})


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal comes; 0 after one, 3 when it cannot."""
    streams.tolerate()
    parser = argparse.ArgumentParser(prog="python -m flows.receiver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4400, help="default: 4400")
    parser.add_argument("--home", type=Path, help="state folder (default: ENGINEWORKS_HOME)")
    parser.add_argument(
        "--register", metavar="URL", help="have MLflow send to this address, then end"
    )
    loglevels.add_option(parser, "info")
    options = parser.parse_args(arguments)
    level = getattr(options, "log_level", "") or loglevels.asked("info")
    loglevels.configure(level, "%(asctime)s %(levelname)s %(message)s", others="warning")
    root = (options.home or Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")).absolute()
    try:
        held = secrets()
        configure(root)
        if options.register:
            from artifacts.registry import webhook_setup

            sys.stdout.write(webhook_setup.register(root, options.register, held[0]) + "\n")
            return 0
        if "PREFECT_API_URL" not in os.environ:
            raise StoreError("PREFECT_API_URL is not set", hint="set it to your Prefect server")
        return _serve(options.host, options.port, held)
    except EngineworksError as error:
        sys.stderr.write(error.block)
        return 3


def _serve(host: str, port: int, held: list[str]) -> int:
    from flows.fleet import events  # noqa: F401 - takes a second, which the first event would wait

    try:
        server = Receiver((host, port), Inbox(held), to_prefect)
    except OSError as error:
        raise StoreError(
            f"cannot listen on {host}:{port} ({error.strerror})", hint="choose another --port"
        ) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    log.info("listens on http://%s:%s%s", host, server.server_port, PATH)
    server.serve_forever()
    server.server_close()
    return 0


if __name__ == "__main__":
    from flows.commands.signals import end

    end(main())
