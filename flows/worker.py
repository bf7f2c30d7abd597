"""A machine's worker: registers its card, serves its work pool, takes up what a dead one left.

When it registers after an absence, and variants wait for machines, it asks for a run of `complete`.

    python -m flows.worker --pool gpu

Runs `prefect worker start` as a child and speaks for it: the card in the store is written again
every 30 s for as long as that child lives. Needs PREFECT_API_URL and ENGINEWORKS_STORE.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engineworks import hosts, loglevels, streams
from engineworks.errors import EngineworksError, StoreError
from engineworks.facts.host import RegisteredHost
from engineworks.plan import SILENT_S
from engineworks.store import explain_os_error
from flows.commands.settings import configure
from flows.fleet import pools
from flows.fleet.queues import REGISTRY, SHIP, TAKEN, limit_queue, make_queue

log = logging.getLogger("engineworks.worker")

CARD_S = 30.0
#: Pause until a request that did not reach Prefect or the store is made again.
AGAIN_S = 60.0
#: Seconds that the worker has to end its runs by itself; it is known not to end at all.
STOP_S = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal comes; 0 after one, 3 when it cannot go on."""
    streams.tolerate()
    parser = argparse.ArgumentParser(prog="python -m flows.worker", description=__doc__)
    parser.add_argument(
        "--pool", required=True, help=f"work pool, usually {', '.join(pools.names())}"
    )
    parser.add_argument("--name", default=platform.node(), help="name of this machine (its own)")
    parser.add_argument("--home", type=Path, help="state folder (default: ENGINEWORKS_HOME)")
    loglevels.add_option(parser, "info")
    options = parser.parse_args(arguments)
    level = getattr(options, "log_level", "") or loglevels.asked("info")
    loglevels.configure(level, "%(asctime)s %(levelname)s %(message)s", others="info")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    root = (options.home or Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")).absolute()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with _state_folder(root):
            configure(root)
            with _only_one(root) as lock:
                return _Worker(root, options.pool, options.name).serve(stopping, lock)
    except EngineworksError as error:
        sys.stderr.write(error.block)
        return 3


@contextlib.contextmanager
def _state_folder(root: Path) -> Iterator[None]:
    """What cannot be written there is said of the folder."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, root) from error


@contextlib.contextmanager
def _only_one(root: Path) -> Any:
    """One worker per state folder; the lock is handed down, so it ends with the last of them."""
    path = root / "worker.lock"
    with path.open("a+") as stream:
        for _ in range(100):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _end_orphan(stream)
                time.sleep(0.2)
        else:
            raise StoreError(
                f"another worker runs on {root}",
                hint="stop it first, or give this one a folder of its own with --home",
            )
        yield stream


def _end_orphan(stream: Any) -> None:
    """End a `prefect worker` whose own parent was killed: it holds the lock and speaks to nobody.

    Only one that has lost its parent, so that a living worker is never touched.
    """
    stream.seek(0)
    pids = stream.read().split()
    if len(pids) != 2:
        return
    parent, child = map(int, pids)
    with contextlib.suppress(ProcessLookupError):
        os.kill(parent, 0)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)


class _Worker:
    """One machine's place in the fleet."""

    def __init__(self, root: Path, pool: str, name: str) -> None:
        from artifacts.store.remote import RemoteStore, open_store
        from tasks._cache import checkout_sha256

        store = open_store(root / "store")
        if not isinstance(store, RemoteStore):
            raise StoreError(
                "a worker needs the store that all machines share; ENGINEWORKS_STORE is not set",
                hint="set ENGINEWORKS_STORE=s3://bucket/prefix (docs/fleet.md)",
            )
        if "PREFECT_API_URL" not in os.environ:
            raise StoreError(
                "a worker needs Prefect's server; PREFECT_API_URL is not set",
                hint="set PREFECT_API_URL=http://SERVER:4200/api (docs/fleet.md)",
            )
        if name in TAKEN:
            raise StoreError(
                f"{name!r} is no name for a machine: a queue of that name is for other runs",
                hint="give this machine another one: --name rack-3",
            )
        self._root, self._pool, self._name = root, pool, name
        self._bucket = store.bucket
        self._code = checkout_sha256()
        instance = root / "instance"
        if not instance.is_file():
            instance.write_text(uuid.uuid4().hex, encoding="ascii")
        self._instance = instance.read_text(encoding="ascii")

    def serve(self, stopping: threading.Event, lock: Any) -> int:
        """Run Prefect's worker until a signal comes or it ends."""
        import httpx

        from flows.fleet import left

        self._register()
        try:
            self._prepare_queues()
            left.take_up(self._root, self._name)
        except httpx.TransportError as error:
            raise StoreError(
                f"Prefect's server does not answer ({type(error).__name__})",
                hint="start it, or correct PREFECT_API_URL",
            ) from error
        worker = self._start(lock)
        log.info("%s serves pool %s", self._name, self._pool)
        self._speak_up(stopping)
        spoken = time.monotonic()
        while worker.poll() is None and not stopping.wait(0.5):
            if time.monotonic() - spoken > CARD_S:
                spoken = time.monotonic()
                try:
                    if self._register() > SILENT_S:  # cut off or asleep: it was given up meanwhile
                        self._speak_up(stopping)
                except EngineworksError as error:
                    log.warning("%s", error.message)
        ended = worker.poll()
        _end(worker)
        return 0 if stopping.is_set() else (ended or 3)

    def _register(self) -> float:
        from artifacts import fleet

        card = dataclasses.replace(hosts.probe(), name=self._name)
        return fleet.register(
            self._bucket,
            RegisteredHost(
                card=card, pool=self._pool, code_sha256=self._code, instance=self._instance
            ),
        )

    def _speak_up(self, stopping: threading.Event) -> None:
        """Let runs be completed that waited for a machine; call it when the card is written.

        Beside everything else: whatever goes wrong with it, this machine serves.
        """

        def until_asked() -> None:
            while not self._asked() and not stopping.wait(AGAIN_S):
                pass

        threading.Thread(target=until_asked, daemon=True).start()

    def _asked(self) -> bool:
        """Whether a run of `complete` is on its way, or none is needed; False: try again."""
        from artifacts import fleet
        from flows.fleet import trigger

        try:
            waiting = fleet.waiting(self._bucket)
            if waiting and not trigger.ask():
                log.warning(
                    "%s waits for machines, and there is no deployment %s: make deploy",
                    ", ".join(waiting), trigger.DEPLOYMENT,
                )  # fmt: skip
            elif waiting:
                log.info("a run of `complete` goes on with %s", ", ".join(waiting))
        except Exception as error:
            lines = str(error).splitlines() or [""]
            log.warning("no run of `complete` yet: %s (%s)", type(error).__name__, lines[0][:200])
            return False
        return True

    def _queues(self) -> list[str]:
        """The machine's own queue, the pool's, and those of runs which plan, or log to MLflow."""
        queues = [self._name, "default"]
        if pools.plans(self._pool):
            queues += SHIP
            if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow") is not None:
                queues += REGISTRY
        return queues

    def _prepare_queues(self) -> None:
        """The pool, and a queue for this machine alone: one build or benchmark at a time."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import WorkPoolCreate
        from prefect.exceptions import ObjectAlreadyExists

        with get_client(sync_client=True) as client:
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_work_pool(WorkPoolCreate(name=self._pool, type="process"))
            for name in self._queues():
                make_queue(client, self._pool, name)
            limit_queue(client, self._pool, self._name)

    def _start(self, lock: Any) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ENGINEWORKS_HOST": self._name,
            "ENGINEWORKS_CHECKOUT": str(Path(__file__).parents[1]),
            # The cache of finished stages stays with this machine, whatever Prefect's default.
            "PREFECT_LOCAL_STORAGE_PATH": str(self._root / "prefect" / "storage"),
        }
        environment.setdefault("PREFECT_WORKER_QUERY_SECONDS", "5")
        environment.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
        worker = subprocess.Popen(
            [
                sys.executable, "-m", "prefect", "worker", "start", "--type", "process",
                "--pool", self._pool, "--name", self._name,
                *(word for name in self._queues() for word in ("--work-queue", name)),
            ],
            env=environment, stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()],
        )  # fmt: skip
        lock.truncate(0)
        lock.write(f"{os.getpid()} {worker.pid}")
        lock.flush()
        return worker


def _end(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    from flows.commands.signals import end

    end(main())
