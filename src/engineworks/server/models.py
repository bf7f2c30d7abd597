"""The engines of one worker by name: which answers, which is being made ready, which goes.

A change has two steps: `prepare` opens and warms the new engine beside the old one, `commit` lets
it answer. Lives on the event loop; opening and closing happen on threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl

from engineworks import hosts
from engineworks import manifest as manifests
from engineworks.errors import ArtifactError
from engineworks.runtime.metrics import Recorder
from engineworks.server.bodies import Memory
from engineworks.server.engine import OpenEngine
from engineworks.server.heads import routes
from engineworks.server.refusals import Refusal, bad_request, busy
from engineworks.server.settings import ServedEngine, Settings

_log = logging.getLogger(__name__)

#: Left to everything else on the machine when a second engine is opened.
SPARE_BYTES = 128 * 2**20

_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")

#: Largest bodies that a worker holds at once; smaller ones more.
BODIES = 16


class Models:
    """Names and their engines.

    Args:
        settings: The server's.
        record: Takes note of everything.
        measures: Whether this process times batches.
    """

    def __init__(self, settings: Settings, record: Recorder, *, measures: bool) -> None:
        self.settings = settings
        self.engines: dict[str, OpenEngine] = {}
        self.known: dict[str, ServedEngine] = {served.name: served for served in settings.engines}
        """All names there are, loaded or not."""
        self.memory = Memory(BODIES * settings.limits.max_body)
        self.complete = False
        self.draining = False
        self._record, self._measures = record, measures
        # A thread that decodes may go on to run the engine: there is one more for each session.
        threads = max(2, hosts.cores()) + settings.instances * max(1, len(settings.engines))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._prepared: dict[int, OpenEngine] = {}
        self._aborted: set[int] = set()
        self._changed: set[str] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether requests are answered: all engines of the start are loaded, no end is near."""
        return self.complete and not self.draining

    async def open(self, served: ServedEngine) -> OpenEngine:
        """Open and warm an engine; nobody reaches it yet.

        Raises:
            EngineworksError: It cannot be opened, or both do not fit into memory.
        """
        settings = self.settings
        share = max(1, hosts.cores() // (settings.workers * settings.instances))

        def opened() -> OpenEngine:
            if served.name in self.engines:
                _fits(served)
            return OpenEngine(
                served,
                settings,
                self._pool,
                self._record,
                threads=settings.threads or share,
                measures=self._measures,
            )

        return await asyncio.get_running_loop().run_in_executor(None, opened)

    async def prepare(self, change: int, served: ServedEngine) -> None:
        """Open the engine of a change, and keep it until `commit` or `abort`."""
        engine = await self.open(served)
        if change in self._aborted:  # it took too long, and nobody waits for it any more
            self._aborted.discard(change)
            self._retire(engine)
        else:
            self._prepared[change] = engine

    def commit(self, change: int) -> None:
        """Let the engine of a change answer; the old one ends what it has."""
        engine = self._prepared.pop(change, None)
        if engine is not None:
            self._changed.add(engine.name)
            self.put(engine)

    def abort(self, change: int) -> None:
        """Close the engine of a change that comes to nothing."""
        engine = self._prepared.pop(change, None)
        if engine is not None:
            self._retire(engine)
        else:
            self._aborted.add(change)

    def begin(self, engine: OpenEngine) -> None:
        """Let an engine of the start answer, unless a change has overtaken it meanwhile."""
        if engine.name in self._changed:
            self._retire(engine)
        else:
            self.put(engine)

    def put(self, engine: OpenEngine) -> None:
        """Let an engine answer under its name."""
        before = self.engines.get(engine.name)
        if before is not None:
            before.record.answers(False)
        engine.record.answers(True)
        self.engines[engine.name] = engine
        self.known[engine.name] = engine.served
        if before is not None:
            self._retire(before)
        _log.info("%s is %s %s now", engine.name, engine.variant, engine.version)

    def remove(self, name: str) -> None:
        """Take a name out of service."""
        self._changed.add(name)
        engine = self.engines.pop(name, None)
        if engine is not None:
            engine.record.answers(False)
            self._retire(engine)

    def _retire(self, engine: OpenEngine) -> None:
        task = asyncio.get_running_loop().create_task(engine.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def pick(self, name: str | None, route: str = "", version: str = "") -> OpenEngine:
        """The engine that a request means.

        Args:
            name: As the request says; None: the only one of the route.
            route: The route that it must answer; empty: any.
            version: The version that it must have; empty: any.

        Raises:
            Refusal: 404 there is none, 400 there are several or it is for another route.
        """
        if name is None:
            fitting = [e for e in self.engines.values() if _route(e) == route]
            if len(fitting) == 1:
                return fitting[0]
            if not fitting:
                raise self._absent(f"no engine that answers /{route} is served here")
            names = ", ".join(engine.name for engine in fitting)
            raise bad_request(
                f"{len(fitting)} engines answer /{route}: {names}",
                hint="say which: ?model=NAME",
            )
        engine = self.engines.get(name)
        if engine is None:
            raise self._absent(f"no engine {name[:80]!r} is served here")
        if version and version != engine.version:
            raise Refusal(
                404, "unknown_model", f"{name} is version {engine.version}, not {version[:80]!r}",
                hint="leave the version out for the one that is served",
            )  # fmt: skip
        if route and _route(engine) != route:
            own = f"/{_route(engine)}" if engine.head else f"/v2/models/{name}/infer alone"
            raise bad_request(f"{name} does not answer /{route}", hint=f"it answers {own}")
        return engine

    def overload(self, path: str, query: bytes) -> tuple[OpenEngine, Refusal] | None:
        """Why a request's engine would not let it in, by its address alone; None: it may, or not.

        What is wrong with the address itself is told by the one who answers it.
        """
        image = path[1:] in routes()
        tensors = None if image else _INFER.fullmatch(path)
        if not image and tensors is None:
            return None
        asked = dict(parse_qsl(query.decode("latin-1"))) if query else {}
        try:
            engine = (
                self.pick(tensors[1], "") if tensors else self.pick(asked.get("model"), path[1:])
            )
            timeout_ms = float(asked.get("timeout_ms", self.settings.limits.timeout_ms))
        except (Refusal, ValueError):
            return None
        # A tensor request says its time in its body.
        deadline_s = None if tensors else time.monotonic() + timeout_ms / 1e3
        refusal = engine.admission.refusal(1, deadline_s)
        return None if refusal is None else (engine, refusal)

    def _absent(self, message: str) -> Refusal:
        if not self.complete:
            return busy(f"{message} yet: engines are being loaded", 1.0)
        names = ", ".join(self.engines) or "none"
        return Refusal(404, "unknown_model", message, hint=f"served are: {names}")

    def close(self) -> None:
        """Close everything; nobody asks any more."""
        for engine in [*self.engines.values(), *self._prepared.values()]:
            engine.close()
        self._pool.shutdown(cancel_futures=True)

    async def settle(self) -> None:
        """Wait for engines that were replaced."""
        await asyncio.gather(*self._retiring, return_exceptions=True)


def _route(engine: OpenEngine) -> str:
    return engine.head.route if engine.head is not None else ""


def _fits(served: ServedEngine) -> None:
    """Refuse a second engine that the machine has no room for.

    Raises:
        ArtifactError: It has not; the one that serves stays.
    """
    size = manifests.load(Path(served.folder) / manifests.MANIFEST_NAME).size_bytes
    free = free_bytes()
    wanted = 3 * size + SPARE_BYTES
    if free is not None and free < wanted:
        raise ArtifactError(
            f"{served.name}: {free // 2**20} MiB of memory are free, and the new engine beside the "
            f"old one may need {wanted // 2**20}",
            hint="free memory, or restart the server with the new engine",
        )


def free_bytes() -> int | None:
    """Memory that may still be taken, by this machine's and this container's word."""
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        free.append(most - used)
    return min(free, default=None)
