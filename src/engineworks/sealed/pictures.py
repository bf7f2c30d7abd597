"""Pictures for a sealed test where no photo may leave the house, and photos as they are kept.

Made by integers and one seed, so that they can be made again. They show what no camera does: a
test on them says less, and says so. Photos lose their metadata, and are kept without loss: two
decoders of JPEG disagree by a level here and there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.specs import Size

Array = np.ndarray[Any, Any]

#: Longer side of a kept photo; a larger one is made smaller before.
LONGEST = 1024


def generated(count: int, size: Size) -> Iterator[Array]:
    """uint8 (height, width, 3) BGR: soft ground, shapes with edges, noise in parts.

    Args:
        count: How many.
        size: The model's input (height, width); every second picture is larger and of another
            shape, so that resizing is part of the test.
    """
    draws = np.random.RandomState(20_240_917)  # its stream is promised to stay
    for number in range(count):
        height, width = size if number % 2 == 0 else (size[0] * 5 // 4, size[1] * 3 // 2)
        yield _picture(draws, max(height, 8), max(width, 8))


def _picture(draws: Any, height: int, width: int) -> Array:
    cells = draws.randint(2, 7)
    coarse = draws.randint(0, 256, (cells, cells, 3))
    picture = _enlarged(coarse, height, width)
    rows, columns = np.indices((height, width))
    for _ in range(draws.randint(6, 15)):
        colour = draws.randint(0, 256, 3)
        y, x = draws.randint(0, height), draws.randint(0, width)
        tall, wide = (
            draws.randint(max(2, side // 24), max(3, side // 3)) for side in (height, width)
        )
        kind = draws.randint(0, 3)
        away = np.abs(rows - y), np.abs(columns - x)
        if kind == 0:
            inside = (away[0] < tall) & (away[1] < wide)
        elif kind == 1:
            inside = (away[0] * wide) ** 2 + (away[1] * tall) ** 2 < (tall * wide) ** 2
        else:
            inside = (away[0] < tall) & ((rows + columns) // max(2, wide // 8) % 2 == 0)
        picture[inside] = (picture[inside] + 3 * colour) // 4
    noise = draws.randint(-24, 25, (height, width, 3))
    picture[: height // 2] += noise[: height // 2]
    return np.clip(picture, 0, 255).astype(np.uint8)


def _enlarged(coarse: Array, height: int, width: int) -> Array:
    """Linear interpolation in integers, so that it is the same everywhere."""
    cells = len(coarse) - 1
    y, x = np.arange(height) * cells * 256 // height, np.arange(width) * cells * 256 // width
    top, left, down, right = y // 256, x // 256, y % 256, x % 256
    lines = coarse[top] * (256 - down)[:, None, None] + coarse[top + 1] * down[:, None, None]
    both = lines[:, left] * (256 - right)[None, :, None] + lines[:, left + 1] * right[None, :, None]
    return np.asarray(both // 65536, np.int64)


def kept(photo: Array) -> Array:
    """A photo as it goes into the test: its longer side at most `LONGEST`."""
    import cv2

    longer = max(photo.shape[:2])
    if longer <= LONGEST:
        return photo
    height, width = (max(1, side * LONGEST // longer) for side in photo.shape[:2])
    return np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA))


def write(path: Path, picture: Array) -> None:
    """Write a picture without loss."""
    import cv2

    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])
