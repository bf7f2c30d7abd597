"""One worker process: a uvicorn server over the supervisor's socket, and its engines.

Started as `python -m engineworks.server.worker FD FD`: the listening socket and the line to the
supervisor. Ends when it is told to, or when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from engineworks.codec import from_json
from engineworks.errors import EngineworksError
from engineworks.runtime.metrics import GpuMemory, PrometheusRecorder
from engineworks.server import app, connection, keys
from engineworks.server.control import Asker, Line, as_words
from engineworks.server.gate import RequestGate
from engineworks.server.models import Models
from engineworks.server.settings import ServedEngine, Settings

_log = logging.getLogger("engineworks.server")


class _Server(uvicorn.Server):
    """uvicorn's server; signals are the supervisor's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Worker:
    """What one process does between its start and its end."""

    def __init__(self, line: Line, listener: socket.socket) -> None:
        self._line, self._listener = line, listener
        self._asker = Asker(line)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the end."""
        start = await self._line.hear()
        if start is None:
            return
        self._settings = settings = from_json(Settings, start["settings"])
        record = PrometheusRecorder()
        self.models = Models(settings, record, measures=bool(start["measures"]))
        self._server = _Server(self._config(record))
        served = [from_json(ServedEngine, entry) for entry in start["engines"]]
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal tells all; see SIGTERM
        hearing = loop.create_task(self._hear())
        if start["replaces"]:  # others answer: come in when ready
            if await self._load(served):
                await self._server.serve(sockets=[self._listener])
        else:
            loading = loop.create_task(self._load(served))
            await self._server.serve(sockets=[self._listener])
            await loading
        await self.models.settle()
        await loop.run_in_executor(None, self.models.close)
        hearing.cancel()
        self._line.close()

    def _config(self, record: PrometheusRecorder) -> uvicorn.Config:
        settings, limits = self._settings, self._settings.limits
        ring = None
        if settings.keys_file:
            ring = keys.KeyRing(keys.read(Path(settings.keys_file)), settings.workers)
        log = None
        if settings.log == "-":
            log = sys.stderr
        elif settings.log:
            log = Path(settings.log).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
        answers = app.create(self.models, self._change, _metrics(record))
        gate = RequestGate(answers, settings, ring, record, app.labels(), self.models.overload, log)
        return uvicorn.Config(
            gate,
            http=connection.limited(limits.header_s, limits.connections, gate.turned_away),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(limits.drain_s),
            ssl_certfile=settings.tls_certificate or None,
            ssl_keyfile=settings.tls_key or None,
        )

    async def _load(self, served: list[ServedEngine]) -> bool:
        try:
            for engine in await asyncio.gather(*map(self.models.open, served)):
                self.models.begin(engine)
        except Exception as error:
            self._line.say(failed=as_words(error))
            self._end()
            return False
        self.models.complete = True
        abouts = {name: engine.about for name, engine in self.models.engines.items()}
        self._line.say(ready=abouts)
        return True

    async def _hear(self) -> None:
        """Do what the supervisor says; without one there is nothing left to do."""
        while (message := await self._line.hear()) is not None:
            if "answer" in message:
                self._asker.answered(message)
            elif message["do"] == "prepare":
                task = asyncio.create_task(self._prepare(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif message["do"] == "commit":
                self.models.commit(message["change"])
                self._line.say(done=message["change"], worker_ok=True)
            elif message["do"] == "abort":
                self.models.abort(message["change"])
            elif message["do"] == "remove":
                self.models.remove(message["name"])
                self._line.say(done=message["change"], worker_ok=True)
        self._end()

    async def _prepare(self, message: dict[str, Any]) -> None:
        change = message["change"]
        try:
            await self.models.prepare(change, from_json(ServedEngine, message["served"]))
        except Exception as error:
            if not isinstance(error, EngineworksError):
                _log.exception("an engine could not be prepared")
            self._line.say(done=change, worker_ok=False, **as_words(error))
        else:
            self._line.say(done=change, worker_ok=True)

    async def _change(self, name: str, served: ServedEngine | None) -> None:
        place = {"folder": served.folder, "sha256": served.sha256} if served else {}
        await self._asker.ask(name=name, **place)

    def _end(self) -> None:
        self.models.draining = True
        self._server.should_exit = True


def _metrics(record: PrometheusRecorder) -> Any:
    """The text for Prometheus, of this process or of all that share a folder."""
    import os

    import prometheus_client
    from prometheus_client import multiprocess

    def text() -> bytes:
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return prometheus_client.generate_latest(record.registry)
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        registry.register(GpuMemory())
        return prometheus_client.generate_latest(registry)

    return text


async def _main(listener_fd: int, line_fd: int) -> None:
    line = await Line.over(socket.socket(fileno=line_fd))
    await Worker(line, socket.socket(fileno=listener_fd)).run()


def main() -> None:
    """The process."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    listener_fd, line_fd = map(int, sys.argv[1:3])
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(_main(listener_fd, line_fd))
    else:
        uvloop.run(_main(listener_fd, line_fd))


if __name__ == "__main__":
    main()
