"""A video in, a line of JSON for each of its frames out, while it is still being read.

The body goes to a file of its own, which is gone when the answer ends: with the last line, or with
the client. Frames wait in the same queue as images, behind them. Knows no codec.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request

from engineworks.errors import DataError, EngineworksError, MissingDependency
from engineworks.runtime.sources import Frame, Troubles
from engineworks.runtime.sources.decoder import Decoder
from engineworks.runtime.sources.file import FileSource
from engineworks.server.cut import Cut
from engineworks.server.refusals import Refusal, busy, too_large
from engineworks.server.settings import ServerLimits

#: Containers that hold their own pictures; FFmpeg also reads lists of other files and addresses.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,gif,asf,h264,hevc"
)

#: Seconds that a whole video may take to arrive.
_RECEIVE_S = 300.0
#: Bytes that are written to the file at once.
_PART = 2**20
#: Seconds that a frame waits for room, where images come first.
_PATIENCE_S = 30.0


class Videos:
    """Who has a video in work in this worker: one for each client, and not many in all.

    Args:
        limits: The server's.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._clients: set[str] = set()

    def take(self, client: str) -> Callable[[], None]:
        """Count a client's video until what is returned is called.

        Raises:
            Refusal: It has one already, or there are as many as may be.
        """
        if client in self._clients:
            raise Refusal(
                429, "limited", "a video of this client is still in work",
                hint="wait for its end, or let it go", retry_s=1.0,
            )  # fmt: skip
        if len(self._clients) >= self.limits.videos:
            raise busy(f"{len(self._clients)} videos are in work, as many as may be", 5.0)
        self._clients.add(client)
        return lambda: self._clients.discard(client)


async def receive(request: Request, limits: ServerLimits, path: Path) -> None:
    """The whole body into a file.

    Raises:
        Refusal: It is empty, too large, too slow, or the client left.
    """
    slow = Refusal(
        408, "too_slow", f"the video did not arrive within {_RECEIVE_S:g} s",
        hint="send it faster, or a smaller one",
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    with Cut(slow) as cut, path.open("wb") as file:
        timer = loop.call_later(_RECEIVE_S, cut.now)
        part, size, more = bytearray(), 0, True
        try:
            while more:
                message = await request.receive()
                if message["type"] != "http.request":
                    raise Refusal(499, "cancelled", "the client left", hint="stay")
                part += message.get("body", b"")
                more = bool(message.get("more_body"))
                if size + len(part) > limits.max_video:
                    raise too_large(
                        f"the video has more than {limits.max_video:,} bytes",
                        hint="send a shorter or smaller one",
                    )
                if len(part) >= _PART or not more:
                    size += await loop.run_in_executor(None, file.write, bytes(part))
                    part.clear()
        finally:
            timer.cancel()
    if not size:
        raise Refusal(400, "bad_request", "the body holds no bytes", hint="send a video file")


class OpenVideo:
    """A received video that can be decoded, and its file.

    Args:
        path: The file; its folder goes when the video is closed.
        folder: That folder.
        limits: The server's.

    Raises:
        Refusal: 415 for what is no video that is read here, 413 for too many pixels or seconds.
    """

    def __init__(
        self, path: Path, folder: tempfile.TemporaryDirectory[str], limits: ServerLimits
    ) -> None:
        self._folder = folder
        self._limit_s = limits.max_video_s
        try:
            decoder = Decoder(
                str(path), hardware="none", troubles=Troubles(), max_pixels=limits.max_pixels,
                options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
            )  # fmt: skip
        except MissingDependency as error:
            raise Refusal(501, "refused", error.message, hint=error.hint) from error
        except DataError as error:
            raise _undecodable(error, path) from error
        self.source = FileSource(decoder, None)
        self.duration_s = decoder.duration_s
        # One thread reads and closes: a container belongs to one at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="video")
        self._path, self._closed = path, False
        if self.duration_s is not None and self.duration_s > self._limit_s:
            self.close()
            raise too_large(
                f"the video takes {self.duration_s:.1f} s, more than {self._limit_s:g}",
                hint="cut it, or ask with `engineworks video` on the machine itself",
            )

    async def frames(self, per_s: float) -> AsyncIterator[Frame]:
        """Upright frames, at most so many for each second of the video.

        Raises:
            Refusal: The rest cannot be decoded, or it is longer than its header says.
        """
        loop = asyncio.get_running_loop()
        chosen = _thinned(self.source, per_s, self._limit_s)
        ahead = loop.run_in_executor(self._thread, next, chosen, None)
        try:
            while (frame := await ahead) is not None:
                ahead = loop.run_in_executor(self._thread, next, chosen, None)
                yield frame
        except DataError as error:
            raise _undecodable(error, self._path) from error
        finally:
            ahead.cancel()

    def close(self) -> None:
        """Free it, and delete the file, once nobody reads it any more."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._freed)
            self._thread.shutdown(wait=False)

    def _freed(self) -> None:
        self.source.close()
        self._folder.cleanup()


def _thinned(source: FileSource, per_s: float, limit_s: float) -> Iterator[Frame]:
    wanted_s = 0.0
    for frame in source:
        if frame.time_s > limit_s:
            raise DataError(f"it goes on after {limit_s:g} s", hint="cut it")
        if frame.time_s + 1e-6 >= wanted_s:
            yield frame
            wanted_s = max(wanted_s + 1 / per_s, frame.time_s - 1 / per_s)


def _undecodable(error: DataError, path: Path) -> Refusal:
    message = error.message.replace(str(path), "the video")
    return Refusal(415, "undecodable", message, hint="send a whole video, for example MP4")


async def opened(request: Request, limits: ServerLimits) -> OpenVideo:
    """Receive a video and open it; nothing is left of one that is refused.

    Raises:
        Refusal: As `receive` and `OpenVideo`.
    """
    folder = tempfile.TemporaryDirectory(prefix="engineworks-video-")
    path = Path(folder.name) / "video"
    try:
        await receive(request, limits, path)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, OpenVideo, path, folder, limits)
    except BaseException:
        folder.cleanup()
        raise


async def answered(ask: Callable[[float], Awaitable[bytes]]) -> bytes:
    """Ask until there is room: images go first, and a video waits.

    Args:
        ask: Gives the answer; called with the deadline on `time.monotonic`.

    Raises:
        Refusal: There was no room for long.
    """
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await ask(until_s)
        except Refusal as refusal:
            wait_s = refusal.retry_s
            if wait_s is None or time.monotonic() + wait_s > until_s:
                raise
            await asyncio.sleep(min(wait_s, 1.0))


async def lines(
    video: OpenVideo, per_s: float, ask: Callable[[Frame, float], Awaitable[bytes]]
) -> AsyncIterator[tuple[bytes, str]]:
    """What the video is, each frame, and how it ended: a line of JSON each.

    Beside the last one stands the request's outcome for the metrics.

    Args:
        video: Stays open.
        per_s: Frames to look at for each of its seconds.
        ask: A frame and its deadline -> its answer as a JSON object.
    """
    about = {"duration_s": video.duration_s, "fps": round(video.source.fps, 3), "per_s": per_s}
    yield _line({"video": about}), ""
    number = 0
    try:
        async for frame in video.frames(per_s):
            answer = await answered(partial(ask, frame))
            place = _line({"frame": frame.number, "time_s": round(frame.time_s, 6)})
            yield place[:-2] + b"," + answer[1:] + b"\n", ""
            number += 1
    except EngineworksError as error:
        outcome = error.outcome if isinstance(error, Refusal) else "engine_error"
        ended = {"frames": number, "error": error.message, "hint": error.hint}
        yield _line({"end": ended}), outcome
    else:
        yield _line({"end": {"frames": number}}), "ok"


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
