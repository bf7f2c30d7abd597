"""COCO's average precision in a form that is quick to compute again on exchanged labels.

`cocoeval.score` is the reference that is reported; this one holds answers against chance, without
crowds. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.evaluate.agreement import VISIBLE, iou
from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.evaluate.oks import oks

Array = np.ndarray[Any, Any]

#: Photos that are looked at, spread over those with labels.
PHOTOS = 200

#: IoU .50:.95, as COCO has it.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Objects of one photo, answered or labelled."""

    box: Array
    """(n, 4) left, top, width, height."""
    category: Array
    """int (n,)."""
    score: Array
    """(n,)."""
    points: Array | None = None
    """(n, k, 3) x, y, labelled or sure, where objects overlap by their points."""
    area: Array | None = None
    """(n,) in square pixels; with points."""
    sigmas: Array | None = None
    """(k,) spread of each point; with points."""

    def overlap(self, truth: Side) -> Array:
        """Overlaps (n, m) of these answers with labelled objects, by points or by boxes."""
        if self.points is None or truth.points is None or truth.area is None:
            return iou(self.box, truth.box)
        return oks(self.points, truth.points, truth.area, np.asarray(self.sigmas))


def sides(
    results: Sequence[dict[str, Any]],
    labels: CocoLabels,
    ids: list[int],
    sigmas: Sequence[float] | None = None,
    *,
    every: bool = False,
) -> tuple[list[Side], list[Side]]:
    """Answers and labels photo by photo, of photos with labels, at most `PHOTOS` of them.

    With `sigmas`, objects overlap by their points, and those without a labelled one are left out.
    With `every`, all photos, those without a labelled object too.
    """
    rows: dict[int, list[Any]] = {key: [] for key in ids}
    for row in labels.raw["annotations"]:
        counts = sigmas is None or row["num_keypoints"] > 0
        if row["image_id"] in rows and not row["iscrowd"] and counts:
            rows[row["image_id"]].append(row)
    labelled = [key for key in ids if every or rows[key]]
    if len(labelled) > PHOTOS and not every:
        places = np.linspace(0, len(labelled) - 1, PHOTOS).round().astype(int)
        labelled = [labelled[place] for place in places]
    by_image: dict[int, list[Any]] = {key: [] for key in labelled}
    for row in results:
        if row["image_id"] in by_image:
            by_image[row["image_id"]].append(row)
    return (
        [_side(by_image[key], sigmas) for key in labelled],
        [_side(rows[key], sigmas) for key in labelled],
    )


def _side(rows: Sequence[dict[str, Any]], sigmas: Sequence[float] | None) -> Side:
    score = np.array([row.get("score", 1.0) for row in rows], np.float64)
    order = np.argsort(-score, kind="stable")
    return Side(
        box=np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)[order],
        category=np.array([row["category_id"] for row in rows], np.int64)[order],
        score=score[order],
        **_pointed([rows[place] for place in order], sigmas),
    )


def _pointed(rows: Sequence[dict[str, Any]], sigmas: Sequence[float] | None) -> dict[str, Any]:
    if sigmas is None:
        return {}
    points = np.array([row["keypoints"] for row in rows], np.float64)
    return {
        "points": points.reshape(len(rows), len(sigmas), 3),
        "area": np.array([row.get("area", 0.0) for row in rows], np.float64),
        "sigmas": np.array(sigmas, np.float64),
    }


@dataclass(frozen=True, kw_only=True)
class Match:
    """One photo's answers, held against its labels."""

    score: Array
    """(n,)."""
    category: Array
    """int (n,)."""
    hit: Array
    """bool (n, thresholds): whether it meets an object."""
    wanted: Array
    """int (m,): categories of the labelled objects."""


def average_precision(answers: Sequence[Side], truths: Sequence[Side]) -> float:
    """COCO's AP over IoU .50:.95 (101 recalls, mean over labelled classes), of photo by photo."""
    return average(matches(answers, truths))


def single_curve(answers: Sequence[Side], truths: Sequence[Side]) -> float:
    """AP of few photos: objects of all classes on one curve, an answer meets only its own class.

    A mean over classes would leave out every answer of a class that few photos do not show. Photos
    without an object have no AP: there it is 1 - the highest score that an answer has, and 1 where
    none is visible.
    """
    held = matches(answers, truths)
    hit = np.concatenate([photo.hit for photo in held])
    score = np.concatenate([photo.score for photo in held])
    wanted = sum(len(photo.wanted) for photo in held)
    if not wanted:
        return float(1 - np.clip(score[score >= VISIBLE].max(initial=0.0), 0, 1))
    return _precision(hit[np.argsort(-score, kind="stable")], wanted)


def side(rows: Sequence[dict[str, Any]]) -> Side:
    """Objects of one photo: COCO results, or annotations, whose score is 1."""
    return _side(rows, None)


def matches(answers: Sequence[Side], truths: Sequence[Side]) -> list[Match]:
    """Answers and labels of each photo held against each other, once."""
    return [
        Match(
            score=answer.score, category=answer.category, hit=_right(answer, truth),
            wanted=truth.category,
        )
        for answer, truth in zip(answers, truths, strict=True)
    ]  # fmt: skip


def average(photos: Sequence[Match]) -> float:
    """AP of some photos, as `average_precision` has it."""
    wanted = Counter(int(category) for photo in photos for category in photo.wanted)
    if not wanted:
        return 0.0
    score = np.concatenate([photo.score for photo in photos])
    category = np.concatenate([photo.category for photo in photos])
    hit = np.concatenate([photo.hit for photo in photos])
    order = np.argsort(-score, kind="stable")
    category, hit = category[order], hit[order]
    return float(np.mean([_precision(hit[category == c], n) for c, n in wanted.items()]))


def _precision(hit: Array, wanted: int) -> float:
    """Mean interpolated precision of one class: hits (n, thresholds), best score first."""
    if not hit.any():
        return 0.0
    hits = np.cumsum(hit, axis=0)
    precision = hits / np.arange(1, len(hit) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / wanted
    total = 0.0
    for t in range(hit.shape[1]):
        places = np.searchsorted(recall[:, t], RECALLS, side="left")
        total += float(precision[places[places < len(hit)], t].sum()) / len(RECALLS)
    return float(total / hit.shape[1])


def _right(answer: Side, truth: Side) -> Array:
    """Which answers meet an object at each threshold, bool (n, thresholds), greedily."""
    hit = np.zeros((len(answer.score), len(THRESHOLDS)), bool)
    if not len(answer.score) or not len(truth.score):
        return hit
    overlap = answer.overlap(truth) * (answer.category[:, None] == truth.category[None])
    taken = np.zeros((len(THRESHOLDS), len(truth.score)), bool)
    steps = np.arange(len(THRESHOLDS))
    for row in np.flatnonzero(overlap.max(axis=1) >= THRESHOLDS[0]):
        free = np.where(taken, -1.0, overlap[row][None])
        best = free.argmax(axis=1)
        hit[row] = free[steps, best] >= THRESHOLDS - 1e-10
        taken[steps[hit[row]], best[hit[row]]] = True
    return hit
