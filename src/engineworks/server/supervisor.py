"""The process that a person starts: it listens, starts workers, and decides what they serve.

A change of an engine is prepared by all workers and then begun by all, or by none. A worker that
dies is started again with what is served now. Imports neither engines nor FastAPI: workers are
started at once, and import theirs while it is found out what to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engineworks.codec import to_json
from engineworks.errors import EngineworksError, StageError
from engineworks.server.control import Line, as_error, as_words
from engineworks.server.follow import Follower
from engineworks.server.settings import ServedEngine, Settings

_log = logging.getLogger(__name__)

#: How long opening and warming an engine may take before a change comes to nothing.
PREPARE_S = 600.0

#: Between the end of a worker and the start of the next in its place; doubled while it dies soon.
_AGAIN_S = 0.2


@dataclass(eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    line: Line
    ready: bool = False
    changes: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)


class Supervisor:
    """Runs the server until it is told to end.

    Args:
        settle: Finds out what to serve; called once, on a thread, while workers start.
        workers: How many there are.
        listener: A bound, listening socket.
        tell: Called with what is served once all workers answer.
    """

    def __init__(
        self,
        settle: Callable[[], Settings],
        workers: int,
        listener: socket.socket,
        tell: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._settle, self._count, self._listener, self._tell = settle, workers, listener, tell
        self._settings: Settings | None = None
        self._settled = asyncio.Event()
        self._served: dict[str, ServedEngine] = {}
        self._workers: dict[int, _Worker] = {}
        self._changing = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._ending = asyncio.Event()
        self._failure: EngineworksError | None = None
        self._told = False

    async def run(self) -> None:
        """Serve.

        Raises:
            EngineworksError: What to serve cannot be found out, or not be opened at the start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        with tempfile.TemporaryDirectory(prefix="engineworks-serve-") as folder:
            self._metrics = folder
            keepers = [loop.create_task(self._keep(number)) for number in range(self._count)]
            await self._learn()
            follower = None
            if self._settings is not None and self._settings.follows:
                follower = loop.create_task(
                    Follower(Path(self._settings.follows), self._served, self.change).run()
                )
            await self._ending.wait()
            if follower is not None:
                follower.cancel()
            self._listener.close()  # so that nobody waits for an answer that nobody gives
            for worker in self._workers.values():
                with contextlib.suppress(ProcessLookupError):
                    worker.process.terminate()
            await self._wait(keepers)
        if self._failure is not None:
            raise self._failure

    async def _learn(self) -> None:
        try:
            self._settings = await asyncio.get_running_loop().run_in_executor(None, self._settle)
            self._served = {served.name: served for served in self._settings.engines}
        except EngineworksError as error:
            self._failure = error
            self._ending.set()
        finally:
            self._settled.set()

    async def _wait(self, keepers: list[asyncio.Task[None]]) -> None:
        drain_s = 10 + (self._settings.limits.drain_s if self._settings is not None else 0)
        _, late = await asyncio.wait(keepers, timeout=drain_s)
        for worker in list(self._workers.values()) if late else ():
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        """Keep one worker alive until the end."""
        replaces, again_s = False, _AGAIN_S
        while not self._ending.is_set():
            async with self._started(number, replaces=replaces) as worker:
                begun = asyncio.get_running_loop().time()
                await self._hear(worker)
                await worker.process.wait()
                lived_s = asyncio.get_running_loop().time() - begun
            self._forget(worker)
            if self._ending.is_set():
                return
            if not worker.ready and not replaces:
                self._failure = self._failure or StageError(
                    f"a worker ended with code {worker.process.returncode} before it was ready",
                    hint="its words stand above",
                )
                self._ending.set()
                return
            _log.warning("worker %d ended (%s): another is started", worker.process.pid,
                         worker.process.returncode)  # fmt: skip
            again_s = min(30.0, again_s * 2) if lived_s < 5 else _AGAIN_S
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ending.wait(), again_s)
            replaces = True

    @contextlib.asynccontextmanager
    async def _started(self, number: int, *, replaces: bool) -> AsyncIterator[_Worker]:
        ours, theirs = socket.socketpair()
        environment = {
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": self._metrics,
            "PYTHONSAFEPATH": "1",  # a file json.py where the server is started is not ours
        }
        descriptors = (self._listener.fileno(), theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engineworks.server.worker", *map(str, descriptors),
            pass_fds=descriptors, env=environment,
        )  # fmt: skip
        theirs.close()
        worker = _Worker(process, await Line.over(ours))
        await self._settled.wait()
        async with self._changing:  # what is served does not change while this is told
            if self._ending.is_set() or self._settings is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            else:
                self._workers[process.pid] = worker
                worker.line.say(
                    settings=to_json(self._settings),
                    engines=[to_json(served) for served in self._served.values()],
                    measures=number == 0,
                    replaces=replaces,
                )
        try:
            yield worker
        finally:
            worker.line.close()

    def _forget(self, worker: _Worker) -> None:
        pid = worker.process.pid
        self._workers.pop(pid, None)
        for future in worker.changes.values():
            if not future.done():
                future.set_result({"worker_ok": True})  # the next in its place serves what counts
        # Its gauges say nothing any more; what it has counted stays.
        for path in Path(self._metrics).glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    async def _hear(self, worker: _Worker) -> None:
        while (message := await worker.line.hear()) is not None:
            if "ready" in message:
                worker.ready = True
                self._tell_once(message["ready"])
            elif "failed" in message:
                if not self._told:
                    self._failure = self._failure or as_error(message["failed"])
                    self._ending.set()
                else:
                    _log.error("a worker cannot start: %s", message["failed"]["error"])
            elif "done" in message:
                future = worker.changes.pop(message["done"], None)
                if future is not None and not future.done():
                    future.set_result(message)
            elif "ask" in message:
                asyncio.get_running_loop().create_task(self._asked(worker, message))

    def _tell_once(self, engines: Mapping[str, Any]) -> None:
        all_ready = len(self._workers) == self._count and all(
            worker.ready for worker in self._workers.values()
        )
        if all_ready and not self._told:
            self._told = True
            self._tell(engines)

    async def _asked(self, worker: _Worker, message: dict[str, Any]) -> None:
        folder = message.get("folder")
        served = (
            ServedEngine(name=message["name"], folder=folder, sha256=message.get("sha256", ""))
            if folder
            else None
        )
        try:
            await self.change(message["name"], served)
        except EngineworksError as error:
            worker.line.say(answer=message["ask"], ok=False, **as_words(error))
        else:
            worker.line.say(answer=message["ask"], ok=True)

    async def change(self, name: str, served: ServedEngine | None) -> None:
        """Let all workers serve another engine under a name; None: none.

        Raises:
            EngineworksError: One of them cannot; then all go on with what they have.
        """
        async with self._changing:
            number = next(self._numbers)
            workers = list(self._workers.values())
            if served is None:
                self._served.pop(name, None)
                await self._all(workers, number, do="remove", name=name)
                return
            answers = await self._all(workers, number, do="prepare", served=to_json(served))
            bad = next((answer for answer in answers if not answer["worker_ok"]), None)
            if bad is not None:
                for worker in workers:
                    worker.line.say(do="abort", change=number)
                raise as_error(bad)
            self._served[name] = served
            await self._all(workers, number, do="commit")

    async def _all(
        self, workers: list[_Worker], number: int, **message: Any
    ) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        futures = []
        for worker in workers:
            if worker.process.returncode is None:
                worker.changes[number] = loop.create_future()
                futures.append(worker.changes[number])
                worker.line.say(change=number, **message)
        _, late = await asyncio.wait(futures, timeout=PREPARE_S) if futures else (None, None)
        if late:
            slow = StageError(
                f"a worker did not answer within {PREPARE_S:g} s",
                hint="see the server's log; the engine that served goes on",
            )
            return [{"worker_ok": False, **as_words(slow)}]
        return [future.result() for future in futures]


def listen(host: str, port: int, uds: str) -> socket.socket:
    """A listening socket.

    Raises:
        EngineworksError: The address cannot be had.
    """
    try:
        if uds:
            if Path(uds).is_socket():  # of a server that is gone; anything else is not ours
                Path(uds).unlink()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(uds)
            Path(uds).chmod(0o600)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        raise EngineworksError(
            f"{uds or f'{host}:{port}'} cannot be listened on "
            f"({getattr(error, 'strerror', None) or error})",
            hint="choose another address or port; port 0 is any free one",
        ) from error
    return listener


def serve(
    settle: Callable[[], Settings],
    workers: int,
    listener: socket.socket,
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; see `Supervisor`."""

    async def run() -> None:
        await Supervisor(settle, workers, listener, tell).run()

    asyncio.run(run())
