"""What outputs mean, a reader for each kind: read one image's outputs, compare two engines.

Answers are kept small: detections, probabilities, class numbers, maps of labels. Limits are shares
of what the source model itself is sure of (docs/decisions/036). Knows no session and no truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engineworks.evaluate import seen
from engineworks.evaluate.recognize import Layout, Sure
from engineworks.evaluate.seen import ENOUGH, Judged, Seen
from engineworks.runtime.heads import Decoder
from engineworks.runtime.scores import confidences
from engineworks.specs import ScoreKind, Size

Array = np.ndarray[Any, Any]

#: Probability by which the best class must lead the second for its place to count.
LEAD = 0.1

#: Least share of images with the same best class, of those where the source is sure.
TOP1 = 0.9

#: Largest mean distance of probabilities: half the sum of absolute differences, 0..1.
DISTANCE = 0.1

#: How many classes top-k counts.
BEST = 5

#: Least mean overlap of the areas that two maps give to a label.
IOU = 0.75

#: Scores from which a cell of a map shows something.
SHOWN = 0.3

#: Side from which an output is a map.
SIDE = 8


class Reader(Protocol):
    """One way to read some outputs."""

    @property
    def kind(self) -> str:
        """detections, classes, numbers, masks or scores."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of those that it reads."""
        ...

    @property
    def sure(self) -> Sure:
        """How it was found."""
        ...

    @property
    def why(self) -> str:
        """By what."""
        ...

    def read(self, outputs: Mapping[str, Array]) -> Any:
        """What one image's outputs say; they come without batch."""
        ...

    def compare(self, want: Sequence[Any], got: Sequence[Any]) -> Judged:
        """Hold another engine's answers against the source's, image by image."""
        ...


@dataclass(frozen=True, kw_only=True)
class DetectionReader:
    """Objects: what is lost, gained, moved."""

    layout: Layout
    decode: Decoder
    size: Size
    kind: str = "detections"

    @property
    def outputs(self) -> tuple[str, ...]:
        """See `Reader`."""
        return self.layout.outputs

    @property
    def sure(self) -> Sure:
        """See `Reader`."""
        return self.layout.sure

    @property
    def why(self) -> str:
        """See `Reader`."""
        return self.layout.why

    def read(self, outputs: Mapping[str, Array]) -> Seen:
        """See `Reader`."""
        return seen.read(self.layout.arrange(outputs), self.decode, self.size)

    def compare(self, want: Sequence[Seen], got: Sequence[Seen]) -> Judged:
        """See `Reader`."""
        return seen.compare(want, got)


@dataclass(frozen=True, kw_only=True)
class ClassReader:
    """Scores of classes that exclude each other: who is best, and how sure."""

    outputs: tuple[str, ...]
    sure: Sure
    why: str
    scores: ScoreKind
    """logits or probabilities."""
    kind: str = "classes"

    def read(self, outputs: Mapping[str, Array]) -> Array:
        """Probabilities (classes,); those of an engine need not sum to 1."""
        return confidences(np.asarray(outputs[self.outputs[0]]).reshape(-1), self.scores)

    def compare(self, want: Sequence[Array], got: Sequence[Array]) -> Judged:
        """See `Reader`."""
        left, right = np.stack(want), np.stack(got)
        sure = np.flatnonzero(leads(left) >= LEAD)
        same = left.argmax(axis=1) == right.argmax(axis=1)
        k = min(BEST, left.shape[1])
        order = (np.argsort(-side, axis=1, kind="stable")[:, :k] for side in (left, right))
        shared = [len(set(mine) & set(other)) / k for mine, other in zip(*order, strict=True)]
        distance = float(np.abs(left - right).sum(axis=1).mean() / 2)
        figures = {
            "images": float(len(left)),
            "sure": float(len(sure)),
            "top1_agreement": float(same[sure].mean()) if len(sure) else 1.0,
            f"top{k}_agreement": float(np.mean(shared)),
            "distance": distance,
        }
        if len(sure) < ENOUGH:
            return Judged(judged=False, reasons=(), figures=figures, agreement=1 - distance)
        said = _other_best(same[sure])
        if not distance <= DISTANCE:
            said += (f"probabilities are {distance:.2f} apart on average (allowed {DISTANCE:g})",)
        agreement = float(same.mean()) * (1 - min(1.0, distance))
        return Judged(judged=True, reasons=said, figures=figures, agreement=agreement)


def _other_best(same: Array) -> tuple[str, ...]:
    """Whether too many best classes differ; two may, however few images there are."""
    other = int((~same).sum())
    allowed = max(2, round((1 - TOP1) * len(same)))
    if other <= allowed:
        return ()
    return (f"another best class on {other} of {len(same)} images (allowed {allowed})",)


@dataclass(frozen=True, kw_only=True)
class NumberReader:
    """Whole numbers: classes, ranks. They are equal or not; how far apart says nothing."""

    outputs: tuple[str, ...]
    sure: Sure = "certain"
    why: str = "whole numbers"
    kind: str = "numbers"

    def read(self, outputs: Mapping[str, Array]) -> Array:
        """The numbers, flat."""
        return np.asarray(outputs[self.outputs[0]]).reshape(-1)

    def compare(self, want: Sequence[Array], got: Sequence[Array]) -> Judged:
        """The first number of a list decides, as the best class does; the others are told."""
        left, right = np.stack(want), np.stack(got)
        same = left[:, 0] == right[:, 0]
        each = [
            len(np.intersect1d(mine, other)) / max(1, len(np.unique(mine)))
            for mine, other in zip(left, right, strict=True)
        ]
        figures = {
            "images": float(len(left)),
            "agreement": float(same.mean()),
            "shared": float(np.mean(each)),
            "distinct": float(len(np.unique(left[:, 0]))),
        }
        agreement = float(np.mean(each))
        judged = len(left) >= ENOUGH and figures["distinct"] > 1
        return Judged(
            judged=judged, reasons=_other_best(same) if len(left) >= ENOUGH else (),
            figures=figures, agreement=agreement,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MapReader:
    """A label for every cell: whole numbers, or the best of one channel a label."""

    outputs: tuple[str, ...]
    sure: Sure
    why: str
    channels: bool
    """Whether the first axis holds the labels' scores."""
    kind: str = "masks"

    def read(self, outputs: Mapping[str, Array]) -> Array:
        """Labels of all cells, flat."""
        array = np.asarray(outputs[self.outputs[0]])
        return (array.argmax(axis=0) if self.channels else array).reshape(-1)

    def compare(self, want: Sequence[Array], got: Sequence[Array]) -> Judged:
        """See `Reader`."""
        left, right = np.stack(want), np.stack(got)
        overlaps = {}
        for label in np.unique(left):
            wanted, other = left == label, right == label
            if wanted.sum() >= max(ENOUGH, left.size // 10_000):
                overlaps[int(label)] = float((wanted & other).sum() / (wanted | other).sum())
        mean = float(np.mean(list(overlaps.values()))) if overlaps else 1.0
        return _areas(overlaps, mean, images=len(left), judged=len(overlaps) > 1)


@dataclass(frozen=True, kw_only=True)
class ScoreReader:
    """Scores in 0..1 that do not exclude each other: cells, pixels or labels that show something.

    As with detections, what one side shows is missing on the other only below half its score.
    """

    outputs: tuple[str, ...]
    sure: Sure
    why: str
    scores: ScoreKind = "independent"
    """independent, or independent_logits."""
    kind: str = "scores"

    def read(self, outputs: Mapping[str, Array]) -> Array:
        """The scores, flat, as float16: maps are large."""
        confidence = confidences(np.asarray(outputs[self.outputs[0]]).reshape(-1), self.scores)
        return confidence.astype(np.float16)

    def compare(self, want: Sequence[Array], got: Sequence[Array]) -> Judged:
        """See `Reader`."""
        left, right = np.stack(want).astype(np.float32), np.stack(got).astype(np.float32)
        shown, gained = left >= SHOWN, (right >= SHOWN) & (left < SHOWN / 2)
        kept = shown & (right >= SHOWN / 2)
        count = int(shown.sum())
        union = count + int(gained.sum())
        overlap = float(kept.sum() / union) if union else 1.0
        ratio = float(np.median(right[shown] / left[shown])) if count else 1.0
        judged = _areas({}, overlap, images=len(left), judged=count >= ENOUGH)
        figures = {**judged.figures, "shown": float(count), "score_ratio": ratio}
        reasons = judged.reasons
        if judged.judged and not seen.SCORES <= ratio <= 1 / seen.SCORES:
            reasons += (f"scores are {ratio:.2f} times the source's",)
        return Judged(
            judged=judged.judged, reasons=reasons, figures=figures, agreement=judged.agreement
        )


def _areas(overlaps: dict[int, float], mean: float, *, images: int, judged: bool) -> Judged:
    figures = {"images": float(images), "IoU": mean}
    said: tuple[str, ...] = ()
    if judged and mean < IOU:
        said = (f"areas overlap by {mean:.2f} with the source's (at least {IOU:g})",)
    worst = min(overlaps, key=lambda label: overlaps[label], default=-1)
    if judged and overlaps and overlaps[worst] < IOU / 2:
        said += (f"label {worst} overlaps by {overlaps[worst]:.2f}",)
    return Judged(judged=judged, reasons=said, figures=figures, agreement=mean)


def leads(probabilities: Array) -> Array:
    """By how much the best of the last axis leads the second."""
    best = np.partition(probabilities, -2, axis=-1)
    return np.asarray(best[..., -1] - best[..., -2])


def of_output(name: str, array: Array) -> Reader | None:
    """The reader of one output by itself; None when its meaning cannot be told.

    Args:
        name: Of the output.
        array: (n, ...) that the source model answered.
    """
    shape = [side for side in array.shape[1:] if side != 1]
    is_map = len(shape) >= 2 and min(shape[-2:]) >= SIDE
    if array.dtype.kind in "iub":
        if is_map:
            return MapReader(
                outputs=(name,), sure="certain", why="whole numbers over an area", channels=False
            )
        return NumberReader(outputs=(name,))
    values = np.asarray(array, np.float64).reshape(len(array), *shape)
    if array.dtype.kind != "f" or not values.size or not np.isfinite(values).all():
        return None
    if len(shape) == 1:
        return _of_vector(name, values)
    if len(shape) == 3 and is_map and shape[0] <= min(shape[1:]) and array.ndim == 4:
        reader = _of_channels(name, values)
        if reader is not None:
            return reader
    if _bounded(values) and len(shape) >= 2:
        return ScoreReader(outputs=(name,), sure="likely", why="scores in 0..1")
    return None


def _bounded(values: Array) -> bool:
    """In 0..1, and mostly near one end of it: a picture is not."""
    inside = values.min() >= -0.01 and values.max() <= 1.01
    return bool(inside and np.mean((values < 0.1) | (values > 0.9)) > 0.8)


def _of_vector(name: str, values: Array) -> Reader | None:
    if values.shape[1] < 2:
        return None
    if values.min() >= -1e-3 and np.abs(values.sum(axis=1) - 1).max() < 0.02:
        return ClassReader(
            outputs=(name,), sure="certain", scores="probabilities",
            why=f"probabilities of {values.shape[1]} classes",
        )  # fmt: skip
    if np.abs(np.linalg.norm(values, axis=1) - 1).max() < 0.01:
        return None  # directions, not classes
    if _bounded(values):
        return ScoreReader(outputs=(name,), sure="likely", why=f"{values.shape[1]} scores in 0..1")
    return ClassReader(
        outputs=(name,), sure="likely", scores="logits",
        why=f"logits of {values.shape[1]} classes",
    )  # fmt: skip


def _of_channels(name: str, values: Array) -> Reader | None:
    """(n, labels, height, width): one label's scores in each channel, if one leads nearly always.

    A picture's channels do not sum to 1 and are not below 0.
    """
    if values.shape[1] < 2:
        return None
    by_cell = np.moveaxis(values, 1, -1)
    sums = np.abs(by_cell.sum(axis=-1) - 1).max() < 0.02 and values.min() >= -1e-3
    if values.min() >= 0 and not sums:
        return None
    clear = leads(confidences(by_cell, "probabilities" if sums else "logits")) >= LEAD
    if clear.mean() < 0.5:
        return None
    return MapReader(
        outputs=(name,), sure="certain" if sums else "likely", channels=True,
        why=f"{values.shape[1]} labels over an area",
    )  # fmt: skip
