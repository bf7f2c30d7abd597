"""Layouts of detectors: from one image's raw outputs to candidates in input pixels.

One entry of `LAYOUTS` per word of `task.layout`. Knows no suppression (`nms.py`) and no source
image (`detection.py`). Scores are reduced over classes before anything is copied, so that only
survivors are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from engineworks.runtime.heads._base import only
from engineworks.specs import Size

Array = np.ndarray[Any, Any]

#: (outputs of one image by name, input size, confidence) -> xyxy (n, 4) in input pixels,
#: scores (n,), class ids (n,).
BoxDecoder = Callable[[Mapping[str, Array], Size, float], tuple[Array, Array, Array]]


@dataclass(frozen=True, kw_only=True)
class BoxLayout:
    """How a layout is decoded, and whether its candidates need non-maximum suppression."""

    decode: BoxDecoder
    suppress: bool
    classes: Callable[[Mapping[str, Array]], int] | None = None
    """How many classes the outputs of one image have a score for; None: they do not show it."""


def decode_yolox(
    outputs: Mapping[str, Array], size: Size, confidence: float
) -> tuple[Array, Array, Array]:
    """YOLOX head, strides 8, 16, 32 (arXiv:2107.08430): one output (cells, 5 + classes).

    A row is x, y relative to its cell, log width and height in strides, objectness and class
    scores (already sigmoid). Score = objectness * best class.
    """
    raw = only(outputs)
    grid, stride = _yolox_cells(size)
    if len(grid) != len(raw):
        raise ValueError(
            f"a YOLOX head at {size[0]}x{size[1]} has {len(grid)} cells, this output {len(raw)}"
        )
    # No class score is above 1, so the objectness alone rules most cells out.
    likely = np.flatnonzero(raw[:, 4] > confidence)
    rows = raw[likely]
    score = rows[:, 5:].max(axis=1, initial=0) * rows[:, 4]
    sure = np.flatnonzero(score > confidence)
    rows, keep = rows[sure], likely[sure]
    centre = (rows[:, :2] + grid[keep]) * stride[keep]
    half = np.exp(rows[:, 2:4]) * stride[keep] / 2
    return np.hstack([centre - half, centre + half]), score[sure], rows[:, 5:].argmax(axis=1)


@lru_cache(maxsize=16)
def _yolox_cells(size: Size) -> tuple[Array, Array]:
    grids, strides = [], []
    for stride in (8, 16, 32):
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        grids.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)


def decode_yolov8(
    outputs: Mapping[str, Array], size: Size, confidence: float
) -> tuple[Array, Array, Array]:
    """YOLOv8 head: one output (4 + classes, anchors).

    Rows 0..3 are centre x, centre y, width, height in input pixels; the rest class scores,
    already sigmoid (https://docs.ultralytics.com/models/yolov8/).
    """
    raw = only(outputs)
    score = raw[4:].max(axis=0)
    keep = np.flatnonzero(score > confidence)
    survivors = raw[:, keep]
    xyxy = corners(survivors[:4].T)
    return xyxy, score[keep], survivors[4:].argmax(axis=0)


def decode_end2end(
    outputs: Mapping[str, Array], size: Size, confidence: float
) -> tuple[Array, Array, Array]:
    """A graph that ends with finished boxes: one output (n, 6).

    A row is left, top, right, bottom in input pixels, score, class (YOLOv10, arXiv:2405.14458, and
    graphs that hold their own suppression); rows with a score of 0 are padding.
    """
    raw = only(outputs)
    if raw.ndim != 2 or raw.shape[1] != 6:
        raise ValueError(f"an end2end head gives (n, 6) for one image, this output {raw.shape}")
    rows = raw[raw[:, 4] > confidence]
    return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)


def decode_detr(
    outputs: Mapping[str, Array], size: Size, confidence: float
) -> tuple[Array, Array, Array]:
    """DETR (arXiv:2005.12872): logits (queries, classes + 1) and boxes (queries, 4).

    Softmax over classes, of which the last means "no object"; boxes are centre x, centre y, width,
    height in 0..1 of the input.
    """
    logits, boxes = _logits_and_boxes(outputs)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (powers / powers.sum(axis=1, keepdims=True))[:, :-1]
    score = scores.max(axis=1)
    keep = np.flatnonzero(score > confidence)
    return _scaled(boxes[keep], size), score[keep], scores[keep].argmax(axis=1)


def decode_rtdetr(
    outputs: Mapping[str, Array], size: Size, confidence: float
) -> tuple[Array, Array, Array]:
    """RT-DETR (arXiv:2304.08069) and Deformable DETR: as DETR, with a sigmoid for every class.

    The best pairs of query and class count, as many as there are queries; so one query may name
    two classes.
    """
    logits, boxes = _logits_and_boxes(outputs)
    classes = logits.shape[1]
    best = np.argsort(-logits, axis=None, kind="stable")[: len(logits)]
    score = 1 / (1 + np.exp(-logits.reshape(-1)[best]))
    keep = score > confidence
    best = best[keep]
    return _scaled(boxes[best // classes], size), score[keep], best % classes


def _logits_and_boxes(outputs: Mapping[str, Array]) -> tuple[Array, Array]:
    """The two outputs, told apart by their width; with four class scores, by their names."""
    shapes = {name: array.shape for name, array in outputs.items()}
    boxes = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] == 4]
    if len(boxes) > 1:
        boxes = [name for name in boxes if "box" in name.lower()]
    if len(outputs) != 2 or len(boxes) != 1:
        raise ValueError(
            f"this layout has two outputs, logits (queries, classes) and boxes (queries, 4), the "
            f"model has {shapes}"
        )
    (logits,) = (array for name, array in outputs.items() if name != boxes[0])
    return logits, outputs[boxes[0]]


def corners(boxes: Array) -> Array:
    """Centre x, centre y, width, height (n, 4) to left, top, right, bottom."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.hstack([centre - half, centre + half])


def _scaled(boxes: Array, size: Size) -> Array:
    height, width = size
    return np.asarray(corners(boxes) * np.array([width, height] * 2, np.float32))


#: The word in `task.layout` -> how it is decoded.
LAYOUTS: dict[str, BoxLayout] = {
    "yolox": BoxLayout(
        decode=decode_yolox, suppress=True, classes=lambda outputs: only(outputs).shape[-1] - 5
    ),
    "yolov8": BoxLayout(
        decode=decode_yolov8, suppress=True, classes=lambda outputs: only(outputs).shape[0] - 4
    ),
    "end2end": BoxLayout(decode=decode_end2end, suppress=False),
    "detr": BoxLayout(
        decode=decode_detr,
        suppress=False,
        classes=lambda outputs: _logits_and_boxes(outputs)[0].shape[1] - 1,
    ),
    "rtdetr": BoxLayout(
        decode=decode_rtdetr,
        suppress=False,
        classes=lambda outputs: _logits_and_boxes(outputs)[0].shape[1],
    ),
}
