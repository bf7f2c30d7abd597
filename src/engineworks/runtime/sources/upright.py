"""How a stored picture is turned and mirrored before it is seen. Knows arrays and numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

Signs = tuple[int, int, int, int]
"""(a, b, c, d), each -1, 0 or 1: a pixel at (x, y) is seen at (a x + c y, b x + d y), moved so that
no place is below 0. Source: FFmpeg, libavutil/display.h."""

STRAIGHT: Signs = (1, 0, 0, 1)


def signs(matrix: bytes) -> Signs:
    """Those of a container's display matrix, 9 int32 by rows; angles between go to the nearest."""
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def transposed(turn: Signs) -> bool:
    """Whether width and height change places."""
    return not turn[0]


def upright(image: np.ndarray[Any, Any], turn: Signs) -> np.ndarray[Any, Any]:
    """The picture as it is seen, contiguous.

    Args:
        image: (height, width, channels).
        turn: What `signs` found.
    """
    a, b, c, d = turn
    if transposed(turn):
        image = image.swapaxes(0, 1)
    along, down = (c, b) if transposed(turn) else (a, d)
    return np.ascontiguousarray(image[:: down or 1, :: along or 1])
