"""Pictures that their EXIF turns, and boxes that were drawn on them as they are stored.

Knows EXIF's orientation (CIPA DC-008, tag 0x0112) in JPEG, PNG and WebP; decodes only to see what
the decoder makes of it. TIFF is not told apart: OpenCV turns it whatever it is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engineworks.evaluate.annotations.coco import CocoLabels

Array = np.ndarray[Any, Any]

_TAG = 0x0112


def orientation(data: bytes, upright: Array) -> int:
    """How the decoder has turned a picture: EXIF's number 1..8; 1: not at all.

    Args:
        data: The file.
        upright: What was decoded from it.
    """
    import cv2

    tag = tagged(data)
    if tag == 1:
        return 1
    stored = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if stored is None:
        return 1
    turned = turn(np.asarray(stored), tag)
    # Whether a format's tag is followed depends on OpenCV's version.
    same = turned.shape == upright.shape and np.array_equal(turned, upright)
    swapped = stored.shape[:2] == upright.shape[1::-1] and stored.shape[0] != stored.shape[1]
    return tag if same or (tag >= 5 and swapped) else 1


def mismatch(
    name: str, said: tuple[int, int], shape: tuple[int, int], number: int, frame: str | None
) -> tuple[str, bool]:
    """Why a picture is not the one that its annotation speaks of.

    Args:
        name: Of the file.
        said: (height, width) in the annotation.
        shape: (height, width) of the upright picture.
        number: EXIF's orientation.
        frame: Of the recipe.

    Returns:
        (words, empty if it is that picture; whether it is, as it is stored).
    """
    stored = shape[::-1] if number >= 5 else shape
    if said == (stored if frame == "unturned" else shape):
        return "", False
    text = f"{name} is {shape[1]}x{shape[0]} pixels"
    if number >= 5:
        text += (
            f" when its EXIF (orientation {number}) has turned it upright, and "
            f"{stored[1]}x{stored[0]} as it is stored"
        )
    return f"{text}, its annotation says {said[1]}x{said[0]}", said == stored != shape


def turn(image: Array, number: int) -> Array:
    """A stored picture, upright."""
    if number >= 5:
        image = image.swapaxes(0, 1)
    if number in (2, 3, 6, 7):
        image = image[:, ::-1]
    if number in (3, 4, 7, 8):
        image = image[::-1]
    return image


def to_upright(box: Sequence[float], number: int, size: tuple[int, int]) -> list[float]:
    """A box (left, top, width, height) of a stored picture, on the upright one.

    Args:
        box: In pixels of the stored picture.
        number: EXIF's orientation.
        size: (height, width) of the upright picture.
    """
    left, top, width, height = box
    if number >= 5:
        left, top, width, height = top, left, height, width
    if number in (2, 3, 6, 7):
        left = size[1] - left - width
    if number in (3, 4, 7, 8):
        top = size[0] - top - height
    return [left, top, width, height]


def upright(labels: CocoLabels, numbers: Mapping[str, int]) -> CocoLabels:
    """Boxes and sizes that were written for stored pictures, for upright ones.

    Args:
        labels: As the annotations say.
        numbers: EXIF's orientation by file name, of those that are turned.
    """
    size = {
        name: (s[1], s[0]) if numbers.get(name, 1) >= 5 else s for name, s in labels.size.items()
    }
    names = {key: name for name, key in labels.image_id.items()}
    images = [
        {**row, "height": size[row["file_name"]][0], "width": size[row["file_name"]][1]}
        for row in labels.raw["images"]
    ]
    annotations = [
        {
            **row,
            "bbox": to_upright(row["bbox"], numbers.get(name, 1), size[name]),
            **_points_upright(row, numbers.get(name, 1), size[name]),
        }
        for row in labels.raw["annotations"]
        for name in (names[row["image_id"]],)
    ]
    raw = {**labels.raw, "images": images, "annotations": annotations}
    return dataclasses.replace(labels, raw=raw, size=size)


def _points_upright(
    row: Mapping[str, Any], number: int, size: tuple[int, int]
) -> dict[str, list[float]]:
    """The points of an annotation that has some, as `to_upright` has boxes."""
    values = row.get("keypoints")
    if not values:
        return {}
    points: list[float] = []
    for x, y, known in zip(values[0::3], values[1::3], values[2::3], strict=True):
        left, top, _, _ = to_upright((x, y, 0, 0), number, size)
        points += [left, top, known] if known > 0 else [x, y, known]
    return {"keypoints": points}


def tagged(data: bytes) -> int:
    """The orientation that a file asks for; 1 where it says nothing that can be read."""
    try:
        block = _exif(data)
        if block[:2] not in (b"II", b"MM"):
            return 1
        order: Any = "little" if block[:2] == b"II" else "big"

        def value(place: int, size: int) -> int:
            part = block[place : place + size]
            if len(part) != size:
                raise ValueError("cut")
            return int.from_bytes(part, order)

        first = value(4, 4)
        for entry in range(first + 2, first + 2 + 12 * value(first, 2), 12):
            if value(entry, 2) == _TAG:
                tag = value(entry + 8, 2)
                return tag if 1 <= tag <= 8 else 1
    except ValueError:
        pass
    return 1


def _exif(data: bytes) -> bytes:
    """The TIFF block that holds a file's EXIF; empty without one."""
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _chunk(data, 8, b"eXIf", "big", 4, 12, 1)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _chunk(data, 12, b"EXIF", "little", 0, 8, 2).removeprefix(b"Exif\0\0")
    return b""


def _jpeg(data: bytes) -> bytes:
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        if data[place + 1] == 0xDA:
            break
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return data[place + 10 : place + 2 + size]
        place += 2 + size
    return b""


def _chunk(
    data: bytes, place: int, name: bytes, order: Any, name_at: int, around: int, even: int
) -> bytes:
    """The content of one chunk of PNG (length, name, content, checksum) or RIFF (name, length)."""
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 - name_at : place + 8 - name_at], order)
        if data[place + name_at : place + name_at + 4] == name:
            return data[place + 8 : place + 8 + size]
        place += around + size + size % even
    return b""
