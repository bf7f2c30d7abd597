"""A picture as videos hold it: brightness at full size, colour at half, in three planes.

What comes from a decoder and goes to an encoder needs no detour by BGR: the model's input is made
of the planes, boxes are drawn into them. Knows neither of the two, and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Weights of red and blue in the brightness. Source: ITU-T H.273, table 4.
_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@dataclass(frozen=True, kw_only=True)
class Planes:
    """8-bit 4:2:0 of limited range: brightness in 16..235, colour differences in 16..240.

    Attributes:
        y: uint8 (height, width); both sides are even.
        u: uint8 (height / 2, width / 2), blue.
        v: The same, red.
        matrix: How they were made of red, green and blue: `bt601` or `bt709`.
        owner: The decoder's frame whose memory they are, for an encoder that takes it as it is.
    """

    y: Array
    u: Array
    v: Array
    matrix: str = "bt601"
    owner: Any = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y.shape[0], self.y.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the planes."""
        return self.y.nbytes + self.u.nbytes + self.v.nbytes

    def bgr(self, size: tuple[int, int] | None = None) -> Array:
        """As uint8 (height, width, 3) BGR, resized bilinearly where a size is given.

        Args:
            size: (height, width); None: as it is.
        """
        import cv2

        height, width = size or self.size
        parts = [
            cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
            for plane in (self.y, self.u, self.v)
        ]
        return np.asarray(cv2.transform(cv2.merge(parts), _to_bgr(self.matrix)))


@lru_cache
def _to_bgr(matrix: str) -> Array:
    """float32 (3, 4) from (y, u, v, 1) in 0..255 to BGR in 0..255."""
    inverse = np.linalg.inv(_to_yuv(matrix)[:, :3])
    offset = -inverse @ _to_yuv(matrix)[:, 3]
    return np.concatenate([inverse, offset[:, None]], axis=1).astype(np.float32)


@lru_cache
def _to_yuv(matrix: str) -> Array:
    """float64 (3, 4) from (b, g, r, 1) in 0..255 to limited (y, u, v)."""
    red, blue = _WEIGHTS[matrix]
    light = np.array([blue, 1 - red - blue, red])
    u = (np.array([1.0, 0, 0]) - light) / (2 * (1 - blue))
    v = (np.array([0, 0, 1.0]) - light) / (2 * (1 - red))
    rows = np.stack([light * 219, u * 224, v * 224]) / 255
    return np.concatenate([rows, [[16], [128], [128]]], axis=1)


def split(image: Array, matrix: str) -> tuple[Array, Array, Array]:
    """The planes (y, u, v) of a uint8 BGR image with even sides."""
    import cv2

    yuv = np.asarray(cv2.transform(image, _to_yuv(matrix).astype(np.float32)))
    height, width = yuv.shape[:2]
    half = np.asarray(cv2.resize(yuv, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return yuv[..., 0].copy(), half[..., 1].copy(), half[..., 2].copy()
