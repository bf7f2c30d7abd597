"""Right answers under other names, where a model scores near zero: labels in another order.

Names are learnt on other photos than those that are scored. Pure: answers and labels in, suspects
out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from engineworks.evaluate import chance
from engineworks.evaluate.agreement import SAME, iou
from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.evaluate.precision import Side, average_precision
from engineworks.facts.data import Chance, Suspect

Array = np.ndarray[Any, Any]


def of_classes(predictions: Sequence[Any], truths: Array, labels: tuple[str, ...]) -> list[Suspect]:
    """Of a classifier.

    Args:
        predictions: [file, class index, score] of each photo.
        truths: int (n,), true class indices.
        labels: Class names in index order.
    """
    predicted = np.array([row[1] for row in predictions], np.int64)
    met = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(met, (predicted, truths), 1)
    renamed = {index: int(met[index].argmax()) for index in set(predicted.tolist())}
    mapped = []
    for index, true in zip(predicted, truths, strict=True):
        others = met[index].copy()
        others[true] -= 1
        mapped.append(["", int(others.argmax()) if others.any() else -1, 1.0])
    pairs = list(zip(predicted.tolist(), truths.tolist(), strict=True))
    tried = chance.of_classification(mapped, truths)
    return _suspect(renamed, pairs, dict(enumerate(labels)), tried)


def of_boxes(answered: Sequence[Side], known: Sequence[Side], truth: CocoLabels) -> list[Suspect]:
    """Of a detector: its objects and the labelled ones, photo by photo."""
    half = slice(None, None, 2) if len(known) > 1 else slice(None)
    rest = slice(1, None, 2) if len(known) > 1 else slice(None)
    pairs = [
        pair
        for answer, other in zip(answered[half], known[half], strict=True)
        for pair in _meet(answer, other)
    ]
    renamed = _renaming(pairs)
    again = [
        dataclasses.replace(
            side,
            category=np.array([renamed.get(int(c), -1) for c in side.category], np.int64),
        )
        for side in answered[rest]
    ]
    names = {row["id"]: row["name"] for row in truth.raw["categories"]}
    value = average_precision(again, known[rest])
    others = average_precision(again, [*known[rest][1:], *known[rest][:1]])
    tried = Chance(
        word="better" if value > others else "near zero", reason="", value=value,
        objects=len(pairs), photos=len(again),
    )  # fmt: skip
    return _suspect(renamed, pairs, names, tried)


def _meet(answered: Side, known: Side) -> list[tuple[int, int]]:
    """(answered, true category) of boxes that lie on each other, the surest answer of each."""
    if not len(answered.score) or not len(known.score):
        return []
    overlap = iou(answered.box, known.box)
    best = overlap.argmax(axis=0)
    return [
        (int(answered.category[row]), int(known.category[column]))
        for column, row in enumerate(best)
        if overlap[row, column] >= SAME
    ]


def _renaming(pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Answered class -> the true class that it most often meets."""
    met: dict[int, Counter[int]] = defaultdict(Counter)
    for answered, true in pairs:
        met[answered][true] += 1
    return {answered: counts.most_common(1)[0][0] for answered, counts in met.items()}


def _suspect(
    renamed: dict[int, int], pairs: Sequence[tuple[int, int]], names: dict[int, str], tried: Chance
) -> list[Suspect]:
    counts = Counter(pair for pair in pairs if pair[0] != pair[1])
    moved = [pair for pair, _ in counts.most_common() if renamed[pair[0]] == pair[1]]
    if not moved:
        return []
    shown = "; ".join(
        f"{names.get(answered, 'a class without boxes')!r} is answered where {names[true]!r} is "
        f"labelled ({counts[answered, true]} of {sum(pair[0] == answered for pair in pairs)})"
        for answered, true in moved[:3]
    )
    return [
        Suspect(
            words=f"task.labels in another order: {shown}",
            value=tried.value or 0.0,
            photos=tried.photos,
            better=tried.word == "better",
        )
    ]
