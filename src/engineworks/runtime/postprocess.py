"""From a detection head's raw output to `Detections`.

A decoder turns one image's raw outputs into candidates in input pixels; suppression and the way
back to source pixels are the same for all. Reduces over classes before anything else, so that
only survivors are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engineworks.runtime.detections import Detections
from engineworks.runtime.preprocess import Placement
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]

#: (outputs of one image by name, input size, confidence) -> xyxy (n, 4) in input pixels,
#: scores (n,), class ids (n,).
Decoder = Callable[[Mapping[str, Array], Size, float], tuple[Array, Array, Array]]

#: Candidates that enter suppression, the strongest first; its cost grows with their square.
#: 1000 overlapping candidates of one object can crowd out a weaker object.
TOP_K = 1000


def decode_yolox(
    outputs: Mapping[str, Array], size: Size, confidence: float
) -> tuple[Array, Array, Array]:
    """YOLOX head, strides 8, 16, 32 (arXiv:2107.08430): one output (cells, 5 + classes).

    A row is x, y relative to its cell, log width and height in strides, objectness and class
    scores (already sigmoid). Score = objectness * best class.
    """
    raw = _only(outputs)
    score = raw[:, 5:].max(axis=1) * raw[:, 4]
    keep = np.flatnonzero(score > confidence)
    raw = raw[keep]
    grid, stride = _yolox_cells(size)
    if len(grid) != len(score):
        raise ValueError(
            f"a YOLOX head at {size[0]}x{size[1]} has {len(grid)} cells, this output {len(score)}"
        )
    centre = (raw[:, :2] + grid[keep]) * stride[keep]
    half = np.exp(raw[:, 2:4]) * stride[keep] / 2
    return np.hstack([centre - half, centre + half]), score[keep], raw[:, 5:].argmax(axis=1)


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
    raw = _only(outputs)
    score = raw[4:].max(axis=0)
    keep = np.flatnonzero(score > confidence)
    survivors = raw[:, keep]
    centre, half = survivors[:2].T, survivors[2:4].T / 2
    return np.hstack([centre - half, centre + half]), score[keep], survivors[4:].argmax(axis=0)


def _only(outputs: Mapping[str, Array]) -> Array:
    if len(outputs) != 1:
        raise ValueError(
            f"this layout has one output, the model has {len(outputs)}: {sorted(outputs)}"
        )
    (array,) = outputs.values()
    return array


DECODERS: dict[str, Decoder] = {"yolox": decode_yolox, "yolov8": decode_yolov8}


def suppress(xyxy: Array, score: Array, class_id: Array, iou: float) -> Array:
    """Class-wise greedy non-maximum suppression.

    Args:
        xyxy: (n, 4) in pixels.
        score: (n,).
        class_id: (n,); boxes of different classes never suppress each other.
        iou: A box is dropped when its overlap with a stronger kept one is above this.

    Returns:
        Indices that stay, strongest first.
    """
    order = np.argsort(-score, kind="stable")[:TOP_K]
    boxes, classes = xyxy[order].astype(np.float64), class_id[order]
    left, top, right, bottom = boxes.T
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    alive = np.ones(len(order), bool)
    kept = []
    for index in range(len(order)):
        if not alive[index]:
            continue
        kept.append(order[index])
        rest = np.flatnonzero(alive[index + 1 :] & (classes[index + 1 :] == classes[index]))
        rest += index + 1
        width = np.minimum(right[rest], right[index]) - np.maximum(left[rest], left[index])
        height = np.minimum(bottom[rest], bottom[index]) - np.maximum(top[rest], top[index])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[rest] + area[index] - overlap
        alive[rest[overlap > iou * np.maximum(union, 1e-12)]] = False
    return np.array(kept, dtype=np.int64)


class DetectionPostprocessor:
    """Decode, suppress, and go back to source pixels, as the manifest's task says."""

    def __init__(self, task: TaskSpec, size: Size, decoder: Decoder | None = None) -> None:
        self.task = task
        self.size = size
        self._decode = decoder or DECODERS[task.layout]

    def __call__(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        """Detections of one image.

        Args:
            outputs: Output name -> array of this image, without the batch dimension.
            placement: Where the image lies in the input.
        """
        xyxy, score, class_id = self._decode(outputs, self.size, self.task.confidence)
        n = len(xyxy)
        if xyxy.shape != (n, 4) or score.shape != (n,) or class_id.shape != (n,):
            raise ValueError(
                f"a decoder gives xyxy (n, 4), scores (n,) and class ids (n,), this one "
                f"{xyxy.shape}, {score.shape} and {class_id.shape}"
            )
        keep = suppress(xyxy, score, class_id, self.task.iou)[: self.task.max_detections]
        return Detections(
            xyxy=placement.to_source(xyxy[keep]),
            confidence=score[keep].astype(np.float32),
            class_id=class_id[keep].astype(np.int64),
        )
