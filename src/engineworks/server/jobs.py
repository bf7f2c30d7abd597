"""What waits for an engine: one image, or the tensors of one request.

A job is made on the event loop, prepared and finished on threads, and ends exactly once: with its
answer, an error, or nobody who wants it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from engineworks.errors import DataError
from engineworks.runtime.batching import Ticket
from engineworks.runtime.pictures import decode_picture
from engineworks.runtime.planes import Planes
from engineworks.runtime.preprocess import Placement
from engineworks.runtime.session import Session
from engineworks.server.heads import Model, finish
from engineworks.server.refusals import Refusal

Arrays = Mapping[str, np.ndarray[Any, Any]]

#: uint8 (height, width, 3) BGR, or the planes of a video's frame.
Pixels = np.ndarray[Any, Any] | Planes


class Coming:
    """A request that has chosen an engine and is on its way to the queue.

    Args:
        expect: Tells the queue how many more, or fewer, are.
    """

    def __init__(self, expect: Callable[[int], None]) -> None:
        self._expect = expect
        self._here = False
        expect(1)

    def here(self) -> None:
        """It has come, or will not; once is enough."""
        if not self._here:
            self._here = True
            self._expect(-1)


class ServerJob:
    """One request's tensors on their way through an engine.

    Args:
        feeds: Input name -> rows.
        rows: How many.
        deadline_s: On `time.monotonic`.
        priority: Larger goes first.
    """

    def __init__(
        self, feeds: Arrays | None, *, rows: int, deadline_s: float, priority: int = 0
    ) -> None:
        self.feeds, self.rows = feeds, rows
        self.deadline_s, self.priority = deadline_s, priority
        self.cancelled = False
        self.coming: Coming | None = None
        self.ticket: Ticket[ServerJob] | None = None
        self.stage_ms: dict[str, float] = {}
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def kind(self) -> Hashable:
        """Jobs of equal kind may share a batch."""
        assert self.feeds is not None  # noqa: S101 - prepared before it is queued
        return tuple((name, array.dtype.str, array.shape[1:]) for name, array in self.feeds.items())

    def ran(self, outputs: Arrays, took_ms: float, later: Callable[..., Any]) -> None:
        """The engine has answered; called on its thread.

        Args:
            outputs: Of this job's rows, and nobody else's memory.
            took_ms: How long the inference took.
            later: Runs a function on another thread.
        """
        self.stage_ms["infer"] = took_ms
        self.end(outputs)

    def fail(self, error: BaseException) -> None:
        """End without an answer; from any thread."""
        self._on_loop(self._failed, error)

    def end(self, answer: Any) -> None:
        """End with an answer; from any thread."""
        self._on_loop(self._ended, answer)

    def _on_loop(self, function: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody with it
            self._loop.call_soon_threadsafe(function, value)

    def _ended(self, answer: Any) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def expire(self, error: BaseException) -> None:
        """End without an answer; on the event loop."""
        self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class ImageJob(ServerJob):
    """One image: decoded and placed before the engine, read after it.

    Args:
        model: What reads the engine's outputs with the request's thresholds.
        picture: The image file, or pixels that are decoded already.
        max_pixels: No larger picture is decoded.
        ready: Called with the job when it is prepared.
        about: What the answer says beside its own.
    """

    def __init__(
        self,
        model: Model,
        picture: bytes | Pixels,
        *,
        max_pixels: int,
        ready: Callable[[ImageJob], None],
        about: Mapping[str, Any],
        deadline_s: float,
        priority: int,
    ) -> None:
        super().__init__(None, rows=1, deadline_s=deadline_s, priority=priority)
        self._model, self._picture = model, picture
        self._max_pixels, self._ready, self._about = max_pixels, ready, about
        self._placement: Placement | None = None
        self.counts: dict[str, int] = {}
        self.shape: tuple[int, int] = (0, 0)

    def prepare(self) -> None:
        """Decode and place; on a thread of the pool."""
        if self.cancelled or time.monotonic() >= self.deadline_s:
            return  # the event loop tells, or has told, its client
        try:
            begun = time.perf_counter()
            pixels, self._picture = self._decoded(self._picture), b""
            decoded = time.perf_counter()
            row, self._placement = self._model.prepare(pixels)
            self.shape = pixels.size if isinstance(pixels, Planes) else pixels.shape[:2]
            self.feeds = {self._model.session.inputs[0].name: row[None]}
            self.stage_ms = {
                "decode": (decoded - begun) * 1e3,
                "preprocess": (time.perf_counter() - decoded) * 1e3,
            }
            if not self.cancelled:
                self._ready(self)
        except DataError as error:
            self.fail(Refusal(400, "undecodable", error.message, hint="send a whole image file"))
        except BaseException as error:  # whatever it is, somebody waits for the answer
            self.fail(error)

    def _decoded(self, picture: bytes | Pixels) -> Pixels:
        if not isinstance(picture, bytes):
            return picture
        return decode_picture(picture, "the image", max_pixels=self._max_pixels).image

    def ran(self, outputs: Arrays, took_ms: float, later: Callable[..., Any]) -> None:
        """See `Job.ran`."""
        self.stage_ms["infer"] = took_ms
        self.feeds = None
        later(self._finish, {name: array[0] for name, array in outputs.items()})

    def _finish(self, outputs: Arrays) -> None:
        try:
            begun = time.perf_counter()
            assert self._placement is not None  # noqa: S101 - the engine ran on its row
            fields, self.counts = finish(self._model, outputs, self._placement)
            self.stage_ms["postprocess"] = (time.perf_counter() - begun) * 1e3
            answer = {
                "model": self._about,
                "height": self.shape[0],
                "width": self.shape[1],
                **fields,
                "stage_ms": {stage: round(ms, 3) for stage, ms in self.stage_ms.items()},
            }
            self.end(json.dumps(answer, separators=(",", ":")).encode())
        except BaseException as error:  # whatever it is, somebody waits for the answer
            self.fail(error)


def padded(feeds: Arrays, missing: int) -> Arrays:
    """Rows of zeros behind, for an engine that wants `missing` more of them than a request has."""
    if missing <= 0:
        return feeds
    return {
        name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        for name, array in feeds.items()
    }


def own(session: Session, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs that no later inference overwrites."""
    outputs = session.infer(feeds)
    return {n: a.copy() for n, a in outputs.items()} if session.reuses_outputs else outputs
