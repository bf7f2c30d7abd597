"""The Open Inference Protocol, version 2, over HTTP: health, metadata, inference, repository.

Source: https://github.com/kserve/open-inference-protocol; binary tensors and the repository as
Triton has them. Tensors are read and written by `tensors.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from engineworks import __version__
from engineworks.errors import EngineworksError
from engineworks.runtime.remote import MANIFEST, manifest_text
from engineworks.server import bodies, tensors
from engineworks.server.app import PRIORITIES, Change, deadline_of, note_of, unless_gone
from engineworks.server.engine import OpenEngine
from engineworks.server.jobs import Coming
from engineworks.server.models import Models
from engineworks.server.refusals import Refusal, bad_request
from engineworks.server.settings import ServedEngine

#: A body whose JSON is longer is read on a thread.
_LONG = 2**16

_LENGTH = "inference-header-content-length"


def add(app: FastAPI, models: Models, change: Change) -> None:
    """Add the routes."""
    _add_health(app, models)
    _add_models(app, models)
    _add_repository(app, models, change)


#: How the routes are grouped in the OpenAPI.
TAGS: list[Any] = ["open inference protocol"]


def _add_health(app: FastAPI, models: Models) -> None:
    tags = TAGS

    @app.get("/v2", tags=tags, summary="The server")
    @app.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        return {
            "name": "engineworks",
            "version": __version__,
            "extensions": ["binary_tensor_data", "model_repository"],
        }

    @app.get("/v2/health/live", tags=tags, summary="Whether the process answers at all")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", tags=tags, summary="Whether every engine answers")
    async def ready() -> Response:
        return JSONResponse({"ready": models.ready}, status_code=200 if models.ready else 503)


def _add_models(app: FastAPI, models: Models) -> None:
    tags = TAGS

    @app.get("/v2/models/{model}", tags=tags, summary="An engine's tensors")
    @app.get("/v2/models/{model}/versions/{version}", tags=tags, summary="An engine's tensors")
    async def metadata(model: str, version: str = "") -> dict[str, Any]:
        return _metadata(models.pick(model, version=version))

    @app.get("/v2/models/{model}/config", tags=tags, summary="An engine's manifest")
    async def config(model: str) -> dict[str, Any]:
        engine = models.pick(model)
        manifest = {"string_value": manifest_text(engine.manifest)}
        # 0: requests of any number of rows are split here.
        return {
            "name": engine.name,
            "max_batch_size": 0,
            "parameters": {MANIFEST: manifest},
        }

    @app.get("/v2/models/{model}/ready", tags=tags, summary="Whether an engine answers")
    @app.get("/v2/models/{model}/versions/{version}/ready", tags=tags, summary="Whether it answers")
    async def model_ready(model: str, version: str = "") -> dict[str, Any]:
        engine = models.pick(model, version=version)
        return {"name": engine.name, "ready": True}

    @app.post("/v2/models/{model}/infer", tags=tags, summary="Run an engine on tensors")
    @app.post(
        "/v2/models/{model}/versions/{version}/infer", tags=tags, summary="Run an engine on tensors"
    )
    async def infer(request: Request, model: str, version: str = "") -> Response:
        note = note_of(request)
        engine = note.engine = models.pick(model, version=version)
        with engine.used() as coming, models.memory.held() as take:
            body = await bodies.receive(request, models.settings.limits, take)
            answer = await _infer(request, body, models, engine, coming)
        note.outcome = "ok"
        return answer


def _add_repository(app: FastAPI, models: Models, change: Change) -> None:
    tags = TAGS

    @app.post("/v2/repository/index", tags=tags, summary="All names, loaded or not")
    async def index() -> list[dict[str, str]]:
        return [_entry(models, name) for name in models.known]

    @app.post("/v2/repository/models/{model}/load", tags=tags, summary="Load or reload an engine")
    async def load(request: Request, model: str) -> dict[str, Any]:
        served = _known(models, model)
        await _no_parameters(request, models)
        with _as_refusal():
            # From its place, whatever lies there now.
            await change(model, ServedEngine(name=model, folder=served.folder))
        return {}

    @app.post("/v2/repository/models/{model}/unload", tags=tags, summary="Take an engine away")
    async def unload(request: Request, model: str) -> dict[str, Any]:
        _known(models, model)
        await _no_parameters(request, models)
        with _as_refusal():
            await change(model, None)
        return {}


@contextlib.contextmanager
def _as_refusal() -> Any:
    try:
        yield
    except EngineworksError as error:
        raise Refusal(400, "refused", error.message, hint=error.hint) from error


def _known(models: Models, name: str) -> ServedEngine:
    served = models.known.get(name)
    if served is None:
        raise Refusal(
            404, "unknown_model", f"no engine {name[:80]!r} is known here",
            hint=f"known are: {', '.join(models.known)}",
        )  # fmt: skip
    return served


async def _no_parameters(request: Request, models: Models) -> None:
    """A client may not say what is loaded: that is the admin's route."""
    with models.memory.held() as take:
        body = await bodies.receive(request, models.settings.limits, take)
    parameters = bodies.json_object(body).get("parameters") if body.strip() else None
    if isinstance(parameters, dict) and set(parameters) - {"unload_dependents"}:
        raise bad_request(
            f"the parameter {sorted(parameters)[0]!r} is not taken",
            hint="engines are named at the start, or by /admin/models/NAME/swap",
        )


def _entry(models: Models, name: str) -> dict[str, str]:
    engine = models.engines.get(name)
    if engine is None:
        return {"name": name, "state": "UNAVAILABLE", "reason": "unloaded"}
    return {"name": name, "version": engine.version, "state": "READY", "reason": ""}


def _metadata(engine: OpenEngine) -> dict[str, Any]:
    return {
        "name": engine.name,
        "versions": [engine.version],
        "platform": engine.manifest.requires.runtime if engine.manifest.requires else "",
        "inputs": tensors.described(engine.manifest.inputs),
        "outputs": tensors.described(engine.manifest.outputs),
    }


async def _infer(
    request: Request, body: bytes, models: Models, engine: OpenEngine, coming: Coming
) -> Response:
    length = request.headers.get(_LENGTH)
    specs = engine.manifest.inputs
    names = [spec.name for spec in engine.manifest.outputs]
    head_bytes = int(length) if length and length.isascii() and length.isdigit() else len(body)
    loop = asyncio.get_running_loop()
    if head_bytes > _LONG:
        asked = await loop.run_in_executor(None, tensors.read, body, length, specs, names)
    else:
        asked = tensors.read(body, length, specs, names)
    outputs = await unless_gone(
        request,
        engine.tensors(
            asked.feeds,
            asked.rows,
            coming=coming,
            deadline_s=deadline_of(request, models, _timeout_ms(asked.parameters)),
            priority=_priority(asked.parameters),
        ),
    )
    many = sum(array.size for array in outputs.values()) > _LONG
    if many:
        answer, head = await loop.run_in_executor(
            None, tensors.write, asked, outputs, engine.name, engine.version
        )
    else:
        answer, head = tensors.write(asked, outputs, engine.name, engine.version)
    if head is None:
        return Response(answer, media_type="application/json")
    return Response(
        answer,
        media_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(head)},
    )


def _timeout_ms(parameters: Any) -> float | None:
    """The parameter `timeout` is in microseconds, as Triton's."""
    value = parameters.get("timeout")
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= 3_600_000_000:
        raise bad_request(
            f"timeout is {str(value)[:40]!r}", hint="give microseconds, from 1 to 3600000000"
        )
    return value / 1e3


def _priority(parameters: Any) -> int:
    value = parameters.get("priority", "normal")
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES[value]
    if type(value) is int and 0 <= value <= 2**32:
        return 0 if value == 0 else -min(value - 1, 2**16)  # Triton: 1 is the highest
    raise bad_request(f"priority is {str(value)[:40]!r}", hint=f"use {', '.join(PRIORITIES)}")
