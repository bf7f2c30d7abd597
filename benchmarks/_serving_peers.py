"""Our server beside others with the same engine and photo: knee, p99 at one rate, CPU a request.

Packages of this project (Triton, TorchServe, KServe) are loaded by the servers that `make servers`
installs, LitServe and BentoML by an environment of their own (`PEERS` below). A server that is not
installed is left out and named. Each runs one session of one thread for each core, so that all may
use the whole machine; never more than two contenders run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._rounds import ratio
from benchmarks._serving_cpu import cpu_s, idle_once
from engineworks import hosts, packaging
from engineworks.facts.timing import BenchmarkRow
from engineworks.load import knee, poisson
from engineworks.load.wire import Client, Endpoint, target
from engineworks.packaging import PackageInput
from engineworks.packaging._base import Site
from engineworks.packaging._process import free_ports, running
from engineworks.store import LocalStore, verify
from tests import builders, servers

#: What the environment `HOME/servers/peers` holds.
PEERS = ("litserve==0.2.19", "bentoml==1.4.40")

#: What makes a package's numbers: an engine that was timed with one thread and one row.
_ROW = BenchmarkRow(
    height=416, width=416, batch=1, threads=1, mean_ms=20.0, std_ms=1.0, p50_ms=20.0, p95_ms=22.0,
    p99_ms=None, ci95_ms=(19.8, 20.2), cpu_ms=20.0, throughput_per_s=50.0, n=100, warmup=10,
    inconclusive="",
)  # fmt: skip

_TOP = Path(__file__).parents[1]
CORES = str(hosts.cores())

#: An answer within this is a good one, for the knee.
_LIMIT_MS = 1000.0
_READY_S = 120.0


@dataclass(frozen=True)
class Running:
    """A contender that answers."""

    endpoint: Endpoint
    pid: int

    def cpu_s(self) -> float:
        """User and system time of it and all that it has started."""
        return cpu_s(tree(self.pid))


Contender = Callable[[], AbstractContextManager[Running]]


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    pids = [pid]
    for each in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                pids += map(int, (task / "children").read_text(encoding="ascii").split())
    return pids


def install(home: Path) -> Path:
    """The environment of `PEERS`, made where it is not there."""
    folder = home / "servers" / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        from importlib.metadata import version

        ours = ("onnxruntime", "numpy", "opencv-python-headless", "prometheus-client", "structlog")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pinned = [*PEERS, *(f"{name}=={version(name)}" for name in ours)]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pinned], check=True)
    return folder


def contenders(folder: Path, engine: Path, photo: Path, home: Path) -> dict[str, Contender]:
    """Name -> how it is started; what is not installed is not in it."""
    data = photo.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def ours() -> Iterator[Running]:
        with servers.serving(folder, str(engine), "--threads", "1", "--instances", CORES) as server:
            idle_once(server)
            yield Running(_photo(f"{server.url}/detect", data), server.process.pid)

    def program(python: Path, *words: str, **more: str) -> Contender:
        @contextlib.contextmanager
        def start() -> Iterator[Running]:
            (port,) = free_ports(1)
            work = folder / f"{words[0]}-{port}"
            work.mkdir()
            command = [str(python), "-m", *(word.replace("PORT", str(port)) for word in words)]
            environment = {"PYTHONPATH": f"{_TOP / 'src'}:{_TOP}", "HOME": str(work), **more}
            with running(
                command, work=work, environment=environment, ready=lambda: _listens(port),
                limit_s=_READY_S,
            ) as process:  # fmt: skip
                endpoint = _photo(f"http://127.0.0.1:{port}/detect", data)
                if "lit" in words[0]:
                    endpoint = _form(f"http://127.0.0.1:{port}/detect", data)
                yield Running(endpoint, process.pid)

        return start

    peers = install(home) / "bin" / "python"
    chosen: dict[str, Contender] = {
        "engineworks": ours,
        "naive FastAPI": program(
            Path(sys.executable), "benchmarks._serving_naive", "PORT", str(engine)
        ),
        "LitServe": program(peers, "benchmarks._serving_lit", "PORT", str(engine), CORES),
        "BentoML": program(
            peers, "bentoml", "serve", "benchmarks._serving_bento:Photos", "--host", "127.0.0.1",
            "--port", "PORT", BENCH_ENGINE=str(engine), BENCH_WORKERS=CORES,
        ),
    }  # fmt: skip
    for kind in ("torchserve", "triton", "kserve"):
        package = packaging.load(kind)
        missing = package.environment.missing(home)
        if missing:
            print(f"{kind} is left out: {missing}")
        else:
            chosen[kind] = _packaged(folder, kind, engine, data, home)
    return chosen


def _packaged(folder: Path, kind: str, engine: Path, data: bytes, home: Path) -> Contender:
    package = packaging.load(kind)
    manifest = verify(engine)
    written = folder / f"{kind}-package"
    written.mkdir()
    output = package.write(
        PackageInput(
            engine=engine, manifest=manifest, rows=(_ROW,), cores=hosts.cores(), options={},
            work=written,
        )
    )  # fmt: skip
    made = LocalStore(folder / "packages").put(
        output.files, kind="package", name=manifest.name, entry=output.entry,
        details=output.details, provenance=builders.MADE_HERE,
    )  # fmt: skip
    stored = Path(made.uri)

    @contextlib.contextmanager
    def start() -> Iterator[Running]:
        work = folder / f"{kind}-{free_ports(1)[0]}"
        work.mkdir()
        site = Site(
            package=stored, manifest=verify(stored), engine=manifest,
            environment=package.environment.folder(home), work=work, limit_s=_READY_S,
        )  # fmt: skip
        before = set(tree(os.getpid()))
        with package.serve(site) as served:
            started = min(set(tree(os.getpid())) - before)
            yield Running(_endpoint(served, data), started)

    return start


def _endpoint(served: Any, data: bytes) -> Endpoint:
    """The request that a client of a packaged server sends for one photo."""
    if not hasattr(served, "address"):
        return target(
            f"http://127.0.0.1:{served._inference}/predictions/{served._model}", data,
            content_type="image/jpeg", headers=served._token("inference"),
        )  # fmt: skip
    from tritonclient.http import InferenceServerClient, InferInput
    from tritonclient.utils import np_to_triton_dtype

    given = served.given(data)
    photo = InferInput("photo", list(given.shape), np_to_triton_dtype(given.dtype))
    photo.set_data_from_numpy(given)
    body, head = InferenceServerClient.generate_request_body([photo])
    return target(
        f"http://{served.address}/v2/models/{served._details['model']}/infer", bytes(body),
        content_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(head)} if head is not None else {},
    )  # fmt: skip


def _photo(url: str, data: bytes) -> Endpoint:
    return target(url, data, content_type="image/jpeg")


def _form(url: str, data: bytes) -> Endpoint:
    border = "engineworks-photo"
    head = (
        f"--{border}\r\n"
        'Content-Disposition: form-data; name="request"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
    return target(url, body, content_type=f"multipart/form-data; boundary={border}")


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def compare(
    folder: Path, engine: Path, photo: Path, home: Path, *, seconds: float, rounds: int
) -> dict[str, Any]:
    """Knees of all, then each peer and ours in turns at half the best peer's knee.

    Args:
        folder: For packages and logs.
        engine: Its folder.
        photo: What is sent.
        home: Where servers are installed.
        seconds: Of one measurement.
        rounds: Turns with the best peer; a third of it with the others.
    """
    starts = contenders(folder, engine, photo, home)
    knees = {name: _knee(start, seconds) for name, start in starts.items()}
    best = max((name for name in knees if name != "engineworks"), key=lambda name: knees[name])
    rate = knees[best] / 2
    print(f"the best peer is {best}; all are asked {rate:.1f} times a second")
    rows = {}
    for name in starts:
        if name != "engineworks":
            turns = rounds if name == best else max(3, rounds // 3)
            rows[name] = _pair(starts["engineworks"], starts[name], rate, seconds, turns)
            print(
                f"{name:14} knee {knees[name]:6.1f}/s  p99 {rows[name]['p99_ms']:7.1f} ms, ours "
                f"{rows[name]['our_p99_ms']:6.1f} ms, ratio {rows[name]['p99'][0]:.2f}  CPU "
                f"{rows[name]['cpu_ms']:5.1f} ms, ours {rows[name]['our_cpu_ms']:5.1f} ms",
                flush=True,
            )
    return {"best_peer": best, "rate_per_s": rate, "knees_per_s": knees, "peers": rows}


def _knee(start: Contender, seconds: float) -> float:
    with start() as server:
        client = Client(server.endpoint)
        return asyncio.run(_find(client, seconds))


async def _find(client: Client, seconds: float) -> float:
    try:
        found = await knee.find(
            client, seconds=seconds, limit_ms=_LIMIT_MS, give_up_s=60, tell=lambda *_: None
        )
    finally:
        client.close()
    return found.knee_per_s


def _pair(
    ours: Contender, peer: Contender, rate: float, seconds: float, rounds: int
) -> dict[str, Any]:
    """Both run; each in turn gets the same moments."""
    p99: dict[str, list[float]] = {"ours": [], "peer": []}
    cpu: dict[str, list[float]] = {"ours": [], "peer": []}
    loads: dict[str, list[poisson.Load]] = {"ours": [], "peer": []}
    with ours() as our_server, peer() as other:
        both = {"ours": our_server, "peer": other}

        async def measure() -> None:
            clients = {name: Client(server.endpoint) for name, server in both.items()}
            for name in both:  # what is only slow the first time
                await _send(clients[name], rate, min(2.0, seconds), 0)
            for number in range(rounds):
                for name in list(both)[:: 1 if number % 2 else -1]:
                    begun = both[name].cpu_s()
                    load = await _send(clients[name], rate, seconds, number)
                    cpu[name].append((both[name].cpu_s() - begun) * 1e3 / max(1, load.ok))
                    p99[name].append(load.p99_ms)
                    loads[name].append(load)
            for client in clients.values():
                client.close()

        asyncio.run(measure())
    arrays = {name: np.array(values) for name, values in p99.items()}
    times = {name: np.array(values) for name, values in cpu.items()}
    return {
        "p99": ratio(arrays["ours"], arrays["peer"]),
        "cpu": ratio(times["ours"], times["peer"]),
        "p99_ms": float(np.median(arrays["peer"])),
        "our_p99_ms": float(np.median(arrays["ours"])),
        "cpu_ms": float(np.median(times["peer"])),
        "our_cpu_ms": float(np.median(times["ours"])),
        "rounds": rounds,
        "not_well": {name: sum(not load.well for load in each) for name, each in loads.items()},
        "last": {name: dataclasses.asdict(each[-1]) for name, each in loads.items()},
    }


async def _send(client: Client, rate: float, seconds: float, seed: int) -> poisson.Load:
    return await poisson.send(
        client, rate, seconds, limit_s=_LIMIT_MS / 1e3, give_up_s=60, seed=seed
    )
