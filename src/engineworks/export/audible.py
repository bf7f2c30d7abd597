"""Inputs on which a model answers: comparing engines on silence proves nothing.

A text detector answers the same everywhere on photos without text (1e-7, or -16 before its sigmoid,
or 1 for "none"), and an engine whose text branch is dead agrees with it. So where a channel of an
output stays as it is on the first inputs, further ones are tried: more of the user's images, then
pictures made here. Knows arrays, no task and no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.evaluate.parity import SILENT, silent
from engineworks.specs import Size

Array = np.ndarray[Any, Any]

#: How many further inputs are tried.
TRIES = 32

#: An output with more channels is looked at as a whole: what scores of many classes mean is judged
#: elsewhere.
MOST_CHANNELS = 64

#: With fewer values to a channel of one row than this it is no map: its size counts, not its range.
_FEW = 4


@dataclass(frozen=True)
class _Span:
    """Smallest and largest value of each channel of one output."""

    low: Array
    high: Array

    def with_(self, other: _Span) -> _Span:
        return _Span(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def moves(self) -> Array:
        """How far each channel moves, by 1 or its own size where that is larger."""
        size = np.maximum(1.0, np.maximum(np.abs(self.low), np.abs(self.high)))
        return np.asarray((self.high - self.low) / size)


def choose(
    infer: Callable[[Array], Mapping[str, Array]], inputs: Iterable[Array], rows: int
) -> tuple[Array, dict[str, Array], str]:
    """The first inputs, and in their last places others on which what was still moves.

    Args:
        infer: Batch (b, channels, height, width) -> outputs by name, a row for each image.
        inputs: (channels, height, width) each, in order of preference; read no further than needed.
        rows: How many are kept.

    Returns:
        (inputs (rows, ...), the answers to them, words on what was still or "").
    """
    further = iter(inputs)
    kept = [row for _, row in zip(range(rows), further, strict=False)]
    answers = dict(infer(np.stack(kept)))
    spans = _spans(answers)
    still = {name: span.moves < SILENT for name, span in spans.items()}
    if not any(channels.any() for channels in still.values()):
        return np.stack(kept), answers, ""
    tried: list[tuple[Array, dict[str, Array]]] = []
    waiting = {name: channels.copy() for name, channels in still.items()}
    for row in further:
        there = _spans(infer(row[None]))
        moves = {name: spans[name].with_(there[name]).moves for name in spans}
        tried.append((row, moves))
        for name, channels in waiting.items():
            channels &= ~(moves[name] >= SILENT)
        if not any(channels.any() for channels in waiting.values()):
            break
    others = _loudest(tried, still, max(rows - 1, 1))
    if others:
        kept[len(kept) - min(len(others), len(kept)) :] = others[: len(kept)]
        answers = dict(infer(np.stack(kept)))
    return np.stack(kept), answers, _words(answers, still)


def _spans(answers: Mapping[str, Array]) -> dict[str, _Span]:
    """Of the float outputs, by channel where an output has few enough of them."""
    spans = {}
    for name, answer in answers.items():
        if not answer.size or answer.dtype.kind != "f" or not np.isfinite(answer).all():
            continue
        axis = _channels(answer)
        rows = np.moveaxis(answer, axis, 0).reshape(answer.shape[axis], -1) if axis else answer
        values = rows if axis else answer.reshape(1, -1)
        low, high = values.min(1), values.max(1)
        if values.shape[1] < _FEW * len(answer):  # still is then what is near zero
            low = np.minimum(low, 0)
            high = np.maximum(high, 0)
        spans[name] = _Span(low.astype(np.float64), high.astype(np.float64))
    return spans


def _channels(answer: Array) -> int:
    """The axis of an output's channels; 0 where it has none, or too many."""
    if answer.ndim < 2:
        return 0
    axes = (1, answer.ndim - 1) if answer.ndim > 3 else range(1, answer.ndim)
    axis = min(axes, key=lambda n: answer.shape[n])
    return axis if 2 <= answer.shape[axis] <= MOST_CHANNELS else 0


def _loudest(
    tried: list[tuple[Array, dict[str, Array]]], still: Mapping[str, Array], most: int
) -> list[Array]:
    """Few inputs that between them move each still channel at least half as far as any does."""
    if not tried:
        return []
    columns = [
        np.concatenate([moves[name][channels] for name, channels in still.items()])
        for _, moves in tried
    ]
    far = np.stack(columns)  # (inputs, channels)
    best = far.max(0)
    enough = (far >= best / 2) & (best >= SILENT)
    chosen: list[int] = []
    while len(chosen) < most and enough.any():
        counts = enough.sum(1)
        # Of those that move as many channels, the one that moves them furthest.
        number = int(max(range(len(tried)), key=lambda n: (counts[n], far[n].sum())))
        chosen.append(number)
        enough = enough & ~enough[number]
    return [tried[number][0] for number in sorted(chosen)]


def _words(answers: Mapping[str, Array], before: Mapping[str, Array]) -> str:
    notes = [f"{name} is near silent on every input tried (at most {peak:.1e})"
             for name, peak in silent(answers).items()]  # fmt: skip
    heard = []
    for name, span in _spans(answers).items():
        still = span.moves < SILENT
        if (before[name] & ~still).any():
            heard.append(name)
        if still.any() and name not in silent(answers):
            where = ", ".join(map(str, np.flatnonzero(still)[:8])) if len(still) > 1 else ""
            what = f"channel {where} of {name}" if where else name
            notes.append(f"{what} hardly moves on any input tried")
    if heard:
        notes.append(f"inputs were chosen on which {', '.join(heard)} answers")
    return "; ".join(notes)


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
