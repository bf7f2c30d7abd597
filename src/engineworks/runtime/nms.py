"""Class-wise greedy non-maximum suppression: by OpenCV's compiled loop, and plainly in numpy.

`suppress` is what runs; `suppress_plain` is the reference that it is tested against, and what runs
where OpenCV is not installed. Knows no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Candidates that are compared at once: the cost of one turn grows with their square.
CHUNK = 1000

#: Pixels. A broken engine's box at 1e30 must not blur the others when classes are moved apart.
FAR = 1e6


def suppress(
    xyxy: Array, score: Array, class_id: Array, iou: float, most: int | None = None
) -> Array:
    """Drop every box that overlaps a stronger one of its class too much.

    Equals `suppress_plain` but for overlaps within 1e-6 of `iou`: OpenCV compares in float32.

    Args:
        xyxy: (n, 4) in pixels, each with an area.
        score: (n,), each above 0.
        class_id: (n,); boxes of different classes never suppress each other.
        iou: A box is dropped when its overlap with a stronger kept one is above this.
        most: Stop when so many are kept; they are the strongest of all that would be.

    Returns:
        Indices that stay, strongest first.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        return suppress_plain(xyxy, score, class_id, iou, most)
    n = len(xyxy)
    if not n:
        return np.zeros(0, np.int64)
    boxes = np.clip(xyxy.astype(np.float64), -FAR, FAR)
    # Each class is moved to ground of its own, where it meets no other.
    extent = boxes[:, 2].max() - boxes[:, 0].min() + 1
    boxes[:, 2:] -= boxes[:, :2]
    boxes[:, 0] += class_id * extent
    order = np.argsort(-score, kind="stable") if n > CHUNK else np.arange(n)
    kept = np.zeros(0, np.int64)
    # What is kept so far does not suppress itself, so it may be handed in again before the weaker
    # ones: the answer is that of all at once.
    for first in range(0, n, CHUNK):
        group = np.concatenate([kept, order[first : first + CHUNK]])
        # Lists: cv2 reads them faster than it reads an array into its vector of rectangles.
        chosen = cv2.dnn.NMSBoxes(boxes[group].tolist(), score[group].tolist(), 0.0, iou)
        kept = group[np.asarray(chosen, np.int64).reshape(-1)]  # before OpenCV 4.5.4: columns
        if most is not None and len(kept) >= most:
            return kept[:most]
    return kept


def suppress_plain(
    xyxy: Array, score: Array, class_id: Array, iou: float, most: int | None = None
) -> Array:
    """The same in numpy, as one would write it down; arguments and answer as of `suppress`."""
    order = np.argsort(-score, kind="stable")
    boxes, classes = xyxy[order].astype(np.float64), class_id[order]
    left, top, right, bottom = boxes.T
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    for index in range(len(order)):
        if most is not None and len(kept) >= most:
            break
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
