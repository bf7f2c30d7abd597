"""`POST /video`: a video as the body, its frames' answers as lines of JSON. Knows no codec."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pydantic
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from engineworks.runtime.sources import Frame
from engineworks.server import videos
from engineworks.server.app import PRIORITIES, Query, checked, note_of
from engineworks.server.gate import VIDEO, Note
from engineworks.server.heads import routes
from engineworks.server.models import Models
from engineworks.server.refusals import Refusal, bad_request
from engineworks.server.videos import OpenVideo, Videos

_EXAMPLE = (
    '{"video":{"duration_s":4.2,"fps":25.0,"per_s":10.0}}\n'
    '{"frame":0,"time_s":0.0,"model":{"name":"yolox-nano"},"height":480,"width":640,'
    '"detections":[]}\n'
    '{"end":{"frames":42}}\n'
)


_BODY = {
    "required": True,
    "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}},
}
_WORDS = {
    400: "Bad option or an empty body", 403: "This server takes no videos", 404: "No such engine",
    408: "Body too slow", 413: "Too many bytes, pixels or seconds", 415: "No video that is read",
    429: "This client has a video in work already",
    501: "The extra [video] is not installed here", 503: "Too many videos are in work",
}  # fmt: skip
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each frame, while it is read",
        "content": {"application/x-ndjson": {"example": _EXAMPLE}},
    },
    **{status: {"description": text} for status, text in _WORDS.items()},
}


class VideoQuery(Query):
    """What a request may say in its address."""

    per_s: float = pydantic.Field(
        default=10.0, ge=0.1, le=60, description="Frames to look at for each second"
    )


def add(app: FastAPI, models: Models) -> None:
    """Add the route."""
    limits = models.settings.limits
    held = Videos(limits)

    async def answer(request: Request) -> Response:
        note = note_of(request)
        asked = checked(VideoQuery, dict(request.query_params))
        if not limits.max_video:
            raise Refusal(403, "forbidden", "this server takes no videos", hint="send photos")
        engine = note.engine = models.pick(asked.model, "")
        if engine.head is None:
            raise bad_request(f"{engine.name} answers tensors only", hint="name another model")
        engine.head.asked(asked.chosen())  # refused before the body is read
        release = held.take(note.client)
        try:
            video = await videos.opened(request, limits)
        except BaseException:
            release()
            raise

        def ended() -> None:
            video.close()
            release()

        return _Lines(_body(note, video, asked, models, engine.name, ended), ended)

    app.add_api_route(
        VIDEO,
        answer,
        methods=["POST"],
        name="video",
        summary=f"Ask for the frames of a video ({', '.join(routes())})",
        tags=["images"],
        responses=_RESPONSES,
        openapi_extra={"requestBody": _BODY, "parameters": _parameters()},
    )


def _parameters() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.pop("description", ""),
            "schema": schema,
        }
        for name, schema in VideoQuery.model_json_schema()["properties"].items()
        if name not in ("priority", "timeout_ms")
    ]


class _Lines(StreamingResponse):
    """Lines while they come; `ended` is called whether or not there ever was a first one."""

    def __init__(self, lines: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def _body(
    note: Note,
    video: OpenVideo,
    asked: VideoQuery,
    models: Models,
    name: str,
    ended: Callable[[], None],
) -> AsyncIterator[bytes]:
    """The lines; each frame is answered by whatever engine has the name then."""

    async def ask(frame: Frame, deadline_s: float) -> bytes:
        if models.draining:
            raise Refusal(503, "queue_full", "the server is ending", hint="send it again")
        engine = models.pick(name, "")
        if engine.head is None:
            raise bad_request(f"{name} answers tensors only now", hint="send it again")
        with engine.used() as coming:
            coming.here()  # nobody is to wait for a frame that waits itself
            return await engine.image(
                frame.pixels,
                engine.head.asked(asked.chosen()),
                coming=coming,
                deadline_s=deadline_s,
                priority=PRIORITIES["low"],
            )

    note.outcome = "cancelled"
    async for line, outcome in videos.lines(video, asked.per_s, ask):
        if outcome:  # who has read the last line may send the next video
            note.outcome = outcome
            ended()
        yield line
