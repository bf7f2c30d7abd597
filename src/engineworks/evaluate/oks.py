"""Object keypoint similarity: overlap of two objects by their points, 0..1.

As pycocotools has it. Source: https://cocodataset.org/#keypoints-eval. Pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.evaluate.agreement import Results

Array = np.ndarray[Any, Any]

#: COCO's spreads of the 17 points of a person.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip

#: Spread of every point where two models are compared, which have no truth between them.
BETWEEN_MODELS = 0.05


def oks(points: Array, truth: Array, area: Array, sigmas: Array) -> Array:
    """Similarities (n, m) of answered objects and known ones.

    Args:
        points: (n, k, 2 or 3): x, y in pixels.
        truth: (m, k, 3): x, y and whether the point is labelled (above 0).
        area: (m,), of the known objects in square pixels.
        sigmas: (k,).

    Returns:
        0 for a known object without a labelled point.
    """
    apart = points[:, None, :, :2] - truth[None, :, :, :2]
    variance = (2 * sigmas) ** 2 * (area[:, None] + np.spacing(1)) * 2
    alike = np.exp(-(apart**2).sum(axis=-1) / variance[None])
    known = (truth[..., 2] > 0)[None]
    return np.asarray((alike * known).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1))


def between(left: Results, right: Results) -> Array:
    """Overlaps (n, m) of two models' objects: COCO results with `keypoints`.

    The left side's boxes say how large objects are, and its points of any confidence count.
    """
    sides = [
        np.array([entry["keypoints"] for entry in side], np.float64).reshape(len(side), -1, 3)
        for side in (left, right)
    ]
    truth = sides[0].copy()
    truth[..., 2] = 1
    area = np.array([entry["bbox"][2] * entry["bbox"][3] for entry in left], np.float64)
    return oks(sides[1], truth, area, np.full(truth.shape[1], BETWEEN_MODELS)).T
