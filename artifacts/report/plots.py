"""What the report draws: where things stand in its plot, and photos with boxes.

Only geometry and pixels; the template writes every tag, and `report.py` chooses what to show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from artifacts.summary import Summary, Variant
from artifacts.table import main_row

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]

#: A plot shows at least this much of the metric, and this share of the latency, so that noise
#: looks like noise.
LEAST_METRIC, LEAST_LATENCY = 0.02, 0.3
#: Pixels around the plot for the axes' texts: left, top, right, bottom.
MARGIN = (48, 28, 16, 36)
#: Boxes below this score are neither drawn nor counted.
MIN_SCORE = 0.3
#: Two boxes of one class that overlap this much are the same object.
SAME_IOU = 0.5
#: Where a label may stand beside its point, best first: (dx, dy of its baseline, text-anchor).
TRIES: tuple[tuple[float, float, str], ...] = (
    (0, -13, "middle"), (0, 21, "middle"), (12, 4, "start"), (-12, 4, "end"),
    *((dx, dy, anchor)
      for level in range(1, 7)
      for dy in (-13 - 17 * level, 21 + 17 * level)
      for dx, anchor in ((0, "middle"), (-6, "start"), (6, "end"))),
)  # fmt: skip
#: Width of a letter in the plots, generously.
LETTER_PX = 7.4
WIDEST_PX = 480
TILE_PX = 128
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.36
JPEG_QUALITY = 82
#: Colours of boxes, BGR: found by both, and found by one of the two only.
BOTH, ONE = (60, 190, 90), (30, 110, 245)


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A grid line: pixels from the left or top, and its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line: pixels from the top, its text, and where that stands."""

    at: float
    text: str
    text_x: float
    text_y: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One variant in the plot, in pixels of the drawing."""

    variant: Variant
    x: float
    y: float
    low: float
    high: float
    label_x: float
    label_y: float
    anchor: str
    leader: bool


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Accuracy (up) against p50 latency (right), in pixels of a width x height drawing."""

    metric: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    levels: tuple[Level, ...]
    """The source model's metric, and the lowest inside the budget."""
    limit: Tick | None
    """Largest p50 inside the budget."""


def scatter(summary: Summary, width: int, height: int) -> Scatter | None:
    """Place the variants that have both figures at the model's own size and batch 1."""
    points = []
    for variant in summary.variants:
        row = main_row(variant, summary.size)
        if variant.accuracy is not None and row is not None:
            points.append((variant, variant.accuracy, row))
    if not points:
        return None
    max_drop, max_p50 = summary.budget.max_drop, summary.budget.max_p50_ms
    reference = points[0][1].reference
    floor = None if max_drop is None else reference - max_drop
    xs = [x for _, _, row in points for x in (row.p50_ms, *row.ci95_ms)]
    ys = [reference, *(accuracy.value for _, accuracy, _ in points)]
    left, top, right, bottom = (
        MARGIN[0], MARGIN[1], width - MARGIN[2], height - MARGIN[3],
    )  # fmt: skip
    x_axis = Axis.over(
        [*xs, *([] if max_p50 is None else [max_p50])], left, right, share=LEAST_LATENCY
    )
    y_axis = Axis.over([*ys, *([] if floor is None else [floor])], bottom, top, least=LEAST_METRIC)
    spots = [
        (x_axis.at(row.p50_ms), y_axis.at(accuracy.value),
         x_axis.at(row.ci95_ms[0]), x_axis.at(row.ci95_ms[1]))
        for _, accuracy, row in points
    ]  # fmt: skip
    frame = (left, top, right, bottom)
    levels, notes = [], []
    for value, word, below in ((reference, "source model", False), (floor, "budget", True)):
        if value is not None:
            text, y = f"{word} {value:.4f}", y_axis.at(value)
            box = place_note(LETTER_PX * len(text) * 0.9, y, below, spots, frame)
            levels.append(Level(at=y, text=text, text_x=box[0], text_y=box[3] - 3))
            notes.append(box)
    labels = place_labels([v.name for v, _, _ in points], spots, notes, frame)
    return Scatter(
        metric=points[0][1].metric,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=x_axis.ticks(max(3, width // 110)),
        y_ticks=y_axis.ticks(5),
        marks=tuple(
            Mark(variant=v, x=x, y=y, low=low, high=high, label_x=lx, label_y=ly,
                 anchor=anchor, leader=leader)
            for (v, _, _), (x, y, low, high), (lx, ly, anchor, leader)
            in zip(points, spots, labels, strict=True)
        ),
        levels=tuple(levels),
        limit=Tick(at=x_axis.at(max_p50), text=f"{max_p50:g} ms") if max_p50 is not None else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """Values from low to high on pixels from start to end."""

    low: float
    high: float
    start_px: float
    end_px: float

    @classmethod
    def over(
        cls,
        values: Sequence[float],
        start_px: float,
        end_px: float,
        *,
        least: float = 0.0,
        share: float = 0.0,
    ) -> Axis:
        """An axis that shows all values with room around them, and never less than asked for.

        Args:
            values: What must be on it.
            start_px: Where it begins.
            end_px: Where it ends; may lie before the start.
            least: Smallest span.
            share: Smallest span, as a share of the largest value.
        """
        low, high = min(values), max(values)
        span = max(high - low, least, share * abs(high), 1e-9)
        middle = (low + high) / 2
        return cls(middle - 0.62 * span, middle + 0.62 * span, start_px, end_px)

    def at(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 1)

    def ticks(self, wanted: int) -> tuple[Tick, ...]:
        """About as many round values as wanted."""
        rough = (self.high - self.low) / wanted
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if s * magnitude >= rough * 0.999)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += round(step * 10**digits, 6) != round(step * 10**digits)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return tuple(
            Tick(at=self.at(i * step), text=f"{i * step:.{digits}f}")
            for i in range(first, last + 1)
        )


def place_labels(
    names: Sequence[str],
    spots: Sequence[tuple[float, float, float, float]],
    notes: Sequence[Box],
    frame: Box,
) -> list[tuple[float, float, str, bool]]:
    """A free spot for each label: (x, y of its baseline, text-anchor, needs a leader line)."""
    taken = [*notes, *_points(spots)]
    placed = []
    for name, (x, y, _, _) in zip(names, spots, strict=True):
        width = LETTER_PX * len(name)
        for dx, dy, anchor in TRIES:
            left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, y + dy - 11, left + width, y + dy + 3)
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                break
        else:
            dx, dy, anchor = TRIES[0]
        placed.append((round(x + dx, 1), round(y + dy, 1), anchor, abs(dy) > 22))
    return placed


def _points(spots: Iterable[tuple[float, float, float, float]]) -> list[Box]:
    """What dots and intervals cover."""
    boxes = []
    for x, y, low, high in spots:
        boxes += [(x - 7, y - 7, x + 7, y + 7), (low - 2, y - 4, high + 2, y + 4)]
    return boxes


def place_note(width: float, y: float, below: bool, spots: Sequence[Any], frame: Box) -> Box:
    """Where the text of a horizontal line goes: at the end with fewer variants near it."""
    top = y + 4 if below else y - 18
    left = (frame[0] + 4, top, frame[0] + 4 + width, top + 14)
    right = (frame[2] - 4 - width, top, frame[2] - 4, top + 14)

    def crowd(box: Box) -> int:
        near = (box[0] - 60, box[1] - 12, box[2] + 60, box[3] + 12)
        return sum(_overlap(near, point) for point in _points(spots))

    return min(left, right, key=crowd)


def _inside(box: Box, frame: Box) -> bool:
    return (
        box[0] >= frame[0] and box[1] >= frame[1] - 12
        and box[2] <= frame[2] + 12 and box[3] <= frame[3]
    )  # fmt: skip


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
