"""How far one model's answers are from another's, object by object. Needs no labels.

Answers are COCO results. Knows no model and no truth.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.facts.engine import DetectionDiff, PhotoDiff

Array = np.ndarray[Any, Any]
Results = list[dict[str, Any]]

#: Overlaps (n, m) in 0..1 of one model's objects of a class in a photo, and another's.
Overlap = Callable[[Results, Results], Array]

#: Answers below this score are no objects: hardly any display or decision shows them.
VISIBLE = 0.3

#: Score from which an object counts for `agreement`, which ranks and so needs many objects.
FAINT = 0.1

#: Boxes of one class that overlap less are different objects.
SAME = 0.5

#: A matched box that overlaps less than this has moved.
MOVED = 0.8

#: Area in square pixels below which COCO calls an object small, and medium.
SIZES = (32**2, 96**2)

#: Photos that are named, the worst first.
WORST = 6


def score(reference: Results, answers: Results, overlap: Overlap | None = None) -> float:
    """Agreement in 0..1; 1 is equal. Smooth where a metric jumps, so it can rank small changes.

    Every object of the reference gives its score times overlap times the ratio of scores; objects
    that only one side has give nothing.

    Args:
        reference: COCO results of the float model.
        answers: COCO results of the other one, on the same images.
        overlap: How much objects overlap; None: their boxes.
    """
    credit = weight = 0.0
    for left, right in _by_image_and_class(reference, answers, FAINT):
        pairs, lost, gained = _match(left, right, overlap or of_boxes)
        for expected, other, shared in pairs:
            scores = sorted((expected["score"], other["score"]))
            credit += expected["score"] * shared * scores[0] / scores[1]
            weight += expected["score"]
        weight += sum(entry["score"] for entry in (*lost, *gained))
    return credit / weight if weight else 1.0


def _by_image_and_class(
    reference: Results, answers: Results, least: float
) -> list[tuple[Results, Results]]:
    sides: dict[tuple[int, int], tuple[Results, Results]] = defaultdict(lambda: ([], []))
    for side, entries in enumerate((reference, answers)):
        for entry in entries:
            if entry["score"] >= least:
                sides[entry["image_id"], entry["category_id"]][side].append(entry)
    return list(sides.values())


def _match(
    left: Results, right: Results, overlap: Overlap
) -> tuple[list[tuple[Any, Any, float]], Results, Results]:
    """Pairs with their overlap, strongest first, and what is left over on each side."""
    if not left or not right:
        return [], left, right
    shared = overlap(left, right)
    pairs, free = [], set(range(len(right)))
    lost = []
    for index in sorted(range(len(left)), key=lambda i: -left[i]["score"]):
        score = left[index]["score"]
        # Of boxes that lie equally well, the one with the nearest score: an object is its own pair.
        best = max(
            free, key=lambda j: (shared[index, j], -abs(right[j]["score"] - score)), default=None
        )
        if best is None or shared[index, best] < SAME:
            lost.append(left[index])
            continue
        free.remove(best)
        pairs.append((left[index], right[best], float(shared[index, best])))
    return pairs, lost, [right[j] for j in sorted(free)]


def unmatched(
    reference: Results, answers: Results, overlap: Overlap | None = None
) -> tuple[set[int], set[int]]:
    """Positions of the objects of one image that only one side has, paired as `difference` does.

    Args:
        reference: COCO results of the float model.
        answers: COCO results of the other one.
        overlap: How much objects overlap; None: their boxes.
    """
    places = [{id(entry): n for n, entry in enumerate(side)} for side in (reference, answers)]
    only: tuple[set[int], set[int]] = (set(), set())
    for left, right in _by_image_and_class(reference, answers, 0.0):
        _, lost, gained = _match(left, right, overlap or of_boxes)
        for side, entries in enumerate((lost, gained)):
            only[side].update(places[side][id(entry)] for entry in entries)
    return only


@dataclass(frozen=True, kw_only=True)
class FrameChange:
    """What another model sees differently in one picture, of objects that are visible."""

    matched: int = 0
    lost: int = 0
    gained: int = 0
    moved: int = 0
    """Of the matched: those that overlap less than MOVED."""
    shifts: tuple[float, ...] = ()
    """Score of the other model - score of the reference, of each pair."""

    @property
    def visible(self) -> bool:
        """Whether somebody who looks at both would see it."""
        return bool(self.lost or self.gained or self.moved)


def change(reference: Results, answers: Results, overlap: Overlap | None = None) -> FrameChange:
    """Hold two models' answers to one picture against each other.

    Args:
        reference: COCO results of the model that is in use.
        answers: COCO results of the other one, on the same picture.
        overlap: How much objects overlap; None: their boxes.
    """
    lost = gained = moved = 0
    shifts: list[float] = []
    for left, right in _by_image_and_class(reference, answers, VISIBLE):
        pairs, only_left, only_right = _match(left, right, overlap or of_boxes)
        lost, gained = lost + len(only_left), gained + len(only_right)
        moved += sum(shared < MOVED for _, _, shared in pairs)
        shifts += [other["score"] - before["score"] for before, other, _ in pairs]
    return FrameChange(
        matched=len(shifts), lost=lost, gained=gained, moved=moved, shifts=tuple(shifts)
    )


def of_boxes(left: Results, right: Results) -> Array:
    """Overlaps (n, m) of the boxes of COCO results."""
    return iou(*(np.array([entry["bbox"] for entry in side], np.float64) for side in (left, right)))


def iou(left: Array, right: Array) -> Array:
    """Overlaps (n, m) of boxes (left, top, width, height)."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(
        left[:, None, :2] + left[:, None, 2:], right[None, :, :2] + right[None, :, 2:]
    )
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = np.prod(left[:, 2:], axis=1)[:, None] + np.prod(right[:, 2:], axis=1)[None]
    return np.asarray(shared / np.maximum(areas - shared, 1e-12))


def difference(reference: Results, answers: Results, overlap: Overlap = of_boxes) -> DetectionDiff:
    """Objects lost, gained and moved between two models' detections.

    Args:
        reference: COCO results of the float model.
        answers: COCO results of the other one.
        overlap: How much objects overlap.
    """
    lost_by: Counter[int] = Counter()
    gained_by: Counter[int] = Counter()
    sizes = {name: [0, 0, 0] for name in ("small", "medium", "large")}
    photos: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    matched = 0
    for left, right in _by_image_and_class(reference, answers, VISIBLE):
        pairs, lost, gained = _match(left, right, overlap)
        matched += len(pairs)
        moved = [pair[0] for pair in pairs if pair[2] < MOVED]
        for position, entries in enumerate((lost, gained, moved)):
            for entry in entries:
                photos[entry["image_id"]][position] += 1
                sizes[_size(entry)][position] += 1
        lost_by.update(entry["category_id"] for entry in lost)
        gained_by.update(entry["category_id"] for entry in gained)
    worst = sorted(photos, key=lambda image: (-sum(photos[image]), image))[:WORST]
    return DetectionDiff(
        confidence=VISIBLE,
        matched=matched,
        lost=sum(lost_by.values()),
        gained=sum(gained_by.values()),
        moved=sum(counts[2] for counts in photos.values()),
        lost_by_class={str(k): n for k, n in lost_by.most_common()},
        gained_by_class={str(k): n for k, n in gained_by.most_common()},
        by_size={name: (c[0], c[1], c[2]) for name, c in sizes.items()},
        worst=tuple(
            PhotoDiff(image_id=i, lost=photos[i][0], gained=photos[i][1], moved=photos[i][2])
            for i in worst
        ),
    )


def _size(entry: dict[str, Any]) -> str:
    area = entry["bbox"][2] * entry["bbox"][3]
    return "small" if area < SIZES[0] else "medium" if area < SIZES[1] else "large"
