"""How far what an engine found in a picture is from what it should have found, in 0..1.

Objects are matched one by one and count by their confidence, so that a weak one that comes or goes
weighs little; classes by the share of confidence that moved, maps by the share of pixels. Knows the
answers of this project's heads; those of others are not held, only their tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: An answer as plain arrays, by the name of its field.
Fields = dict[str, Array]

#: Two boxes of one class that overlap less are not one object.
_SAME = 0.5

#: Rows and columns of a class map that are kept: the map itself may have millions of pixels.
_GRID = 160

#: Points may be off by this share of their object's size before they count as lost.
_REACH = 0.1


def fields(answer: Any) -> Fields | None:
    """What is kept of a head's answer; None for one of a kind that is not known here."""
    if hasattr(answer, "xyxy"):
        kept = {"xyxy": answer.xyxy, "confidence": answer.confidence, "class_id": answer.class_id}
        if hasattr(answer, "points"):
            kept["points"] = answer.points
        return {name: np.asarray(array) for name, array in kept.items()}
    if hasattr(answer, "class_map"):
        rows, columns = (
            np.linspace(0, length - 1, min(length, _GRID)).round().astype(int)
            for length in answer.class_map.shape
        )
        return {"class_map": answer.class_map[np.ix_(rows, columns)]}
    if hasattr(answer, "class_id") and hasattr(answer, "confidence"):
        return {"class_id": answer.class_id, "confidence": answer.confidence}
    return None


def distance(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> float:
    """0: the same was found; 1: nothing of it."""
    if set(expected) != set(actual):
        return 1.0
    if "xyxy" in expected:
        return _objects(expected, actual)
    if "class_map" in expected:
        want, got = expected["class_map"], actual["class_map"]
        return float((want != got).mean()) if want.shape == got.shape else 1.0
    return _classes(expected, actual)


def _classes(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> float:
    """Confidence that moved, of the classes that either names."""
    want, got = (
        dict(zip(answer["class_id"].tolist(), answer["confidence"].tolist(), strict=True))
        for answer in (expected, actual)
    )
    moved = sum(abs(want.get(name, 0.0) - got.get(name, 0.0)) for name in {*want, *got})
    return min(1.0, _share(moved, sum(want.values()) + sum(got.values())))


def _objects(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> float:
    want, got = (np.asarray(answer["confidence"], np.float64) for answer in (expected, actual))
    overlap = _overlaps(expected["xyxy"], actual["xyxy"])
    overlap *= expected["class_id"][:, None] == actual["class_id"][None, :]
    if not (np.isfinite(want).all() and np.isfinite(got).all() and np.isfinite(overlap).all()):
        return 1.0
    free = np.ones(len(got), bool)
    cost = 0.0
    for number in np.argsort(-want, kind="stable"):
        candidates = np.where(free, overlap[number], 0.0)
        other = int(candidates.argmax()) if len(candidates) else 0
        if not len(candidates) or candidates[other] < _SAME:
            cost += want[number]
            continue
        free[other] = False
        alike = candidates[other] * _points(expected, actual, int(number), other)
        cost += abs(want[number] - got[other]) + min(want[number], got[other]) * (1 - alike)
    cost += got[free].sum()
    return min(1.0, _share(cost, want.sum() + got.sum()))


def _points(
    expected: Mapping[str, Array], actual: Mapping[str, Array], number: int, other: int
) -> float:
    """How well the points of two objects lie on each other; 1 where they have none."""
    if "points" not in expected:
        return 1.0
    want, got = expected["points"][number], actual["points"][other]
    if want.shape != got.shape or not np.isfinite(got).all():
        return 0.0
    box = expected["xyxy"][number]
    reach = _REACH * float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0)))
    apart = np.linalg.norm(want[:, :2] - got[:, :2], axis=1) / reach
    weight = np.clip(want[:, 2], 0, 1) + 1e-6
    moved = np.abs(np.clip(want[:, 2], 0, 1) - np.clip(got[:, 2], 0, 1))
    near = np.exp(-np.square(apart) / 2) * (1 - moved)
    return float((near * weight).sum() / weight.sum())


def _overlaps(boxes: Array, other: Array) -> Array:
    """Intersection over union of every pair, float64 (n, m)."""
    a, b = boxes.astype(np.float64)[:, None], other.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b)]
    shares: Array = common / np.maximum(areas[0] + areas[1] - common, 1e-9)
    return shares


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0
