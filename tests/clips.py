"""Short clips made from the example's own photos, for tests of video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.runtime import read_image
from tests import builders


def panned(frames: int, size: tuple[int, int] = (240, 320), photo: int = 0) -> list[Any]:
    """uint8 (height, width, 3) BGR views that slide over a photo, so that its objects move."""
    import cv2

    height, width = size
    image = read_image(builders.photos()[photo])
    image = np.asarray(cv2.resize(image, (int(width * 1.25), int(height * 1.25))))
    left = np.linspace(0, image.shape[1] - width, frames).astype(int)
    top = np.linspace(0, image.shape[0] - height, frames).astype(int)
    return [image[y : y + height, x : x + width].copy() for x, y in zip(left, top, strict=True)]


def write_clip(
    path: Path,
    images: Sequence[Any],
    times_s: Iterable[float] | None = None,
    *,
    fps: int = 25,
    codec: str = "libx264",
) -> Path:
    """Write a clip by PyAV alone; the ending says the container."""
    import av

    times = list(times_s) if times_s is not None else [n / fps for n in range(len(images))]
    clock = Fraction(1, 90_000) if codec == "libx264" else Fraction(1, 60_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = clock
        stream.codec_context.gop_size = 10
        for image, time_s in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(time_s / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_clip(path: Path) -> list[tuple[float, Any]]:
    """(seconds, uint8 BGR image) of every whole frame, by PyAV alone."""
    import av

    with av.open(str(path)) as container:
        return [
            (float(frame.pts * frame.time_base), frame.to_ndarray(format="bgr24"))
            for packet in container.demux(video=0)
            if not packet.is_corrupt
            for frame in packet.decode()
        ]
