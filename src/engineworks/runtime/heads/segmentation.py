"""Semantic segmentation: the class of every pixel.

Outputs are maps over the model's input; the answer is a map over the source image.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.runtime.drawing import legend, paint
from engineworks.runtime.heads._base import Decoder, Finish, Head, Outputs, Picture, label, only
from engineworks.runtime.preprocess import Placement
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]

#: In an answer: the model did not look at this pixel, for `preprocess.resize: center_crop` cut it.
UNSEEN = -1

#: Value of mask pixels that do not count, unless the recipe says otherwise (Pascal VOC's habit).
IGNORED = 255

#: Names of a class that is nothing: it is not coloured.
BACKGROUND = ("background", "_background_", "__background__", "unlabeled")

#: Share of an image from which a class has a name in the picture.
_NAMED = 0.005


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What every pixel of one image shows.

    Attributes:
        class_map: int16 (height, width) of the source image, index into the model's labels;
            `UNSEEN` where the model did not look.
    """

    class_map: Array

    def areas(self) -> dict[int, int]:
        """Pixels of each class that is there, the largest area first."""
        numbers, pixels = np.unique(self.class_map, return_counts=True)
        counts = {int(n): int(count) for n, count in zip(numbers, pixels, strict=True) if n >= 0}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def of_scores(scores: Array, size: Size, placement: Placement) -> Array:
    """The best class of every source pixel, scores interpolated linearly between cells.

    Args:
        scores: float (classes, rows, columns) over the input.
        size: Input (height, width).
        placement: Where the image lies in the input.

    Raises:
        ValueError: They are no maps of at least two classes.
    """
    if scores.ndim != 3 or len(scores) < 2:
        raise ValueError(
            f"the layout scores has one map for each of two or more classes, (classes, rows, "
            f"columns), this output {scores.shape}; one map of one class needs a second one"
        )
    import cv2

    height, width = placement.height, placement.width
    if not _is_identity(scores.shape[1:], size, placement):
        grid = _grid(scores.shape[1:], size, placement)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

        def spread(cells: Array) -> Array:
            return np.asarray(
                cv2.warpAffine(
                    np.ascontiguousarray(cells, np.float32), grid, (width, height), flags=flags,
                    borderMode=cv2.BORDER_REPLICATE,
                )
            )  # fmt: skip
    else:

        def spread(cells: Array) -> Array:
            return np.array(cells, np.float32)

    best, class_map = spread(scores[0]), np.zeros((height, width), np.int16)
    for number in range(1, len(scores)):  # one map at a time: all at once fill the memory
        other = spread(scores[number])
        class_map[other > best] = number
        np.maximum(best, other, out=best)
    return class_map


def of_classes(numbers: Array, size: Size, placement: Placement) -> Array:
    """The class of every source pixel, that of the cell which it lies in.

    Args:
        numbers: Whole numbers (rows, columns) over the input.
        size: Input (height, width).
        placement: Where the image lies in the input.

    Raises:
        ValueError: They are no map of whole numbers.
    """
    cells = (
        numbers.reshape(numbers.shape[-2:]) if numbers.ndim == 3 and len(numbers) == 1 else numbers
    )
    if cells.ndim != 2 or not np.array_equal(cells, np.floor(cells)) or cells.min() < 0:
        raise ValueError(
            f"the layout classes has one map of class numbers, (rows, columns), this output "
            f"{numbers.shape} {numbers.dtype}"
        )
    places = []
    for count, side, scale, offset, pixels in _sides(cells.shape, size, placement):
        at = ((np.arange(pixels) + 0.5) * scale + offset) * count / side
        places.append(np.clip(np.floor(at), 0, count - 1).astype(np.int64))
    return np.asarray(cells[places[0][:, None], places[1]].astype(np.int16))


def _sides(
    cells: tuple[int, ...], size: Size, placement: Placement
) -> list[tuple[int, int, float, float, int]]:
    """For rows and columns: cells, input pixels, scale, offset, source pixels."""
    return [
        (cells[0], size[0], placement.scale_y, placement.offset_y, placement.height),
        (cells[1], size[1], placement.scale_x, placement.offset_x, placement.width),
    ]


def _is_identity(cells: tuple[int, ...], size: Size, placement: Placement) -> bool:
    return all(
        count == side == pixels and scale == 1 and offset == 0
        for count, side, scale, offset, pixels in _sides(cells, size, placement)
    )


def _grid(cells: tuple[int, ...], size: Size, placement: Placement) -> Array:
    """Source pixel -> cell, both by their centres, as cv2.warpAffine takes it."""
    (rows, columns) = (
        (scale * count / side, (0.5 * scale + offset) * count / side - 0.5)
        for count, side, scale, offset, _ in _sides(cells, size, placement)
    )
    return np.array([[columns[0], 0, columns[1]], [0, rows[0], rows[1]]], np.float64)


def _hide_unseen(class_map: Array, size: Size, placement: Placement) -> None:
    """Mark source pixels that lie outside the input."""
    for axis, (_, side, scale, offset, pixels) in enumerate(_sides((1, 1), size, placement)):
        at = (np.arange(pixels) + 0.5) * scale + offset
        outside = (at < 0) | (at > side)
        if outside.any():
            (class_map if axis == 0 else class_map.T)[outside] = UNSEEN


def open_head(task: TaskSpec, size: Size, decode: Decoder | None) -> Finish:
    """See `Head`.

    Raises:
        ValueError: There is no such layout.
    """
    if decode is None and task.layout not in LAYOUTS:
        raise ValueError(f"task.layout {task.layout!r} is none of {', '.join(LAYOUTS)}")

    def finish(outputs: Outputs, placement: Placement) -> Segmentation:
        if decode is not None:
            class_map = of_scores(
                np.asarray(decode(outputs, size, task.confidence)), size, placement
            )
        else:
            class_map = LAYOUTS[task.layout](only(outputs), size, placement)
        _hide_unseen(class_map, size, placement)
        return Segmentation(class_map=class_map)

    return finish


def to_json(answer: Segmentation, task: TaskSpec) -> dict[str, Any]:
    """See `Head`: areas, and the map as a PNG; its largest value is where nothing was seen."""
    pixels = max(1, answer.class_map.size)
    areas = [
        {
            "label": label(task, number),
            "class_id": number,
            "pixels": count,
            "share": round(count / pixels, 4),
        }
        for number, count in answer.areas().items()
    ]
    return {"areas": areas, "mask_png": base64.b64encode(to_png(answer.class_map)).decode()}


def to_png(class_map: Array) -> bytes:
    """A map as a grey PNG of 8 bits, or of 16 with 255 or more classes."""
    import cv2

    kind = np.uint8 if class_map.max(initial=0) < 255 else np.uint16
    _, data = cv2.imencode(".png", class_map.astype(kind))
    return data.tobytes()


def from_png(data: bytes) -> Array:
    """The map that `to_png` wrote, int32 (height, width); `UNSEEN` again where that was."""
    import cv2

    image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    class_map = image.astype(np.int32)
    class_map[image == np.iinfo(image.dtype).max] = UNSEEN
    return np.asarray(class_map)


def lines(answer: Segmentation, task: TaskSpec) -> list[str]:
    """See `Head`: each class and its share of the image."""
    pixels = max(1, answer.class_map.size)
    return [
        f"{label(task, number):<16} {100 * count / pixels:5.1f} %"
        for number, count in answer.areas().items()
    ]


def count(answer: Segmentation, task: TaskSpec) -> dict[str, int]:
    """See `Head`: one for each class that is there."""
    return {label(task, number): 1 for number in answer.areas() if not is_background(task, number)}


def is_background(task: TaskSpec, number: int) -> bool:
    """Whether a class is named as nothing."""
    return label(task, number).lower() in BACKGROUND


def draw(picture: Picture, answer: Segmentation, task: TaskSpec, overlay: str | None) -> None:
    """See `Head`: every class but the background in a colour of its own, and their names."""
    areas = {n: count for n, count in answer.areas().items() if not is_background(task, n)}
    paint(picture, answer.class_map, list(areas))
    least = _NAMED * answer.class_map.size
    names = [(n, label(task, n)) for n, pixels in areas.items() if pixels >= least]
    legend(picture, names, overlay)


def check_options(options: Mapping[str, Any]) -> None:
    """See `Head`."""
    ignored = options.get("ignore_index", IGNORED)
    if ignored is not None and (not isinstance(ignored, int) or isinstance(ignored, bool)):
        raise ValueError(f"ignore_index: {ignored!r} is no whole number")


#: Word of `task.layout` -> how its output becomes a map of the source image.
LAYOUTS = {"scores": of_scores, "classes": of_classes}

HEAD = Head(
    title="name the class of every pixel",
    command="segment",
    open=open_head,
    to_json=to_json,
    lines=lines,
    count=count,
    draw=draw,
    layouts=tuple(LAYOUTS),
    own_decoder="scores (classes, rows, columns) over the input",
    options={
        "ignore_index": "value of mask pixels that do not count (default: 255; null: every pixel "
        "counts)"
    },
    check_options=check_options,
)
