"""How good the answers to a few frames are by themselves, and what two engines see differently.

A sequential test needs a score of each observation in 0..1. AP is no mean over frames; the AP of
few frames alone is what comes nearest. Answers are rows of plain JSON types: `category_id` (index
of the class) and `score`, for objects also `bbox` (left, top, width, height in pixels). Knows no
engine and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engineworks.errors import ArtifactError
from engineworks.evaluate import agreement, precision
from engineworks.evaluate.agreement import FrameChange
from engineworks.runtime.convert import to_coco

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class FrameScores:
    """How answers of one kind of task are held against each other, frame by frame."""

    metric: str
    """Name of the score."""
    objects: bool
    """Whether an answer is of objects, of which some may be lost, gained or moved."""
    rows: Callable[[Any], Rows]
    """An answer of the task's head as plain rows."""
    score: Callable[[Sequence[Rows], Sequence[Rows]], float]
    """Of some frames' answers, against what is true of each: 0..1, larger is better."""
    change: Callable[[Rows, Rows], FrameChange]
    """What the second sees otherwise than the first, in one frame."""
    as_truth: Callable[[Rows], Rows]
    """A reference's answers as what is true: those that it is sure of."""
    pooled: str = ""
    """The metric of all frames together, where that is another one; empty: it is the mean."""
    match: Callable[[Rows, Rows], Any] = lambda answers, truth: None
    """What `pool` needs to know of one frame: (answers, what is true)."""
    pool: Callable[[Sequence[Any]], float] = lambda matches: 0.0
    """That metric, of what `match` gave."""


def _box_rows(answer: Any) -> Rows:
    return to_coco(answer, 0)


def _box_score(answers: Sequence[Rows], truths: Sequence[Rows]) -> float:
    return precision.single_curve(
        *([precision.side(rows) for rows in s] for s in (answers, truths))
    )


def _box_match(answers: Rows, truth: Rows) -> precision.Match:
    (match,) = precision.matches([precision.side(answers)], [precision.side(truth)])
    return match


def _sure_boxes(rows: Rows) -> Rows:
    return [{**row, "score": 1.0} for row in rows if row["score"] >= agreement.VISIBLE]


def _class_rows(answer: Any) -> Rows:
    return [
        {"category_id": number, "score": score}
        for number, score in zip(
            answer.class_id[:1].tolist(), answer.confidence[:1].tolist(), strict=True
        )
    ]


def _class_score(answers: Sequence[Rows], truths: Sequence[Rows]) -> float:
    return sum(map(_same, answers, truths)) / len(answers)


def _same(rows: Rows, other: Rows) -> bool:
    return [row["category_id"] for row in rows] == [row["category_id"] for row in other]


def _class_change(champion: Rows, candidate: Rows) -> FrameChange:
    if not _same(champion, candidate):
        return FrameChange(lost=len(champion), gained=len(candidate))
    shifts = (
        other["score"] - before["score"] for before, other in zip(champion, candidate, strict=True)
    )
    return FrameChange(matched=len(champion), shifts=tuple(shifts))


#: Kind of a task -> how its answers are scored frame by frame.
KINDS = {
    "detection": FrameScores(
        metric="AP of a frame", objects=True, rows=_box_rows, score=_box_score,
        change=agreement.change, as_truth=_sure_boxes, pooled="AP", match=_box_match,
        pool=precision.average,
    ),
    "classification": FrameScores(
        metric="top1", objects=False, rows=_class_rows, score=_class_score,
        change=_class_change, as_truth=list,
    ),
}  # fmt: skip


def of(kind: str) -> FrameScores:
    """How answers of a kind of task are scored.

    Raises:
        ArtifactError: Nothing here scores single frames of it.
    """
    if kind not in KINDS:
        raise ArtifactError(
            f"answers of the task {kind} are not scored frame by frame",
            hint=f"that is there for {' and '.join(KINDS)}; other engines are compared by "
            "python -m flows.promote",
        )
    return KINDS[kind]
