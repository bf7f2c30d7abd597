"""Detections of the source model as pseudo-labels: what another engine loses, gains and moves.

A detection that only one side has is no loss while the other side's candidates still hold it at
half its score: near a threshold, and between neighbouring candidates of one object, sound engines
differ. Knows decoded boxes in input pixels; no labels, no image, no session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.evaluate import agreement, cocoeval
from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.runtime.heads import Decoder
from engineworks.runtime.nms import suppress
from engineworks.specs import Size

Array = np.ndarray[Any, Any]

#: Scores from which a detection is a pseudo-label, the first at which the source has enough.
CONFIDENCES = (0.3, 0.1)

#: Candidates below this are not kept.
FLOOR = CONFIDENCES[-1] / 2

#: Share of its score that a candidate must have to hold a detection of the other side.
HALF = 0.5

#: Suppression between boxes of one class, as a display has it.
IOU = 0.5

#: Most candidates and detections of one image.
CANDIDATES, MOST = 2000, 300

#: With fewer pseudo-labels nothing can be said.
ENOUGH = 10

#: Least AP at an overlap of 0.5 where the source's detections are the truth: it sees the order.
AP50 = 0.75

#: Classes that are named, the worst first.
NAMED = 3

#: Largest shares of detections that may be lost, gained or moved (docs/decisions/036).
LOST, GAINED, MOVED = 0.1, 0.1, 0.15

#: The median score may not fall or rise by more than this factor.
SCORES = 0.75

#: Largest mean difference of scores: a few coarse steps keep the median and lose the order.
APART = 0.12

#: By how much boxes may be wider or higher than the source's in the median, as a factor, and lie
#: aside, in shares of their sides: rounding goes both ways, so a sound engine shows hardly any.
SIDES, ASIDE = 1.1, 0.05

#: A class with enough pseudo-labels may not lose more than this share.
CLASS_LOST = 0.5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one engine sees in one image: xyxy (n, 4) in input pixels, scores (n,), classes (n,)."""

    xyxy: Array
    score: Array
    class_id: Array
    kept: Array
    """Indices of what suppression leaves, strongest first; the others are candidates."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Two engines' detections of the same images, compared."""

    judged: bool
    reasons: tuple[str, ...]
    """What breaks a limit."""
    figures: dict[str, float]
    agreement: float
    """Agreement in 0..1, smooth; it ranks candidates that differ little."""


def read(outputs: Mapping[str, Array], decode: Decoder, size: Size) -> Seen:
    """Decode one image's outputs, and suppress whatever the layout: an object counts once.

    Args:
        outputs: What the decoder takes, without batch.
        decode: Of the layout.
        size: Input (height, width).
    """
    xyxy, score, class_id = decode(outputs, size, FLOOR)
    real = np.isfinite(xyxy).all(axis=1) & (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
    order = np.flatnonzero(real & np.isfinite(score))
    order = order[np.argsort(-score[order], kind="stable")][:CANDIDATES]
    xyxy, score, class_id = xyxy[order], score[order], class_id[order]
    kept = suppress(xyxy, score, class_id, IOU)
    return Seen(
        xyxy=np.asarray(xyxy, np.float64), score=np.asarray(score, np.float64),
        class_id=np.asarray(class_id, np.int64), kept=np.asarray(kept, np.int64)[:MOST],
    )  # fmt: skip


def compare(want: Sequence[Seen], got: Sequence[Seen]) -> Judged:
    """Hold one engine's detections against the source model's.

    Args:
        want: Of the source model, one an image.
        got: Of the other, on the same images.
    """
    confidence = next(
        (least for least in CONFIDENCES if _count(want, least) >= ENOUGH), CONFIDENCES[0]
    )
    left, right = _results(want), _results(got)
    agreed = agreement.score(left, right)
    objects = _count(want, confidence)
    there = [_held(wanted, given, confidence) for wanted, given in zip(want, got, strict=True)]
    back = [_held(given, wanted, confidence) for wanted, given in zip(want, got, strict=True)]
    found = np.concatenate([held.found for held in there]) if there else np.zeros(0, bool)
    moved = np.concatenate([held.moved for held in there]) if there else np.zeros(0, bool)
    gained = sum(int((~held.found).sum()) for held in back)
    ratios = np.concatenate([held.ratio for held in there]) if there else np.zeros(0)
    apart = np.concatenate([held.apart for held in there]) if there else np.zeros(0)
    placed = np.concatenate([held.placed for held in there]) if there else np.zeros((0, 4))
    aside_x, aside_y, wider, higher = np.median(placed, axis=0) if len(placed) else np.zeros(4)
    figures = {
        "confidence": confidence,
        "objects": float(objects),
        "lost": float((~found).sum()),
        "gained": float(gained),
        "moved": float(moved.sum()),
        "score_ratio": float(np.median(ratios)) if len(ratios) else 1.0,
        "scores_apart": float(apart.mean()) if len(apart) else 0.0,
        "width_ratio": float(np.exp(wider)),
        "height_ratio": float(np.exp(higher)),
        "aside_x": float(aside_x),
        "aside_y": float(aside_y),
        "AP50": 1.0,
        "AP": 1.0,
    }
    if objects < ENOUGH:
        many = gained > ENOUGH
        reasons = (f"finds {gained} objects where the source finds {objects}",) * many
        return Judged(judged=many, reasons=reasons, figures=figures, agreement=agreed)
    figures.update(_precision(left, right, confidence, len(want)))
    reasons = _reasons(figures) + _classes(want, there, confidence)
    return Judged(judged=True, reasons=reasons, figures=figures, agreement=agreed)


def _reasons(figures: dict[str, float]) -> tuple[str, ...]:
    objects = int(figures["objects"])
    said = []
    for word, limit in (("lost", LOST), ("gained", GAINED), ("moved", MOVED)):
        if figures[word] > limit * objects:
            said.append(f"{int(figures[word])} {word} (allowed {int(limit * objects)})")
    if said:
        of = f"of {objects} detections of the source above {figures['confidence']:g}: "
        said = [of + ", ".join(said)]
    ratio = figures["score_ratio"]
    if not SCORES <= ratio <= 1 / SCORES:
        said.append(
            f"scores are {ratio:.2f} times the source's (allowed {SCORES:g} to {1 / SCORES:.2f})"
        )
    elif figures["scores_apart"] > APART:
        said.append(
            f"scores are {figures['scores_apart']:.2f} apart on average (allowed {APART:g})"
        )
    for word, name in (("wide", "width_ratio"), ("high", "height_ratio")):
        if not 1 / SIDES <= figures[name] <= SIDES:
            said.append(
                f"boxes are {figures[name]:.2f} times as {word} (allowed {1 / SIDES:.2f} to "
                f"{SIDES:g})"
            )
    for word, name in (("width", "aside_x"), ("height", "aside_y")):
        if abs(figures[name]) > ASIDE:
            said.append(f"boxes lie {figures[name]:+.2f} of their {word} aside (allowed {ASIDE:g})")
    if figures["AP50"] < AP50:
        said.append(f"AP50 against the source {figures['AP50']:.3f} (at least {AP50:g})")
    return tuple(said)


@dataclass(frozen=True, kw_only=True)
class _Held:
    """For each detection of one side, what the other side's candidates say."""

    class_id: Array
    found: Array
    moved: Array
    ratio: Array
    """Best score on the other side over its own, of those that are found at any score."""
    apart: Array
    """The same as a difference."""
    placed: Array
    """(found, 4): centre x and y of the nearest box beside its own, in shares of its own sides;
    logarithms of width and height over its own."""


def _held(mine: Seen, other: Seen, confidence: float) -> _Held:
    kept = mine.kept[mine.score[mine.kept] >= confidence]
    score, class_id = mine.score[kept], mine.class_id[kept]
    if not len(kept) or not len(other.score):
        nothing = np.zeros(len(kept), bool)
        none = np.zeros(0)
        return _Held(
            class_id=class_id, found=nothing, moved=nothing, ratio=none, apart=none,
            placed=np.zeros((0, 4)),
        )  # fmt: skip
    overlap = agreement.iou(_xywh(mine.xyxy[kept]), _xywh(other.xyxy))
    same = (overlap >= agreement.SAME) & (class_id[:, None] == other.class_id)
    strong = same & (other.score >= HALF * score[:, None])
    nearest = np.where(strong, overlap, 0.0).max(axis=1)
    best = np.where(same, other.score, 0.0).max(axis=1)[same.any(axis=1)]
    own = score[same.any(axis=1)]
    held = nearest > 0
    at = np.where(strong, overlap, 0.0).argmax(axis=1)[held]
    return _Held(
        class_id=class_id,
        found=held,
        moved=held & (nearest < agreement.MOVED),
        ratio=best / own,
        apart=np.abs(best - own),
        placed=_placed(mine.xyxy[kept][held], other.xyxy[at]),
    )


def _placed(own: Array, others: Array) -> Array:
    """See `_Held.placed`, of xyxy (n, 4) each."""
    sides, other_sides = own[:, 2:] - own[:, :2], others[:, 2:] - others[:, :2]
    centres = (others[:, :2] + others[:, 2:] - own[:, :2] - own[:, 2:]) / 2
    return np.hstack([centres / sides, np.log(other_sides / sides)])


def _classes(want: Sequence[Seen], there: Sequence[_Held], confidence: float) -> tuple[str, ...]:
    """A class that vanished hides in the sum over all."""
    total: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for held in there:
        total.update(held.class_id.tolist())
        lost.update(held.class_id[~held.found].tolist())
    gone = [
        name for name, count in total.items()
        if count >= ENOUGH and lost[name] > CLASS_LOST * count
    ]  # fmt: skip
    gone.sort(key=lambda name: (-lost[name], name))
    said = [f"{lost[name]} of {total[name]} of class {name} are lost" for name in gone[:NAMED]]
    if len(gone) > NAMED:
        said.append(f"{len(gone) - NAMED} more classes lose as much")
    return tuple(said)


def _count(seen: Sequence[Seen], confidence: float) -> int:
    return sum(int((picture.score[picture.kept] >= confidence).sum()) for picture in seen)


def _xywh(xyxy: Array) -> Array:
    return np.hstack([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]])


def _results(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """As COCO results; the image's id is its place, a category's id its class and 1."""
    return [
        {
            "image_id": number,
            "category_id": int(picture.class_id[index]) + 1,
            "bbox": _xywh(picture.xyxy[index : index + 1])[0].tolist(),
            "score": float(picture.score[index]),
        }
        for number, picture in enumerate(seen)
        for index in picture.kept
    ]


def _precision(
    left: list[dict[str, Any]], right: list[dict[str, Any]], confidence: float, images: int
) -> dict[str, float]:
    """AP of the right side where the left side's detections are the truth."""
    strong = [entry for entry in left if entry["score"] >= confidence]
    truth = [
        {**entry, "id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
        for number, entry in enumerate(strong, start=1)
    ]
    classes = sorted({entry["category_id"] for entry in truth})
    labels = CocoLabels(
        raw={
            "images": [{"id": number} for number in range(images)],
            "categories": [{"id": number, "name": str(number)} for number in classes],
            "annotations": truth,
        },
        image_id={}, size={}, category_id=tuple(classes),
    )  # fmt: skip
    metrics = cocoeval.score(right, labels, list(range(images)))
    return {"AP": metrics["AP"], "AP50": metrics["AP50"]}
