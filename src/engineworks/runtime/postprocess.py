"""From candidates to those that are kept: without area, doubles and too many. For heads with boxes.

Knows no layout, no source image and no engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.runtime.nms import suppress
from engineworks.specs import TaskSpec

Array = np.ndarray[Any, Any]


def choose(
    xyxy: Array, score: Array, class_id: Array, task: TaskSpec, *, doubles: bool
) -> tuple[Array, bool]:
    """Which candidates are kept.

    Args:
        xyxy: (n, 4) in input pixels.
        score: (n,).
        class_id: (n,).
        task: Overlap and number that are allowed.
        doubles: Whether several may stand for one object, so that the weaker ones are suppressed.

    Returns:
        (indices, strongest first; whether `max_detections` left any out).

    Raises:
        ValueError: They do not have these shapes.
    """
    n = len(xyxy)
    if xyxy.shape != (n, 4) or score.shape != (n,) or class_id.shape != (n,):
        raise ValueError(
            f"a decoder gives xyxy (n, 4), scores (n,) and class ids (n,), this one "
            f"{xyxy.shape}, {score.shape} and {class_id.shape}"
        )
    # Without area, or out of a graph that overflowed.
    real = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & np.isfinite(xyxy).all(axis=1)
    places = np.arange(n) if real.all() else np.flatnonzero(real)
    if len(places) < n:
        xyxy, score, class_id = xyxy[places], score[places], class_id[places]
    most = task.max_detections
    if doubles:
        # One more than may be kept tells whether any is left out.
        keep = suppress(xyxy, score, class_id, task.iou, most + 1)
    else:
        keep = np.argsort(-score, kind="stable")
    return places[keep[:most]], len(keep) > most
