"""The HTTP side of a worker: uvicorn around the gate around the application.

Apart, because it imports the framework: a worker does that while its engines are opened.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import prometheus_client
import uvicorn
from prometheus_client import multiprocess

from engineworks.runtime.metrics import GpuMemory, PrometheusRecorder
from engineworks.server import app, connection, keys
from engineworks.server.gate import RequestGate
from engineworks.server.models import Models
from engineworks.server.settings import Settings


class _Server(uvicorn.Server):
    """uvicorn's server; signals are the supervisor's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(
    settings: Settings, models: Models, change: app.Change, record: PrometheusRecorder
) -> uvicorn.Server:
    """What answers HTTP; it waits for a socket.

    Args:
        settings: The server's.
        models: The worker's engines.
        change: Changes what all workers serve.
        record: Takes note of every request.
    """
    limits = settings.limits
    ring = None
    if settings.keys_file:
        ring = keys.KeyRing(keys.read(Path(settings.keys_file)), settings.workers)
    log = None
    if settings.log == "-":
        log = sys.stderr
    elif settings.log:
        log = Path(settings.log).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
    answers = app.create(models, change, _metrics(record))
    gate = RequestGate(answers, settings, ring, record, app.labels(), models.overload, log)
    config = uvicorn.Config(
        gate,
        http=connection.limited(limits.header_s, limits.connections, gate.turned_away),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(limits.drain_s),
        ssl_certfile=settings.tls_certificate or None,
        ssl_keyfile=settings.tls_key or None,
    )
    config.load()  # TLS files are read here, not when somebody waits
    return _Server(config)


def _metrics(record: PrometheusRecorder) -> Callable[[], bytes]:
    """The text for Prometheus, of this process or of all that share a folder."""

    def text() -> bytes:
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return prometheus_client.generate_latest(record.registry)
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        registry.register(GpuMemory())
        return prometheus_client.generate_latest(registry)

    return text
