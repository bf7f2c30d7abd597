"""Objects that were annotated twice: whoever finds one of the two misses the other.

Each box that stands there again takes as much from a right model's score as an object that it does
not see. Pure: rows in, rows and words out. Knows no file format.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Boxes of one class that overlap by more are one object, drawn or rounded twice.
SAME = 0.95


def unique_boxes(
    source: str, annotations: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Each box once; what is only nearly the same stays, and is told.

    Args:
        source: Name of the annotations, for words.
        annotations: With image_id, category_id, iscrowd and bbox (left, top, width, height).

    Returns:
        (rows without those that repeat an earlier one, what was found in words).
    """
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for place, row in enumerate(annotations):
        first.setdefault(_identity(row) if _has_area(row) else (place,), row)
    once = list(first.values())
    notes = []
    dropped = len(annotations) - len(once)
    if dropped:
        notes.append(f"{dropped} of {len(annotations)} boxes stand in {source} twice: counted once")
    pairs = nearly_same(once)
    if pairs:
        notes.append(
            f"{pairs} of {len(once)} boxes in {source} cover nearly the same (IoU above {SAME:g}) "
            "as another of their class: if they are one object, annotated twice, a model that "
            "finds it once is scored as missing the other"
        )
    return once, notes


def _has_area(row: dict[str, Any]) -> bool:
    """Whether this is a box at all: of those without area each is a fault of its own."""
    return bool(min(row["bbox"][2:]) > 0)


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["image_id"], row["category_id"], row["iscrowd"], *map(float, row["bbox"]))


def nearly_same(annotations: Sequence[dict[str, Any]]) -> int:
    """How many boxes cover nearly what an earlier one of their picture and class covers."""
    together: dict[tuple[Any, ...], list[list[float]]] = defaultdict(list)
    for row in annotations:
        if not row["iscrowd"] and _has_area(row):
            together[row["image_id"], row["category_id"]].append(row["bbox"])
    return sum(_repeated(np.array(boxes, np.float64)) for boxes in together.values())


def _repeated(boxes: np.ndarray[Any, Any]) -> int:
    """Boxes (n, 4) xywh that overlap an earlier one by more than `SAME`."""
    count = 0
    area = boxes[:, 2] * boxes[:, 3]
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    for number in range(1, len(boxes)):
        sides = np.minimum(high[:number], high[number]) - np.maximum(low[:number], low[number])
        shared = np.where((sides > 0).all(axis=1), sides.prod(axis=1), 0.0)
        count += bool((shared > SAME * (area[:number] + area[number] - shared)).any())
    return count
