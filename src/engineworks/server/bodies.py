"""From a request's body to the bytes of one image: raw, in a form, or as base64 in JSON.

Everything that was received is bounded before; nothing here is decoded as a picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from engineworks.runtime.picture_header import other_format, read_header
from engineworks.server.cut import Cut
from engineworks.server.refusals import Refusal, bad_request, busy, too_large
from engineworks.server.settings import ServerLimits

_FORMATS = "JPEG, PNG, WebP, BMP, TIFF, GIF or PNM"
_PART_HEAD = 8192
_PARTS = 16
_NAME = re.compile(rb'name="([^"]*)"')
_DATA_URI = re.compile(r"\s*data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One image's bytes, and the options that came in the same body."""

    data: bytes
    options: dict[str, Any] = field(default_factory=dict)


class Memory:
    """How many bytes of bodies a worker holds; the event loop's alone.

    Args:
        most: No more are taken in.
    """

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Gives what counts bytes of one request; they are let go when the block ends.

        It raises a refusal where there is no room for them.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self._used + size > self._most:
                raise busy(f"{self._used:,} bytes of bodies are in work, as many as may be", 1.0)
            self._used += size
            mine += size

        try:
            yield take
        finally:
            self._used -= mine


async def receive(request: Request, limits: ServerLimits, take: Callable[[int], None]) -> bytes:
    """The whole body.

    Args:
        request: The request.
        limits: The server's.
        take: Of `Memory.held`.

    Raises:
        Refusal: It is too large, too slow, there is no room for it, or the client left.
    """
    slow = Refusal(
        408, "too_slow", f"the body did not arrive within {limits.receive_s:g} s",
        hint="send it faster, or smaller",
    )  # fmt: skip
    with Cut(slow) as cut:
        timer = asyncio.get_running_loop().call_later(limits.receive_s, cut.now)
        try:
            return await _received(request, limits.max_body, take)
        finally:
            timer.cancel()


async def _received(request: Request, most: int, take: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Refusal(499, "cancelled", "the client left", hint="stay")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise too_large(f"the body has more than {most:,} bytes", hint="send a smaller image")
        take(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def upload(body: bytes, content_type: str, max_pixels: int) -> Upload:
    """The image of a body, whose format and size its first bytes say are such as are read here.

    Raises:
        Refusal: 400 for a body that holds no image, 413 for too many pixels, 415 for what is no
            format that is read.
    """
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "multipart/form-data":
        parsed = Upload(data=_of_form(body, rest))
    elif kind == "application/json" or (kind != "application/octet-stream" and body[:1] == b"{"):
        parsed = _of_json(body)
    else:
        parsed = Upload(data=body)
    check(parsed.data, max_pixels)
    return parsed


def check(data: bytes, max_pixels: int) -> None:
    """Refuse by the first bytes what no decoder should see.

    Raises:
        Refusal: As `upload`.
    """
    if not data:
        raise bad_request("the body holds no bytes", hint=f"send an image file: {_FORMATS}")
    header = read_header(data)
    if header is None:
        what = other_format(data) or f"{len(data)} bytes of no image format"
        raise Refusal(
            415, "undecodable", f"{what} cannot be read", hint=f"send {_FORMATS}, whole and as is"
        )
    if header.width * header.height > max_pixels:
        raise too_large(
            f"{header.width}x{header.height} pixels, more than the {max_pixels:,} that are read",
            hint="make the picture smaller",
        )


def _of_form(body: bytes, parameters: str) -> bytes:
    boundary_match = re.search(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', parameters)
    if not boundary_match:
        raise bad_request("multipart/form-data without a boundary", hint="let the client set it")
    boundary = b"--" + (boundary_match[1] or boundary_match[2]).encode("latin-1", "replace")
    parts = (b"\r\n" + body).split(b"\r\n" + boundary, _PARTS + 2)
    if len(parts) < 3 or not parts[-1].startswith(b"--"):
        raise bad_request(
            "the form is cut short, or has more than 16 parts",
            hint="send one file, for example curl -F file=@photo.jpg",
        )
    files = []
    for part in parts[1:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank or len(head) > _PART_HEAD:
            raise bad_request("a part of the form has no head", hint="send it as forms are sent")
        named = _NAME.search(head)
        if b"filename" in head.lower() or (named and named[1] in (b"file", b"image")):
            files.append(content)
    if len(files) != 1:
        raise bad_request(
            f"the form has {len(files)} files, and one is answered at a time",
            hint="send one file, for example curl -F file=@photo.jpg",
        )
    return files[0]


def _of_json(body: bytes) -> Upload:
    data = json_object(body)
    text = data.pop("image", None)
    if not isinstance(text, str):
        raise bad_request(
            'the JSON has no text "image"', hint='send {"image": "<the file as base64>"}'
        )
    return Upload(data=from_base64(text), options=data)


def json_object(body: bytes | memoryview) -> dict[str, Any]:
    """A body's JSON object.

    Raises:
        Refusal: It is none, or too deeply nested.
    """
    try:
        data = json.loads(bytes(body), parse_constant=_no_constant)
    except RecursionError:
        raise bad_request("the JSON is nested too deeply", hint="send flat arrays") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is no JSON ({str(error)[:80]})", hint="see /docs") from None
    if not isinstance(data, dict):
        raise bad_request("the JSON is no object", hint="see /docs")
    return data


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def from_base64(text: str) -> bytes:
    """Bytes of base64 as people send it: data URI, line breaks, URL alphabet, no padding.

    Raises:
        Refusal: What it means is not clear; a blank may have been a plus.
    """
    prefix = _DATA_URI.match(text[:256])
    text = text[prefix.end() if prefix else 0 :].strip()
    text = text.replace("\r", "").replace("\n", "").rstrip("=")
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(
            '"image" is no base64', hint="send the file's bytes as base64, without blanks"
        ) from None
