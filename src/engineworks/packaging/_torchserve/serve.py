"""Starts a real TorchServe on a package, in its own environment, and asks it over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import StageError
from engineworks.facts.package import Check
from engineworks.packaging._base import Answer, Site
from engineworks.packaging._process import free_ports, running
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads.classification import Classification
from engineworks.runtime.session import Tensors

#: Seconds that a client waits for any answer.
_PATIENCE_S = 60.0


@contextlib.contextmanager
def serve(site: Site) -> Iterator[TorchServeServed]:
    """See `Package.serve`."""
    ports = free_ports(6)
    _configure(site, ports)
    model = str(site.manifest.details["model"])
    # Its sockets have short names only; its mark that it runs lies here too.
    short = Path(tempfile.mkdtemp(prefix="ts"))
    command = [
        str(site.environment / "bin" / "torchserve"), "--foreground", "--ncs",
        "--ts-config", str(site.work / "config.properties"),
        "--model-store", str(site.package / "model_store"),
    ]  # fmt: skip
    environment = {
        "PATH": f"{site.environment / 'bin'}:{os.environ.get('PATH', '')}",
        "TMPDIR": str(short),
        "TEMP": str(short),
        "LOG_LOCATION": str(site.work / "logs"),
        "METRICS_LOCATION": str(site.work / "logs"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    served = TorchServeServed(site, model, *ports[:3])
    try:
        with running(
            command, work=site.work, environment=environment, ready=served.ready,
            limit_s=site.limit_s,
        ):  # fmt: skip
            yield served
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _configure(site: Site, ports: list[int]) -> None:
    """The package's configuration with free ports; nothing else is changed."""
    inference, management, metrics, grpc, grpc_management, workers = ports
    own = {
        "inference_address": f"http://127.0.0.1:{inference}",
        "management_address": f"http://127.0.0.1:{management}",
        "metrics_address": f"http://127.0.0.1:{metrics}",
        "grpc_inference_port": grpc,
        "grpc_management_port": grpc_management,
        "initial_worker_port": workers,
    }
    lines = (site.package / "config.properties").read_text(encoding="utf-8").splitlines()
    pairs = dict(line.split("=", 1) for line in lines) | own
    text = "".join(f"{key}={value}\n" for key, value in pairs.items())
    (site.work / "config.properties").write_text(text, encoding="utf-8")


class TorchServeServed:
    """A running TorchServe; see `Served`."""

    client = "HTTP, with TorchServe's tokens"

    def __init__(
        self, site: Site, model: str, inference: int, management: int, metrics: int
    ) -> None:
        self._keys = site.work / "key_file.json"
        self._model = model
        self._inference, self._management, self._metrics = inference, management, metrics
        self._detection = site.engine.task is not None and site.engine.task.kind == "detection"
        self.server = f"{site.manifest.details['servers'][0]}, CPU"

    def _token(self, key: str) -> dict[str, str]:
        """The header that opens an address. The file is there empty before it is written."""
        text = self._keys.read_text(encoding="utf-8")
        if not text:
            raise OSError("the keys are not written yet")
        return {"Authorization": f"Bearer {json.loads(text)[key]['key']}"}

    def ready(self) -> bool:
        """Whether every worker has opened the engine: `/ping` says Healthy while they crash."""
        status, body = self._ask(
            self._management, "GET", f"/models/{self._model}", headers=self._token("management")
        )
        if status != 200:
            return False
        workers = json.loads(body)[0]["workers"]
        return bool(workers) and all(worker["status"] == "READY" for worker in workers)

    @staticmethod
    def _ask(
        port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
        try:
            connection.request(method, path, body or None, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _predict(self, data: bytes, **headers: str) -> tuple[int, bytes]:
        given = {"Content-Type": "image/jpeg", **self._token("inference"), **headers}
        return self._ask(
            self._inference, "POST", f"/predictions/{self._model}", data, headers=given
        )

    def tensors(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors | None:
        """It serves none: a picture in, an answer out."""
        return None

    def photo(self, data: bytes) -> Answer | None:
        """See `Served`."""
        status, body = self._predict(data)
        if status != 200:
            raise StageError(
                f"TorchServe answered {status} to a photo: {body[:300]!r}", hint="see its log"
            )
        return self._read(json.loads(body))

    def _read(self, content: Any) -> Answer:
        entries = content["detections" if self._detection else "classes"]
        class_id = np.array([each["class_id"] for each in entries], np.int64)
        confidence = np.array([each["confidence"] for each in entries], np.float32)
        if not self._detection:
            return Classification(class_id=class_id, confidence=confidence)
        xyxy = np.array([each["xyxy"] for each in entries], np.float32).reshape(-1, 4)
        return Detections(xyxy=xyxy, confidence=confidence, class_id=class_id)

    def probes(self, photo: bytes) -> tuple[Check, ...]:
        """See `Served`."""
        return (
            self._status("what is no picture gets 400", 400, self._predict(b"<html>")),
            self._status("a photo without a token is refused", 400, self._without_token(photo)),
            self._status(
                "a body over the limit gets 413", 413, self._predict(bytes(17 * 2**20))
            ),
            self._status(
                "no model is registered from an address", 405,
                self._ask(
                    self._management, "POST", "/models?url=http://127.0.0.1:9/x.mar",
                    headers=self._token("management"),
                ),
            ),
            self._answers_many_at_once(photo),
            self._counts(),
        )  # fmt: skip

    def _without_token(self, photo: bytes) -> tuple[int, bytes]:
        return self._ask(
            self._inference, "POST", f"/predictions/{self._model}", photo,
            headers={"Content-Type": "image/jpeg"},
        )  # fmt: skip

    @staticmethod
    def _status(name: str, wanted: int, answer: tuple[int, bytes]) -> Check:
        status, body = answer
        return Check(
            name=name, holds=status == wanted,
            detail=f"{status}: {body[:160].decode('utf-8', 'replace')}",
        )  # fmt: skip

    def _answers_many_at_once(self, photo: bytes) -> Check:
        """16 requests of 8 clients, each fourth no picture: each gets its own answer."""
        wanted = self._predict(photo)
        data = [b"<html>" if number % 4 == 3 else photo for number in range(16)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(self._predict, data))
        alike = sum(
            answer == wanted if given is photo else answer[0] == 400
            for given, answer in zip(data, answers, strict=True)
        )
        return Check(
            name="16 requests of 8 clients at once, 4 of them bad: each its own answer",
            holds=alike == len(data),
            detail=f"{alike} as they should be",
        )

    def _counts(self) -> Check:
        status, body = self._ask(self._metrics, "GET", "/metrics")
        lines = [line for line in body.decode().splitlines() if "requests_total" in line]
        return Check(
            name="its metrics count requests",
            holds=status == 200 and any(line.startswith("ts_inference_requests") for line in lines),
            detail="; ".join(line for line in lines if not line.startswith("#"))[:200],
        )
