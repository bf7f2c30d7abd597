"""One worker process: a uvicorn server over the supervisor's socket, and its engines.

Started as `python -m engineworks.server.worker FD FD`: the listening socket and the line to the
supervisor. Ends when it is told to, or when the supervisor is gone. What takes long is begun at
once and on threads: the framework's import, and the engines, which are opened meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from engineworks import loglevels
from engineworks.codec import from_json
from engineworks.errors import EngineworksError
from engineworks.server.control import Asker, Line, as_words
from engineworks.server.settings import ServedEngine, Settings

if TYPE_CHECKING:
    import uvicorn

    from engineworks.server.models import Models

_log = logging.getLogger("engineworks.server")


class Worker:
    """What one process does between its start and its end."""

    def __init__(self, line: Line, listener: socket.socket) -> None:
        self._line, self._listener = line, listener
        self._asker = Asker(line)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: uvicorn.Server | None = None
        self._ending = False

    async def run(self) -> None:
        """Serve until the end."""
        loop = asyncio.get_running_loop()
        web = loop.create_task(asyncio.to_thread(import_module, "engineworks.server.web"))
        start = await self._line.hear()
        if start is None:
            return
        settings = from_json(Settings, start["settings"])
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal tells all; see SIGTERM
        metrics = await asyncio.to_thread(import_module, "engineworks.runtime.metrics")
        models = await asyncio.to_thread(import_module, "engineworks.server.models")
        record = metrics.PrometheusRecorder()
        self.models: Models = models.Models(settings, record, measures=bool(start["measures"]))
        served = [from_json(ServedEngine, entry) for entry in start["engines"]]
        hearing = loop.create_task(self._hear())
        loading = loop.create_task(self._load(served, web))
        self._server = server = (await web).server(settings, self.models, self._change, record)
        server.should_exit = self._ending
        # Where others answer it comes in when it is ready.
        if not start["replaces"] or await loading:
            await server.serve(sockets=[self._listener])
        await loading
        await self.models.settle()
        await loop.run_in_executor(None, self.models.close)
        hearing.cancel()
        self._line.close()

    async def _load(self, served: list[ServedEngine], web: asyncio.Task[Any]) -> bool:
        try:
            for engine in await asyncio.gather(*map(self.models.open, served)):
                self.models.begin(engine)
            await web  # who is told that it is ready is answered soon
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
        self._ending = self.models.draining = True
        if self._server is not None:
            self._server.should_exit = True


async def _main(listener_fd: int, line_fd: int) -> None:
    line = await Line.over(socket.socket(fileno=line_fd))
    await Worker(line, socket.socket(fileno=listener_fd)).run()


def main() -> None:
    """The process."""
    loglevels.configure(loglevels.asked("info"))
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
