"""Starts a real Triton on a package, in its own environment, and asks it through its clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from engineworks.facts.package import Check
from engineworks.packaging._base import Site
from engineworks.packaging._process import free_ports, running
from engineworks.packaging._protocol import ProtocolServed

_STAND_IN = Path(__file__).parent / "stand_in.py"

#: Seconds that a client waits for any answer.
_PATIENCE_S = 60.0


@contextlib.contextmanager
def serve(site: Site) -> Iterator[TritonServed]:
    """See `Package.serve`."""
    http, grpc, metrics = free_ports(3)
    command, environment = _command(site, http, grpc, metrics)
    models = sorted(path.name for path in (site.package / "model_repository").iterdir())
    address = f"http://127.0.0.1:{http}/v2"

    def ready() -> bool:
        return _ok(f"{address}/health/ready") and all(
            _ok(f"{address}/models/{model}/ready") for model in models
        )

    with running(
        command, work=site.work, environment=environment, ready=ready, limit_s=site.limit_s
    ):
        served = TritonServed(site, http, grpc)
        try:
            yield served
        finally:
            served.close()


def _ok(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - a http address
        return bool(answer.status == 200)


def _command(site: Site, http: int, grpc: int, metrics: int) -> tuple[list[str], dict[str, str]]:
    """The command that starts it, and its environment."""
    packages = next((site.environment / "lib").glob("python3.*/site-packages"))
    triton = packages / "pytriton" / "tritonserver"
    backends = site.work / "backends"
    python = backends / "python"
    shutil.copytree(triton / "backends" / "python", python)
    version = packages.parent.name.removeprefix("python")
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, python / stub.name)
    if site.manifest.details["vendor_backend"]:
        # Triton's "Python-based backends": the folder's name is the backend's.
        stand_in = backends / str(site.manifest.details["backend"]).partition("_")[0]
        stand_in.mkdir()
        shutil.copyfile(_STAND_IN, stand_in / "model.py")
    cache_mib = int(site.manifest.details["cache_mib"])
    command = [
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={site.package / 'model_repository'}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name=engineworks_{os.getpid()}_{http}",
        *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
        f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}",
        "--disable-auto-complete-config",
    ]  # fmt: skip
    if cache_mib:
        command += [
            f"--cache-config=local,size={cache_mib * 2**20}",
            f"--cache-directory={triton / 'caches'}",
        ]
    environment = {
        "PATH": f"{site.environment / 'bin'}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    }
    return command, environment


class TritonServed(ProtocolServed):
    """A running Triton; see `Served`."""

    def __init__(self, site: Site, http: int, grpc: int) -> None:
        super().__init__(site, http, grpc)
        self.server = self.server.replace(", CPU", " (nvidia-pytriton), CPU")

    def answers_many_at_once(self, photo: bytes) -> Check:
        """The same, and Triton has counted them."""
        self.photo(photo)
        before = self._counted()
        check = super().answers_many_at_once(photo)
        after = self._counted()
        rows, runs = after[0] - before[0], after[1] - before[1]
        # One more is asked for, to know what is right.
        wanted = 0 if self._details["cache_mib"] else 25
        return Check(
            name=check.name,
            holds=check.holds and rows == wanted,
            detail=f"{check.detail}; the engine counted {rows} rows in {runs} executions",
        )

    def _counted(self) -> tuple[int, int]:
        """Rows and executions of the engine so far, as Triton counts them.

        It answers first and counts then: the figures are right once they stand still.
        """
        before = (-1, -1)
        while True:
            stats = self._http.get_inference_statistics(self._details["tensors"])
            (model,) = stats["model_stats"]
            counted = int(model["inference_count"]), int(model["execution_count"])
            if counted == before:
                return counted
            before = counted
            time.sleep(0.2)
