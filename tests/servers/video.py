"""A small video whose every frame is known: a red box that moves by two pixels each time."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np


def moving_box(frames: int, *, fps: float = 10, side: int = 64) -> bytes:
    """VP9 without loss in WebM; the box of frame n is (2n, 16, 2n + 24, 48), modulo 32."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(fps).limit_denominator(100))
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.options = {"lossless": "1", "cpu-used": "8", "deadline": "realtime"}
        for number in range(frames):
            image = np.zeros((side, side, 3), np.uint8)
            left = 2 * number % 32
            image[16:48, left : left + 24, 2] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return file.getvalue()
