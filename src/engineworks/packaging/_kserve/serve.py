"""Starts KServe's real Python server on a package, in its own environment, and asks it."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from engineworks.packaging._base import Site
from engineworks.packaging._process import free_ports, running
from engineworks.packaging._protocol import ProtocolServed


@contextlib.contextmanager
def serve(site: Site) -> Iterator[KServeServed]:
    """See `Package.serve`."""
    http_port, grpc_port = free_ports(2)
    details = site.manifest.details
    command = [
        str(site.environment / "bin" / "python"), str(site.package / "app" / "model.py"),
        f"--http_port={http_port}", f"--grpc_port={grpc_port}", "--host=127.0.0.1",
        f"--threads={details['numbers']['threads']}",
    ]  # fmt: skip
    environment = {
        "PATH": f"{site.environment / 'bin'}:{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    last = details["model"] or details["tensors"]

    def ready() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=2)
        try:
            connection.request("GET", f"/v2/models/{last}/ready")
            return connection.getresponse().status == 200
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    with running(
        command, work=site.work, environment=environment, ready=ready, limit_s=site.limit_s
    ):
        served = KServeServed(site, http_port, grpc_port)
        try:
            yield served
        finally:
            served.close()


class KServeServed(ProtocolServed):
    """A running KServe; see `Served`."""

    def given(self, data: bytes) -> np.ndarray[Any, Any]:
        """As bytes are taken there: it reads BYTES as UTF-8."""
        return np.frombuffer(data, np.uint8)[None]
