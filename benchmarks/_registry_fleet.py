"""A registered model of two versions, and devices that serve it: real MLflow, servers and agents.

The first version doubles its input, the second trebles it, so an answer says which one gave it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from artifacts.promotion import conditional, ledger, projection, publishing
from artifacts.registry import mlflow_log, ownership, versions
from artifacts.summary import SCHEMA, Engine, Summary, Variant
from engineworks.delivery.cards import Slot
from engineworks.facts.engine import Parity
from engineworks.facts.timing import BenchmarkRow
from engineworks.specs import InputSpec, Preprocess, TaskSpec
from tests import builders, servers
from tests.deliveries import World

MODEL, VARIANT = "scaled", "onnxruntime-cpu/fp32"
FACTORS = {"1": 2.0, "2": 3.0}


class Registry:
    """A state folder with MLflow, a repository that devices read, and two promoted versions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.world = World(self.home, models=(MODEL,))
        self.store = self.world.store
        self.place = conditional.FolderPlace(self.home)
        for factor in FACTORS.values():
            self._register(factor)
        self.promote("1")

    @property
    def environment(self) -> dict[str, str]:
        """Of a command on this machine, which promotes and publishes."""
        return {
            **os.environ,
            "ENGINEWORKS_HOME": str(self.home),
            "ENGINEWORKS_DELIVERY": str(self.world.folder / "repository"),
            "ENGINEWORKS_DELIVERY_KEYS": str(self.world.folder / "keys"),
        }

    def promote(self, version: str) -> None:
        """Move the variant without its gates, and publish it: devices take it at once."""
        then = ledger.read(self.place, MODEL, VARIANT)
        ledger.advance(
            self.place, then, model=MODEL, variant=VARIANT, what="promote", who="the benchmark",
            new=version, why="to be gone back from", evidence={},
            stack=ledger.promoted(then.generation if then else None, version, good=True),
        )  # fmt: skip
        projection.reconcile(self.home, self.place, MODEL)
        [done] = publishing.publish(
            self.home, self.store, self.place, self.world.repository, MODEL, now=True
        )
        if done.outcome != "published":
            raise RuntimeError(f"version {version}: {done.reason}")

    def _register(self, factor: float) -> None:
        engine = self.world.engine(factor)
        graph = builders.put_bytes(self.store, self.folder, f"{factor}".encode())
        base, task = builders.example(Summary), TaskSpec()
        row = dataclasses.replace(
            builders.example(Variant), name=VARIANT, target="onnxruntime-cpu", precision="fp32",
            verdict="shipped", predictions=None, registered=None, host=None, sealed=None,
            quantized=None, package=(),
            engine=Engine(sha256=engine.name, size_bytes=1, uri=str(engine)),
            parity=dataclasses.replace(builders.example(Parity), holds=True),
            benchmark=(dataclasses.replace(
                builders.example(BenchmarkRow), height=32, width=32, batch=1, p50_ms=1.0,
                threads=1, inconclusive="",
            ),),
        )  # fmt: skip
        summary = dataclasses.replace(
            base, schema=SCHEMA, name=MODEL, size=(32, 32), variants=(row,), simplified=None,
            comparison=None, calibration=None, data=None,
            reference=dataclasses.replace(
                base.reference, artifact=graph, predictions=None, detail={}
            ),
            exported=dataclasses.replace(base.exported, onnx=graph),
        )  # fmt: skip
        owner = ownership.owner("/a/recipe.yaml", task, (), InputSpec(size=(32, 32)), Preprocess())
        logged = mlflow_log.log_run(summary, self.store, {}, f"{factor}", self.home)
        versions.register(summary, logged, self.home, owner)


@contextlib.contextmanager
def published(folder: Path) -> Iterator[str]:
    """The repository's folder on a web server of 127.0.0.1; gives its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def device(registry: Registry, name: str, address: str) -> Iterator[servers.Running]:
    """An enrolled device: a server that follows its links, and the agent as a process."""
    from engineworks.delivery import enrolment
    from engineworks.delivery.cards import Card
    from engineworks.delivery.home import Home

    home = Home(registry.folder / name)
    invitation = registry.folder / f"{name}.invite"
    root = registry.world.repository.root.to_bytes()
    invitation.write_text(enrolment.invite(address, root))
    home.folder.mkdir()
    with servers.serving(home.folder, "--follow", str(home.served), "--threads", "1") as running:
        slots = {"main": Slot(model=MODEL, variant=VARIANT)}
        enrolment.enrol(home, invitation, Card(slots=slots, server=running.url, margin_mib=1.0))
        with (home.folder / "agent.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "engineworks.cli", "agent", "--home", str(home.folder)],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            yield running
        finally:
            process.terminate()
            process.wait(30)


def answer(url: str) -> float | None:
    """What a server makes of 1; None: nothing yet."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0] * 4}
    request = urllib.request.Request(  # noqa: S310 - 127.0.0.1
        f"{url}/v2/models/main/infer", data=json.dumps({"inputs": [tensor]}).encode(),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=5) as said:  # noqa: S310
            return float(json.load(said)["outputs"][0]["data"][0])
    except OSError:
        return None


def until_all(urls: list[str], factor: float, limit_s: float = 120.0) -> None:
    """Wait until every server answers with one engine."""
    until = time.monotonic() + limit_s
    left = list(urls)
    while left:
        left = [url for url in left if answer(url) != factor]
        if time.monotonic() > until:
            raise RuntimeError(f"{len(left)} of {len(urls)} servers do not answer with x{factor}")
        time.sleep(0.05)
