"""Boxes, names, areas and limbs drawn into a picture. Knows no files, tracker and task."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from engineworks.runtime.detections import Detections
from engineworks.runtime.planes import Planes, split

Color = tuple[int, int, int]

log = logging.getLogger(__name__)

#: BGR colours that differ in hue and lightness; a track keeps its colour for life.
_COLORS: tuple[Color, ...] = (
    (56, 56, 255), (49, 210, 207), (10, 249, 72), (255, 194, 0), (255, 115, 100), (147, 69, 52),
    (151, 157, 255), (31, 112, 255), (29, 178, 255), (61, 219, 134), (187, 212, 0), (168, 153, 44),
    (236, 24, 0), (255, 56, 132), (133, 0, 82), (255, 56, 203), (200, 149, 255), (199, 55, 255),
)  # fmt: skip


#: BGR of the plate of what is said of the whole picture.
_GREY: Color = (60, 60, 60)


def draw(
    picture: np.ndarray[Any, Any] | Planes,
    detections: Detections,
    labels: Sequence[str],
    *,
    overlay: str | None = None,
) -> None:
    """Draw into a picture, in place.

    Args:
        picture: uint8 (height, width, 3) BGR, or the planes of a video's frame.
        detections: In pixels of this picture. With track ids the colour tells the track and the
            name is `number label`; without, the class and `label confidence`.
        labels: Class names; a class beyond them is shown by its number.
        overlay: Words for the upper left corner, such as the rate of frames. With them the name
            is `ID number label confidence`, or `label confidence` without track ids.
    """
    canvas = _Video(picture) if isinstance(picture, Planes) else _Image(picture)
    least = min(canvas.size)
    thickness = max(1, round(least / 360))
    scale = max(0.35, least / 1400)
    corners = np.rint(detections.xyxy).astype(int).tolist()
    classes = detections.class_id.tolist()
    tracks = None if detections.track_id is None else detections.track_id.tolist()
    for index, corner in enumerate(corners):
        kind = classes[index]
        name = labels[kind] if 0 <= kind < len(labels) else str(kind)
        if not name.isascii() and not _draws_all_scripts():
            name = str(kind)
        key = kind if tracks is None else tracks[index]
        value = f"{detections.confidence[index]:.2f}" if tracks is None else str(tracks[index])
        color = _COLORS[key % len(_COLORS)]
        canvas.box(corner, color, thickness)
        text = f"{value} {name}" if tracks is not None else f"{name} {value}"
        if overlay is not None and tracks is not None:
            text = f"ID {value} {name} {detections.confidence[index]:.2f}"
        canvas.name(text, corner[0], corner[1], color, scale)
    if overlay:
        canvas.name(overlay, 0, 0, _GREY, scale)


def paint(
    picture: np.ndarray[Any, Any] | Planes, class_map: np.ndarray[Any, Any], shown: Sequence[int]
) -> None:
    """Tint areas, in place, each class in its colour.

    Args:
        picture: As for `draw`.
        class_map: int (height, width), of this picture.
        shown: Classes that are tinted; the others stay as they are.
    """
    if not len(shown):
        return
    count = max(0, int(class_map.max()), *shown) + 1
    colors = np.array([color_of(number) for number in range(count)], np.uint8)
    tinted = np.isin(class_map, np.array(shown))
    numbers = np.where(tinted, class_map, 0)
    if not isinstance(picture, Planes):
        _blend(picture, colors[numbers], tinted)
        return
    parts = np.array([_in_planes(color_of(number), picture.matrix) for number in range(count)])
    parts = parts.astype(np.uint8)
    _blend(picture.y, parts[numbers, 0], tinted)
    rows, columns = picture.u.shape
    few, where = numbers[::2, ::2][:rows, :columns], tinted[::2, ::2][:rows, :columns]
    _blend(picture.u, parts[few, 1], where)
    _blend(picture.v, parts[few, 2], where)


def _blend(
    layer: np.ndarray[Any, Any], tint: np.ndarray[Any, Any], where: np.ndarray[Any, Any]
) -> None:
    """Half of what is there and half of the tint, in place."""
    mean = (layer.astype(np.uint16) + tint + 1) >> 1
    np.copyto(layer, mean.astype(np.uint8), where=where[..., None] if layer.ndim == 3 else where)


def legend(
    picture: np.ndarray[Any, Any] | Planes,
    names: Sequence[tuple[int, str]],
    overlay: str | None = None,
) -> None:
    """Names of classes under each other in the upper left corner, each in its colour.

    Args:
        picture: As for `draw`.
        names: (class, name).
        overlay: Words above them.
    """
    canvas = _Video(picture) if isinstance(picture, Planes) else _Image(picture)
    scale = max(0.35, min(canvas.size) / 1400)
    top = 0
    rows = [(overlay, _GREY)] if overlay else []
    for number, name in names:
        plain = name.isascii() or _draws_all_scripts()
        rows.append((name if plain else str(number), color_of(number)))
    for text, color in rows:
        height = _plate(text, color, scale).shape[0]
        if top + height > canvas.size[0]:
            return
        # A plate stands on top of the place that it is given.
        canvas.name(text, 0, top + height, color, scale)
        top += height + height % 2


def limbs(
    picture: np.ndarray[Any, Any] | Planes,
    points: np.ndarray[Any, Any],
    edges: Sequence[tuple[int, int]],
    least: float,
    keys: Sequence[int],
) -> None:
    """Draw key points and what connects them, in place.

    Args:
        picture: As for `draw`.
        points: float (n, k, 3): x, y, confidence.
        edges: Pairs of points that are connected.
        least: Points below this confidence are not drawn.
        keys: A number for each of the n objects; equal ones have equal colours.
    """
    canvas = _Video(picture) if isinstance(picture, Planes) else _Image(picture)
    thickness = max(1, round(min(canvas.size) / 360))
    for places, key in zip(points, keys, strict=True):
        color = color_of(key)
        sure = (places[:, 2] >= least) & np.isfinite(places).all(axis=1)
        at = np.rint(np.where(sure[:, None], places[:, :2], 0)).astype(int).tolist()
        for start, end in edges:
            if sure[start] and sure[end]:
                canvas.line(at[start], at[end], color, thickness)
        for index in np.flatnonzero(sure):
            canvas.dot(at[index], color, 2 * thickness)


def color_of(number: int) -> Color:
    """BGR of a class or a track."""
    return _COLORS[number % len(_COLORS)]


@functools.cache
def _draws_all_scripts() -> bool:
    """Whether this OpenCV has letters beyond ASCII; version 4, as boards bring it, draws `???`."""
    import cv2

    has = int(cv2.__version__.split(".")[0]) >= 5
    if not has:
        log.warning(
            "OpenCV %s draws ASCII alone: classes with other names are drawn by their numbers; "
            "next: pip install 'opencv-python-headless>=5'",
            cv2.__version__,
        )
    return has


class _Image:
    """A BGR image to draw into."""

    def __init__(self, image: np.ndarray[Any, Any]) -> None:
        self._image = image
        self.size = image.shape[:2]

    def box(self, corner: list[int], color: Color, thickness: int) -> None:
        import cv2

        left, top, right, bottom = corner
        cv2.rectangle(self._image, (left, top), (right, bottom), color, thickness)

    def line(self, start: list[int], end: list[int], color: Color, thickness: int) -> None:
        import cv2

        cv2.line(self._image, start, end, color, thickness, cv2.LINE_AA)

    def dot(self, at: list[int], color: Color, radius: int) -> None:
        import cv2

        cv2.circle(self._image, at, radius, color, -1)

    def name(self, text: str, left: int, top: int, color: Color, scale: float) -> None:
        plate = _plate(text, color, scale)
        _stick(self._image, plate, *_place(self.size, plate.shape, left, top))


class _Video:
    """The planes of a video's frame to draw into; colour has half the pixels."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes
        self.size = planes.size

    def box(self, corner: list[int], color: Color, thickness: int) -> None:
        import cv2

        # Lines of whole colour pixels, so that none is left with half its brightness.
        left, top, right, bottom = (value & ~1 for value in corner)
        planes, width = self._planes, max(1, thickness // 2)
        y, u, v = _in_planes(color, planes.matrix)
        for plane, value in ((planes.u, u), (planes.v, v)):
            cv2.rectangle(
                plane, (left // 2, top // 2), (right // 2, bottom // 2), value, width
            )  # fmt: skip
        cv2.rectangle(planes.y, (left, top), (right, bottom), y, thickness)

    def line(self, start: list[int], end: list[int], color: Color, thickness: int) -> None:
        import cv2

        half = [[value // 2 for value in place] for place in (start, end)]
        for plane, value, chroma in self._layers(color):
            first, last = half if chroma else (start, end)
            cv2.line(plane, first, last, value, max(1, thickness // 2) if chroma else thickness)

    def dot(self, at: list[int], color: Color, radius: int) -> None:
        import cv2

        for plane, value, chroma in self._layers(color):
            place = [value // 2 for value in at] if chroma else at
            cv2.circle(plane, place, max(1, radius // 2) if chroma else radius, value, -1)

    def _layers(self, color: Color) -> list[tuple[np.ndarray[Any, Any], int, bool]]:
        """Planes with their values of a colour, and whether they have half the pixels."""
        y, u, v = _in_planes(color, self._planes.matrix)
        return [(self._planes.y, y, False), (self._planes.u, u, True), (self._planes.v, v, True)]

    def name(self, text: str, left: int, top: int, color: Color, scale: float) -> None:
        planes = self._planes
        plates = _plate_planes(text, color, scale, planes.matrix)
        x, y = (value & ~1 for value in _place(self.size, plates[0].shape, left, top))
        _stick(planes.y, plates[0], x, y)
        _stick(planes.u, plates[1], x // 2, y // 2)
        _stick(planes.v, plates[2], x // 2, y // 2)


@functools.cache
def _in_planes(color: Color, matrix: str) -> list[int]:
    return [int(part[0, 0]) for part in split(np.full((2, 2, 3), color, np.uint8), matrix)]


@functools.lru_cache(maxsize=1024)
def _plate(text: str, color: Color, scale: float) -> np.ndarray[Any, Any]:
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


@functools.lru_cache(maxsize=1024)
def _plate_planes(
    text: str, color: Color, scale: float, matrix: str
) -> tuple[np.ndarray[Any, Any], ...]:
    """The same in planes, with even sides."""
    plate = _plate(text, color, scale)
    height, width = plate.shape[:2]
    even = np.empty((height + height % 2, width + width % 2, 3), np.uint8)
    even[:] = color
    even[:height, :width] = plate
    return split(even, matrix)


def _place(size: tuple[int, ...], plate: tuple[int, ...], left: int, top: int) -> tuple[int, int]:
    """(x, y) above a box's corner, inside the picture."""
    height, width = plate[:2]
    x = max(0, min(left, size[1] - width))
    return x, top - height if top >= height else max(0, min(top, size[0] - height))


def _stick(layer: np.ndarray[Any, Any], plate: np.ndarray[Any, Any], x: int, y: int) -> None:
    height, width = plate.shape[:2]
    place = layer[y : y + height, x : x + width]
    place[:] = plate[: place.shape[0], : place.shape[1]]
