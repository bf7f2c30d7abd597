"""The HTTP routes of a worker: images, health, metrics, changes, the page.

The Open Inference Protocol has its own (`protocol.py`). Each handler picks an engine once and
answers by that one, whatever takes its place meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from engineworks import __version__
from engineworks.errors import (
    ArtifactError,
    EngineworksError,
    FeedError,
    InferenceError,
    MissingDependency,
)
from engineworks.server import bodies, pages
from engineworks.server.cut import Cut
from engineworks.server.gate import VIDEO, Note, refusal_body
from engineworks.server.heads import EXAMPLES, MOST_CLASSES, routes
from engineworks.server.models import Models
from engineworks.server.refusals import Refusal, bad_request
from engineworks.server.settings import ServedEngine

Answer = TypeVar("Answer")
Said = TypeVar("Said", bound=pydantic.BaseModel)

#: Asks the supervisor to change what all workers serve.
Change = Callable[[str, ServedEngine | None], Awaitable[None]]

PRIORITIES = {"low": -1, "normal": 0, "high": 1}


def labels() -> frozenset[str]:
    """Paths that have a label of their own in the metrics."""
    own = ("/", "/health/live", "/health/ready", "/metrics", VIDEO)
    return frozenset({*own, *(f"/{name}" for name in routes())})


class Choices(pydantic.BaseModel):
    """What a request may say in a JSON body, beside its image."""

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

    confidence: float | None = pydantic.Field(
        default=None, ge=0, lt=1, description="Leave out what scores less"
    )
    iou: float | None = pydantic.Field(
        default=None, gt=0, le=1, description="Overlap above which the weaker box goes"
    )
    top: int | None = pydantic.Field(
        default=None, ge=1, le=MOST_CLASSES, description="Classes to name"
    )
    max_detections: int | None = pydantic.Field(
        default=None, ge=1, le=10_000, description="Keep the strongest only"
    )

    def chosen(self) -> dict[str, Any]:
        """The settings of a head that it names."""
        return {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}


_SETTINGS = tuple(Choices.model_fields)


class Query(Choices):
    """What a request may say in its address."""

    model_config = pydantic.ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = pydantic.Field(
        default=None, max_length=128, description="Name of an engine"
    )
    timeout_ms: float | None = pydantic.Field(
        default=None, gt=0, le=3.6e6, description="Give up after so long"
    )
    priority: Literal["low", "normal", "high"] = pydantic.Field(
        default="normal", description="Who goes first in the queue"
    )


_NO_QUERY = Query()


class Swap(pydantic.BaseModel):
    """What an admin says to change an engine."""

    model_config = pydantic.ConfigDict(extra="forbid")

    engine: str = pydantic.Field(min_length=1, max_length=4096, description="Folder of the engine")
    sha256: str = pydantic.Field(default="", pattern=r"^([0-9a-f]{64})?$")


def create(models: Models, change: Change, metrics: Callable[[], bytes]) -> FastAPI:
    """The application of one worker.

    Args:
        models: Its engines.
        change: Changes what all workers serve.
        metrics: The text for Prometheus.
    """
    from engineworks.server import protocol, video_route

    app = FastAPI(
        title="engineworks",
        version=__version__,
        summary="Engines behind HTTP",
        docs_url=None,
        redoc_url=None,
    )
    for kind in (Refusal, EngineworksError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _told)
    for route, title in routes().items():
        _add_route(app, models, route, title)
    _add_health(app, models)
    _add_admin(app, models, change)
    pages.add(app)

    @app.get("/metrics", tags=["operation"], summary="Metrics for Prometheus")
    async def metrics_text() -> Response:
        text = await asyncio.get_running_loop().run_in_executor(None, metrics)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    video_route.add(app, models)
    protocol.add(app, models, change)
    return app


async def _told(request: Request, error: Exception) -> Response:
    """Any error as its status, one line of words and the next step.

    No plain function: those are run on threads, some forty of them, and errors come in floods.
    """
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ()))
        error = bad_request(f"{where}: {first.get('msg', 'wrong')}", hint="see /openapi.json")
    elif isinstance(error, HTTPException):
        word = "unknown_path" if error.status_code == 404 else "bad_request"
        error = Refusal(error.status_code, word, str(error.detail), hint="see /openapi.json")
    elif isinstance(error, FeedError):
        error = bad_request(error.message, hint=error.hint)
    elif not isinstance(error, Refusal):
        engine_at_fault = isinstance(error, ArtifactError | InferenceError | MissingDependency)
        word = "engine_error" if engine_at_fault else "error"
        ours = error if isinstance(error, EngineworksError) else None
        error = Refusal(
            500, word, ours.message if ours else type(error).__name__,
            hint=ours.hint if ours else "see the server's log",
        )  # fmt: skip
    note_of(request).outcome = error.outcome
    status, headers, body = refusal_body(error)
    answer = Response(body, status_code=status)
    answer.raw_headers = headers
    return answer


def note_of(request: Request) -> Note:
    """What the gate wants to know about a request."""
    note: Note = request.scope["engineworks"]
    return note


async def unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Do it, unless the client leaves before.

    Raises:
        Refusal: The client has left; the work is cancelled.
    """
    gone = asyncio.ensure_future(_gone(request))
    try:
        with Cut(Refusal(499, "cancelled", "the client left", hint="stay")) as cut:
            gone.add_done_callback(cut.now)
            return await work
    finally:
        gone.remove_done_callback(cut.now)
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def deadline_of(request: Request, models: Models, timeout_ms: float | None) -> float:
    """When a request is late, on `time.monotonic`."""
    within_ms = models.settings.limits.timeout_ms if timeout_ms is None else timeout_ms
    begun: float = request.scope.get("begun", time.monotonic())
    return begun + within_ms / 1e3


def _add_route(app: FastAPI, models: Models, route: str, title: str) -> None:
    limits = models.settings.limits

    async def answer(request: Request) -> Response:
        note = note_of(request)
        asked = _NO_QUERY
        if request.scope["query_string"]:
            asked = checked(Query, dict(request.query_params))
        engine = note.engine = models.pick(asked.model, route)
        deadline_s = deadline_of(request, models, asked.timeout_ms)
        with engine.used() as coming, models.memory.held() as take:
            body = await bodies.receive(request, limits, take)
            upload = bodies.upload(body, request.headers.get("content-type", ""), limits.max_pixels)
            said = checked(Choices, upload.options) if upload.options else _NO_QUERY
            assert engine.head is not None  # noqa: S101 - it answers this route
            reply = await unless_gone(
                request,
                engine.image(
                    upload.data,
                    engine.head.asked({**said.chosen(), **asked.chosen()}),
                    coming=coming,
                    deadline_s=deadline_s,
                    priority=PRIORITIES[asked.priority],
                ),
            )
        note.outcome = "ok"
        return Response(reply, media_type="application/json")

    app.add_api_route(
        f"/{route}",
        answer,
        methods=["POST"],
        name=route,
        summary=title[:1].upper() + title[1:],
        tags=["images"],
        response_class=JSONResponse,
        responses=_responses(route),
        openapi_extra={**_REQUEST_BODY, "parameters": _parameters()},
    )


def checked(kind: type[Said], options: dict[str, Any]) -> Said:
    """What a request says, held to its rules.

    Raises:
        Refusal: The first rule that it breaks.
    """
    try:
        return kind.model_validate(options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_request(f"{where}: {first['msg']}", hint="see /openapi.json") from None


def _parameters() -> list[dict[str, Any]]:
    """The options of an address, as OpenAPI describes them."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.pop("description", ""),
            "schema": schema,
        }
        for name, schema in Query.model_json_schema()["properties"].items()
    ]


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {
                        "image": {"type": "string", "description": "The file as base64"},
                        "confidence": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                        "iou": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                        "top": {"type": "integer", "minimum": 1, "maximum": MOST_CLASSES},
                        "max_detections": {"type": "integer", "minimum": 1, "maximum": 10_000},
                    },
                },
                "example": {"image": "/9j/4AAQSkZJRgABAQ...", "confidence": 0.5},
            },
        },
    }
}

_ERROR = {"application/json": {"example": {"error": "what is wrong", "hint": "what to do"}}}


def _responses(route: str) -> dict[int | str, dict[str, Any]]:
    answer = {
        "model": {
            "name": "yolox-nano",
            "version": "3f1c02a7b9de",
            "variant": "onnxruntime-cpu/fp32",
            "digest": "3f1c02a7b9de...",
        },
        "height": 480,
        "width": 640,
        **EXAMPLES.get(route, {}),
        "stage_ms": {"decode": 1.9, "preprocess": 0.6, "infer": 8.1, "postprocess": 0.4},
    }
    descriptions = {
        400: "Bad option or broken image", 404: "No such engine", 408: "Body too slow",
        413: "Body or image too large", 415: "No format that is read",
        503: "Queue full or deadline passed; see Retry-After",
    }  # fmt: skip
    return {
        200: {
            "description": "What was found",
            "content": {"application/json": {"example": answer}},
        },
        **{
            status: {"description": text, "content": _ERROR}
            for status, text in descriptions.items()
        },
    }


def _add_health(app: FastAPI, models: Models) -> None:
    @app.get("/health/live", tags=["operation"], summary="Whether the process answers at all")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get(
        "/health/ready",
        tags=["operation"],
        summary="Whether every engine is loaded and warm",
        responses={503: {"description": "Not yet, or no longer"}},
    )
    async def ready() -> Response:
        engines = {
            name: {**engine.about, "route": engine.head.route if engine.head else ""}
            for name, engine in models.engines.items()
        }
        return JSONResponse(
            {"ready": models.ready, "models": engines}, status_code=200 if models.ready else 503
        )


def _add_admin(app: FastAPI, models: Models, change: Change) -> None:
    @app.post(
        "/admin/models/{name}/swap",
        tags=["operation"],
        summary="Let another engine answer under a name, without a failed request",
    )
    async def swap(name: str, wanted: Swap) -> dict[str, Any]:
        if name not in models.known:
            raise Refusal(
                404, "unknown_model", f"no engine {name[:80]!r} is known here",
                hint=f"known are: {', '.join(models.known)}",
            )  # fmt: skip
        folder = _within(models.settings.roots, wanted.engine)
        try:
            await change(name, ServedEngine(name=name, folder=str(folder), sha256=wanted.sha256))
        except EngineworksError as error:
            raise Refusal(409, "refused", error.message, hint=error.hint) from error
        return {"model": models.engines[name].about}


def _within(roots: tuple[str, ...], text: str) -> Path:
    """The real folder that is meant, where it lies below one that may be named.

    Raises:
        Refusal: It does not.
    """
    if "\0" not in text:
        for root in roots:
            base = Path(root).resolve()
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                folder = (base / text).resolve()
                if folder.is_relative_to(base) and folder.is_dir():
                    return folder
    raise Refusal(
        403, "forbidden", f"{text[:80]!r} is no folder below those that may be named",
        hint="start the server with --allow DIR, and name an engine's folder below it",
    )  # fmt: skip
