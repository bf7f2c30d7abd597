"""Runs inside a container of KServe: its Python server with one engine, by the engine's manifest.

`NAME` takes an encoded picture (`photo`, UINT8 [1, its length]) and answers for it, `NAME.engine`
the engine's tensors. `python model.py --http_port 8080`. KServe 0.21 takes no BYTES that are not
UTF-8 over HTTP, so a picture is UINT8 here, where the package for Triton has BYTES.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import uuid
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import kserve
import numpy as np
from kserve import model_server
from kserve.errors import InvalidInput

from engineworks import runtime
from engineworks.errors import EngineworksError
from engineworks.runtime.elsewhere import image_model
from engineworks.runtime.pictures import decode_picture

ENGINE = Path(__file__).parent / "engine"

_DATATYPES = {
    "float32": "FP32", "float16": "FP16", "float64": "FP64", "int64": "INT64", "int32": "INT32",
    "int8": "INT8", "uint8": "UINT8", "bool": "BOOL", "object": "BYTES",
}  # fmt: skip


def _described(specs: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "datatype": _DATATYPES[spec.dtype],
            "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
        }
        for spec in specs
    ]


def _response(model: str, request: Any, outputs: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Outputs as the request wants each: binary where it says so."""
    wanted = {each.name: each for each in request.request_outputs or []}
    unknown = sorted(set(wanted) - set(outputs))
    if unknown:
        raise InvalidInput(f"output {unknown[0]!r} is none of {', '.join(outputs)}")
    tensors = []
    for name in wanted or outputs:
        array = outputs[name]
        tensor = kserve.InferOutput(name, list(array.shape), _DATATYPES[array.dtype.name])
        said = wanted[name].binary_data if name in wanted else None
        binary = bool(request.use_binary_outputs if said is None else said)
        tensor.set_data_from_numpy(array, binary_data=binary)
        tensors.append(tensor)
    return kserve.InferResponse(request.id or uuid.uuid4().hex, model, tensors)


class EngineModel(kserve.Model):  # type: ignore[misc]
    """The engine's tensors."""

    def __init__(self, name: str, session: Any) -> None:
        super().__init__(name)
        self.session, self.lock, self.ready = session, threading.Lock(), True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return _described(self.session.inputs)

    async def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return _described(self.session.outputs)

    async def predict(self, payload: Any, *given: Any, **options: Any) -> Any:
        """Run the engine."""
        feeds = {each.name: each.as_numpy() for each in payload.inputs}
        return _response(self.name, payload, await asyncio.to_thread(self._run, feeds))

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        try:
            with self.lock:
                outputs = self.session.infer(feeds)
                return {name: np.array(array) for name, array in outputs.items()}
        except EngineworksError as error:
            raise InvalidInput(error.message) from error


class PhotoModel(kserve.Model):  # type: ignore[misc]
    """Encoded pictures in, boxes or classes out."""

    def __init__(self, name: str, model: Any) -> None:
        super().__init__(name)
        self.model, self.ready = model, True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [{"name": "photo", "datatype": "UINT8", "shape": [1, -1]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        boxes = [{"name": "boxes", "datatype": "FP32", "shape": [-1, 4]}]
        return [
            *(boxes if isinstance(self.model, runtime.Detector) else []),
            {"name": "confidence", "datatype": "FP32", "shape": [-1]},
            {"name": "class_id", "datatype": "INT64", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ]

    async def predict(self, payload: Any, *given: Any, **options: Any) -> Any:
        """Decode, run, answer."""
        if len(payload.inputs) != 1 or payload.inputs[0].name != "photo":
            raise InvalidInput("the one input is `photo`, UINT8 [1, its length]")
        data = payload.inputs[0].as_numpy()
        if data.dtype != np.uint8 or data.ndim != 2 or len(data) != 1:
            raise InvalidInput("`photo` is one encoded picture, UINT8 [1, its length]")
        return _response(self.name, payload, await asyncio.to_thread(self._run, data.tobytes()))

    def _run(self, data: bytes) -> dict[str, Any]:
        try:
            answer = self.model(decode_picture(data, "photo").image)
        except EngineworksError as error:
            raise InvalidInput(error.message) from error
        labels = [self.model.label(int(n)).encode() for n in answer.class_id]
        columns = {
            "confidence": answer.confidence,
            "class_id": answer.class_id,
            "label": np.array(labels, np.object_),
        }
        boxes = getattr(answer, "xyxy", None)
        return columns if boxes is None else {"boxes": boxes, **columns}


def _listen_on(host: str) -> None:
    """Have both of KServe's servers listen on one address; it has no option for that.

    It takes all, as is wanted in a container; anywhere else strangers could ask.
    """

    class Rest(model_server.RESTServer):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.config.host = host

    original = grpc.aio.server

    def server(*arguments: Any, **named: Any) -> Any:
        bound = original(*arguments, **named)
        add = bound.add_insecure_port
        bound.add_insecure_port = lambda address: add(address.replace("[::]", host))
        return bound

    model_server.RESTServer = Rest
    grpc.aio.server = server


def main() -> None:
    """Open the engine, answer once, serve."""
    parser = argparse.ArgumentParser(add_help=False)  # KServe reads its own options
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--host", default="")
    options, _ = parser.parse_known_args()
    if options.host:
        _listen_on(options.host)
    session = runtime.open(ENGINE, threads=options.threads)
    name = session.manifest.name
    models: list[Any] = [EngineModel(f"{name}.engine", session)]
    try:
        # A second session: pictures and tensors are two models, each with its own queue.
        own = runtime.open(ENGINE, threads=options.threads)
        model = image_model(own.manifest, own)
        model(np.zeros((64, 64, 3), np.uint8))
        models.append(PhotoModel(name, model))
    except EngineworksError:
        pass  # its answers are tensors only
    kserve.ModelServer(workers=1).start(models)


if __name__ == "__main__":
    main()
