"""Class-wise greedy non-maximum suppression: by OpenCV's compiled loop, and plainly in numpy.

`suppress` is what runs; `suppress_plain` is the reference that it is tested against, and what runs
where OpenCV is not installed. Knows no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Candidates that enter suppression, the strongest first; its cost grows with their square.
#: 1000 overlapping candidates of one object can crowd out a weaker object.
TOP_K = 1000

#: Pixels. A broken engine's box at 1e30 must not blur the others when classes are moved apart.
FAR = 1e6


def suppress(xyxy: Array, score: Array, class_id: Array, iou: float) -> Array:
    """Drop every box that overlaps a stronger one of its class too much.

    Equals `suppress_plain` but for overlaps within 1e-6 of `iou`: OpenCV compares in float32.

    Args:
        xyxy: (n, 4) in pixels, each with an area.
        score: (n,), each above 0.
        class_id: (n,); boxes of different classes never suppress each other.
        iou: A box is dropped when its overlap with a stronger kept one is above this.

    Returns:
        Indices that stay, strongest first.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        return suppress_plain(xyxy, score, class_id, iou)
    if not len(xyxy):
        return np.zeros(0, np.int64)
    chosen: Array | None = None
    if len(score) > TOP_K:
        chosen = np.argsort(-score, kind="stable")[:TOP_K]
        xyxy, score, class_id = xyxy[chosen], score[chosen], class_id[chosen]
    boxes = np.clip(xyxy.astype(np.float64), -FAR, FAR)
    # Each class is moved to ground of its own, where it meets no other.
    extent = boxes[:, 2].max() - boxes[:, 0].min() + 1
    boxes[:, 2:] -= boxes[:, :2]
    boxes[:, 0] += class_id * extent
    # Lists: cv2 reads them faster than it reads an array into its vector of rectangles.
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), score.tolist(), 0.0, iou)
    indices = np.asarray(kept, np.int64).reshape(-1)  # OpenCV before 4.5.4 gives columns
    return indices if chosen is None else chosen[indices]


def suppress_plain(xyxy: Array, score: Array, class_id: Array, iou: float) -> Array:
    """The same in numpy, as one would write it down; arguments and answer as of `suppress`."""
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
