"""Boxes and names drawn into a picture. Knows no files and no tracker."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from engineworks.runtime.detections import Detections

#: BGR colours that differ in hue and lightness; a track keeps its colour for life.
_COLORS = (
    (56, 56, 255), (49, 210, 207), (10, 249, 72), (255, 194, 0), (255, 115, 100), (147, 69, 52),
    (151, 157, 255), (31, 112, 255), (29, 178, 255), (61, 219, 134), (187, 212, 0), (168, 153, 44),
    (236, 24, 0), (255, 56, 132), (133, 0, 82), (255, 56, 203), (200, 149, 255), (199, 55, 255),
)  # fmt: skip


def draw(image: np.ndarray[Any, Any], detections: Detections, labels: Sequence[str]) -> None:
    """Draw into an image, in place.

    Args:
        image: uint8 (height, width, 3) BGR.
        detections: In pixels of this image. With track ids the colour tells the track and the
            name is `number label`; without, the class and `label confidence`.
        labels: Class names; a class beyond them is shown by its number.
    """
    import cv2

    height, width = image.shape[:2]
    thickness = max(1, round(min(height, width) / 360))
    scale = max(0.35, min(height, width) / 1400)
    corners = np.rint(detections.xyxy).astype(int).tolist()
    classes = detections.class_id.tolist()
    tracks = None if detections.track_id is None else detections.track_id.tolist()
    for index, (left, top, right, bottom) in enumerate(corners):
        kind = classes[index]
        name = labels[kind] if 0 <= kind < len(labels) else str(kind)
        key = kind if tracks is None else tracks[index]
        value = f"{detections.confidence[index]:.2f}" if tracks is None else str(tracks[index])
        color = _COLORS[key % len(_COLORS)]
        cv2.rectangle(image, (left, top), (right, bottom), color, thickness)
        _stick(
            image,
            _tag(f"{value} {name}" if tracks is not None else f"{name} {value}", color, scale),
            left,
            top,
        )


@functools.lru_cache(maxsize=1024)
def _tag(text: str, color: tuple[int, int, int], scale: float) -> Any:
    """A name on a coloured plate; cached, since drawing letters costs more than the box."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    plate = np.empty((height + below + 2, width + 4, 3), np.uint8)
    plate[:] = color
    light = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
    ink = (0, 0, 0) if light else (255, 255, 255)
    cv2.putText(plate, text, (2, height + 1), font, scale, ink, 1, cv2.LINE_AA)
    return plate


def _stick(image: np.ndarray[Any, Any], plate: Any, left: int, top: int) -> None:
    """Put a plate above a box, inside the image."""
    height, width = plate.shape[:2]
    x = max(0, min(left, image.shape[1] - width))
    y = top - height if top >= height else max(0, min(top, image.shape[0] - height))
    place = image[y : y + height, x : x + width]
    place[:] = plate[: place.shape[0], : place.shape[1]]
