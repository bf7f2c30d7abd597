"""Inputs on which a model answers: comparing engines on silence proves nothing.

A text detector answers the same everywhere on photos without text (1e-7, or -16 before its sigmoid,
or 1 for "none"), and an engine whose text branch is dead agrees with it. So where a channel of an
output stays as it is on the first inputs, further ones are tried: more of the user's images, then
pictures made here. Knows arrays, no task and no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from engineworks.evaluate.parity import SILENT, silent
from engineworks.specs import Size

Array = np.ndarray[Any, Any]

#: How many further inputs are tried.
TRIES = 32

#: Channels that are told by their number where they never move.
MOST_TOLD = 16
#: An axis with more places holds positions, not channels.
MOST_CHANNELS = 4096


class _Answers:
    """Smallest and largest value of every element of one output, over inputs.

    What is the same in every picture (an anchor grid, the border that padding makes) does not move.
    """

    def __init__(self, low: Array, high: Array) -> None:
        self.low, self.high = low, high
        """(...): without the batch."""

    def with_(self, answer: Array) -> _Answers:
        """These and one more answer, (1, ...)."""
        return _Answers(np.minimum(self.low, answer[0]), np.maximum(self.high, answer[0]))

    def moves(self) -> Array:
        """How far each channel moves, by 1 or its own size where that is larger.

        Channels lie along the first axis or the last one: both are looked at, one after the other.
        """
        span, size = self.high - self.low, np.maximum(np.abs(self.low), np.abs(self.high))
        parts = [
            _most(span, axis) / np.maximum(1.0, _most(size, axis)) for axis in _axes(span.shape)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


def _axes(shape: tuple[int, ...]) -> list[int | None]:
    """Of channels, without the batch; None: the output as a whole."""
    axes = [
        axis for axis in {0, len(shape) - 1} if len(shape) and 2 <= shape[axis] <= MOST_CHANNELS
    ]
    return [*sorted(axes)] if axes else [None]


def _most(values: Array, axis: int | None) -> Array:
    """The largest value of each channel."""
    if axis is None:
        return np.array([values.max(initial=0.0)])
    others = tuple(n for n in range(values.ndim) if n != axis)
    return np.asarray(values.max(axis=others, initial=0.0))


def choose(
    infer: Callable[[Array], Mapping[str, Array]], inputs: Iterable[Array], rows: int
) -> tuple[Array, dict[str, Array], str]:
    """The first inputs, and in their last places others on which channels move much further.

    Args:
        infer: Batch (b, channels, height, width) -> outputs by name, a row for each image.
        inputs: (channels, height, width) each, in order of preference; `TRIES` more are read.
        rows: How many are kept.

    Returns:
        (inputs (rows, ...), the answers to them, words on what was still or "").
    """
    further = iter(inputs)
    kept = [row for _, row in zip(range(rows), further, strict=False)]
    answers = dict(infer(np.stack(kept)))
    known = {name: _known(answer) for name, answer in answers.items() if _counts(answer)}
    first = {name: known[name].moves() for name in known}
    tried: list[tuple[Array, Array]] = []
    for _, row in zip(range(TRIES), further, strict=False):
        there = infer(row[None])
        moved = [
            known[name].with_(there[name].astype(np.float64)).moves()
            for name in known
            if np.isfinite(there[name]).all()
        ]
        if len(moved) == len(known):
            tried.append((row, np.concatenate(moved) if moved else np.zeros(0)))
    others = _furthest(tried, np.concatenate([*first.values(), np.zeros(0)]), max(rows - 1, 1))
    if others:
        kept[len(kept) - min(len(others), len(kept)) :] = others[: len(kept)]
        answers = dict(infer(np.stack(kept)))
    return np.stack(kept), answers, _words(answers, first, tried, known)


def _counts(answer: Array) -> bool:
    return answer.size > 0 and answer.dtype.kind in "fiu" and bool(np.isfinite(answer).all())


def _known(answer: Array) -> _Answers:
    """Of one row alone nothing is known to move; what is not near zero counts as if it did."""
    values = answer.astype(np.float64)
    low, high = values.min(0), values.max(0)
    if len(values) == 1:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    return _Answers(low, high)


def _furthest(tried: list[tuple[Array, Array]], first: Array, most: int) -> list[Array]:
    """Few inputs that move channels at least twice as far, each nearly as far as any does."""
    if not tried or not first.size:
        return []
    far = np.stack([moves for _, moves in tried])  # (inputs, channels)
    best = far.max(0)
    enough = (far >= best / 2) & (best >= np.maximum(SILENT, 2 * first))
    chosen: list[int] = []
    while len(chosen) < most and enough.any():
        counts = enough.sum(1)
        # Of those that move as many channels, the one that moves them furthest.
        number = int(max(range(len(tried)), key=lambda n: (counts[n], far[n].sum())))
        chosen.append(number)
        enough = enough & ~enough[number]
    return [tried[number][0] for number in sorted(chosen)]


def _words(
    answers: Mapping[str, Array],
    first: Mapping[str, Array],
    tried: list[tuple[Array, Array]],
    known: Mapping[str, _Answers],
) -> str:
    quiet = silent(answers)
    notes = [f"{name} is near silent on every input tried (at most {peak:.1e})"
             for name, peak in quiet.items()]  # fmt: skip
    heard, at = [], 0
    for name, before in first.items():
        now = _known(answers[name]).moves()
        after = np.stack([before, *(moves[at : at + len(before)] for _, moves in tried)]).max(0)
        at += len(before)
        if ((before < SILENT) & (now >= SILENT)).any():
            heard.append(name)
        numbers = _still(after, known[name].low.shape)
        if numbers and name not in quiet:
            what = f"channel {', '.join(numbers)} of {name}" if numbers[0] else name
            notes.append(f"{what} hardly moves on any input tried")
    if heard:
        notes.append(f"inputs were chosen on which {', '.join(heard)} answers")
    return "; ".join(notes)


def _still(after: Array, shape: tuple[int, ...]) -> list[str]:
    """Numbers of channels that never move, along whichever of both axes has fewer places.

    [""]: the whole output, where it has no channels.
    """
    fewest = min({0, len(shape) - 1}, key=lambda n: (shape[n], n)) if shape else None
    if fewest is None or shape[fewest] < 2:
        return [""] if after.max(initial=0.0) < SILENT else []
    if shape[fewest] > MOST_TOLD:
        return []
    at = 0
    for axis in _axes(shape):
        if axis == fewest:
            break
        at += shape[axis] if axis is not None else 0
    part = after[at : at + shape[fewest]]
    return [str(number) for number in np.flatnonzero(part < SILENT)[:8]]


def pictures(size: Size) -> Iterator[Array]:
    """Pictures (height, width, 3) uint8 in which networks find something.

    Noise as cameras have it, soft blobs, edges, and writing.
    """
    import cv2

    height, width = size
    generator = np.random.default_rng(0)
    for _ in range(4):
        yield generator.integers(0, 256, (height, width, 3), np.uint8)
    for cells in (4, 12):
        small = generator.integers(0, 256, (cells, cells, 3), np.uint8)
        yield cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grid = np.indices((height, width)).sum(0)
    yield np.repeat(np.where(grid // max(2, min(size) // 8) % 2, 235, 20)[..., None], 3, 2).astype(
        np.uint8
    )
    for paper, ink, lines in ((255, 0, 4), (20, 240, 2)):
        page = np.full((height, width, 3), paper, np.uint8)
        scale = height / lines / 40
        for line in range(lines):
            place = (width // 20, int((line + 0.75) * height / lines))
            cv2.putText(
                page, "ABC 0123 text", place, cv2.FONT_HERSHEY_SIMPLEX, scale, (ink,) * 3,
                max(1, round(scale * 2)), cv2.LINE_AA,
            )  # fmt: skip
        yield page
    yield np.full((height, width, 3), 128, np.uint8)
