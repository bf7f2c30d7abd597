"""Asks a server by the Open Inference Protocol, through NVIDIA's client over HTTP and gRPC.

For every package whose server speaks it: `NAME` takes a photo, `NAME.engine` the engine's tensors.
Knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np

from engineworks.errors import MissingDependency
from engineworks.facts.package import Check
from engineworks.packaging._base import Answer, Site
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads.classification import Classification
from engineworks.runtime.session import Tensors

#: Seconds that a client waits for any answer.
_PATIENCE_S = 60.0


class ProtocolServed:
    """A running server that speaks the protocol; see `Served`."""

    def __init__(self, site: Site, http: int, grpc: int) -> None:
        try:
            import tritonclient.grpc as over_grpc
            import tritonclient.http as over_http
        except ModuleNotFoundError as error:
            raise MissingDependency(
                f"asking Triton needs the package {error.name!r}",
                hint="pip install 'engineworks[remote]'",
            ) from error
        self._http_module, self._grpc_module = over_http, over_grpc
        self.address = f"127.0.0.1:{http}"
        self._http = over_http.InferenceServerClient(
            self.address, connection_timeout=_PATIENCE_S, network_timeout=_PATIENCE_S
        )
        self.grpc_address = f"127.0.0.1:{grpc}"
        self._grpc = over_grpc.InferenceServerClient(self.grpc_address)
        self._engine = site.engine
        self._details = site.manifest.details
        said = self._http.get_server_metadata()
        self.server = f"{said['name']} {said['version']}, CPU"
        self.client = f"tritonclient {metadata.version('tritonclient')}, HTTP and gRPC"

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()
        self._grpc.close()

    def tensors(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors | None:
        """See `Served`."""
        return self._infer(
            self._http, self._http_module, self._details["tensors"], feeds,
            [spec.name for spec in self._engine.outputs],
        )  # fmt: skip

    @staticmethod
    def _infer(
        client: Any, module: Any, model: str, feeds: Mapping[str, Any], names: list[str]
    ) -> Tensors:
        from tritonclient.utils import np_to_triton_dtype

        inputs = []
        for name, array in feeds.items():
            item = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            item.set_data_from_numpy(array)
            inputs.append(item)
        outputs = [module.InferRequestedOutput(name) for name in names]
        result = client.infer(model, inputs, outputs=outputs)
        return {name: result.as_numpy(name) for name in names}

    def photo(self, data: bytes) -> Answer | None:
        """See `Served`."""
        if not self._details["model"]:
            return None
        return self._photo(self._http, self._http_module, data)

    def given(self, data: bytes) -> np.ndarray[Any, Any]:
        """An encoded picture as the tensor `photo`."""
        return np.array([[data]], np.object_)

    def _photo(self, client: Any, module: Any, data: bytes) -> Answer:
        detection = self._engine.task is not None and self._engine.task.kind == "detection"
        names = [*(["boxes"] if detection else []), "confidence", "class_id"]
        given = {"photo": self.given(data)}
        columns = self._infer(client, module, self._details["model"], given, names)
        if not detection:
            return Classification(class_id=columns["class_id"], confidence=columns["confidence"])
        return Detections(
            xyxy=columns["boxes"].reshape(-1, 4),
            confidence=columns["confidence"],
            class_id=columns["class_id"],
        )

    def probes(self, photo: bytes) -> tuple[Check, ...]:
        """See `Served`."""
        checks = [self._refuses_a_wrong_shape(), self._grpc_answers_alike(photo)]
        if self._details["model"]:
            checks += [self._refuses_no_picture(photo), self.answers_many_at_once(photo)]
        return tuple(checks)

    def _refuses_a_wrong_shape(self) -> Check:
        feeds = {
            spec.name: np.zeros([1, *[3] * (len(spec.shape) - 1)], spec.dtype)
            for spec in self._engine.inputs
        }
        return self._refused("a wrong shape is refused", lambda: self.tensors(feeds))

    def _refuses_no_picture(self, photo: bytes) -> Check:
        refused = self._refused("what is no picture is refused", lambda: self.photo(b"<html>"))
        if refused.holds and self.photo(photo) is None:
            return Check(name=refused.name, holds=False, detail="no answer after it")
        return refused

    @staticmethod
    def _refused(name: str, ask: Any) -> Check:
        from tritonclient.utils import InferenceServerException

        try:
            ask()
        except InferenceServerException as error:
            fault = error.status() in ("400", "StatusCode.INVALID_ARGUMENT")
            detail = f"{error.status()}: {str(error.message())[:200]}"
            return Check(name=name, holds=fault, detail=detail)
        return Check(name=name, holds=False, detail="it was answered")

    def _grpc_answers_alike(self, photo: bytes) -> Check:
        name = "HTTP and gRPC answer alike, bit by bit"
        shape = [size if isinstance(size, int) else 1 for size in self._engine.inputs[0].shape]
        spec = self._engine.inputs[0]
        noise = np.random.default_rng(0).random(shape).astype(spec.dtype)
        names = [each.name for each in self._engine.outputs]
        answers = [
            self._infer(client, module, self._details["tensors"], {spec.name: noise}, names)
            for client, module in (
                (self._http, self._http_module), (self._grpc, self._grpc_module),
            )
        ]  # fmt: skip
        alike = all(np.array_equal(answers[0][each], answers[1][each]) for each in names)
        return Check(name=name, holds=alike, detail=f"{len(names)} outputs")

    def answers_many_at_once(self, photo: bytes) -> Check:
        """Eight clients at a time: each gets the answer of its photo."""
        wanted = self.photo(photo)

        def ask(_: int) -> bool:
            client = self._http_module.InferenceServerClient(self.address)
            try:
                return same(self._photo(client, self._http_module, photo), wanted)
            finally:
                client.close()

        with ThreadPoolExecutor(8) as pool:
            alike = list(pool.map(ask, range(24)))
        return Check(
            name="24 photos of 8 clients at once: all answered alike",
            holds=all(alike),
            detail=f"{sum(alike)} alike",
        )


def same(first: Answer | None, second: Answer | None) -> bool:
    """Whether two answers are equal to the last bit."""
    if isinstance(first, Detections) and isinstance(second, Detections):
        if not np.array_equal(first.xyxy, second.xyxy):
            return False
    elif not (isinstance(first, Classification) and isinstance(second, Classification)):
        return False
    return np.array_equal(first.confidence, second.confidence) and np.array_equal(
        first.class_id, second.class_id
    )
