"""The drawings of report.html about INT8: a search's trials, and how ranges settled.

Only geometry, as in `plots.py`; the template writes every tag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.report import plots
from artifacts.report.plots import Axis, Level, Tick
from engineworks.facts.int8 import Coverage, Quantized, Trial

#: The part of a search near the budget is drawn once more, this many budgets below the line.
NEAR = 5

WIDTH, HEIGHT = 430, 300
FRAME = (46.0, 28.0, WIDTH - 14.0, HEIGHT - 36.0)
CURVE = (40.0, 20.0, 392.0, 156.0)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One trial in the plot, or the float engine when there is no trial; in pixels."""

    trial: Trial | None
    x: float
    y: float
    chosen: bool
    label: str
    label_x: float
    label_y: float
    anchor: str
    leader: bool


@dataclass(frozen=True, kw_only=True)
class SearchPlot:
    """Accuracy (up) against latency relative to the float engine (right)."""

    title: str
    metric: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    levels: tuple[Level, ...]
    """The float engine's metric, and the lowest inside the budget."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How ranges settled: points in pixels, samples doubling to the right."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[tuple[float, float, str], ...]


def search_plots(quantized: Quantized, max_drop: float | None) -> tuple[SearchPlot, ...]:
    """The search as plots: all of it, and once more near the budget where that is a small part."""
    scored = quantized.reference is not None
    reference = quantized.reference if quantized.reference is not None else 1.0
    # Without a metric no height divides what holds from what does not: filled points tell.
    floor = None if not scored or max_drop is None else reference - max_drop
    points = [
        (trial, trial.ratio, value)
        for trial in quantized.trials
        if (value := trial.metric if scored else trial.agreement) is not None
        and trial.ratio is not None
    ]
    if not points:
        return ()
    metric = quantized.metric if scored else "agreement"
    whole = _plot("", metric, points, reference, floor, quantized.chosen)
    if floor is None:
        return (whole,)
    least = floor - NEAR * max(reference - floor, plots.LEAST_METRIC / 4)
    near = [point for point in points if point[2] >= least]
    if not 1 < len(near) < len(points):
        return (whole,)
    return (
        _plot("All that was scored and timed", metric, points, reference, floor, quantized.chosen),
        _plot("Near the budget", metric, near, reference, floor, quantized.chosen),
    )


def _plot(
    title: str,
    metric: str,
    points: Sequence[tuple[Trial, float, float]],
    reference: float,
    floor: float | None,
    chosen: Trial,
) -> SearchPlot:
    left, top, right, bottom = FRAME
    values = [reference, *(value for *_, value in points), *([] if floor is None else [floor])]
    x_axis = Axis.over(
        [1.0, *(ratio for _, ratio, _ in points)], left, right, share=plots.LEAST_LATENCY
    )
    y_axis = Axis.over(values, bottom, top, least=plots.LEAST_METRIC)
    # The chosen one last, so that it lies on top.
    entries: list[tuple[Trial | None, float, float]] = [(None, 1.0, reference)]
    entries += sorted(points, key=lambda point: point[0] == chosen)
    spots = [(x, y_axis.at(v), x, x) for _, r, v in entries for x in (x_axis.at(r),)]
    levels, notes = [], []
    for value, word, below in ((reference, "float", False), (floor, "budget", True)):
        if value is not None:
            text, y = f"{word} {value:.4f}", y_axis.at(value)
            width = plots.LETTER_PX * len(text) * 0.9
            box = plots.place_note(width, y, below, spots, FRAME)
            levels.append(Level(at=y, text=text, text_x=box[0], text_y=box[3] - 3))
            notes.append(box)
    names = [_name(trial, chosen) for trial, *_ in entries]
    named = [n for n, name in enumerate(names) if name]
    others = [(x - 5, y - 5, x + 5, y + 5) for x, y, *_ in spots]
    placed = plots.place_labels(
        [names[n] for n in named], [spots[n] for n in named], [*notes, *others], FRAME
    )
    labels = dict(zip(named, placed, strict=True))
    dots = []
    for n, ((trial, *_), (x, y, *_)) in enumerate(zip(entries, spots, strict=True)):
        label_x, label_y, anchor, leader = labels.get(n, (x, y, "middle", False))
        dots.append(
            Dot(trial=trial, x=x, y=y, chosen=trial == chosen, label=names[n], label_x=label_x,
                label_y=label_y, anchor=anchor, leader=leader)
        )  # fmt: skip
    return SearchPlot(
        title=title,
        metric=metric,
        x_ticks=x_axis.ticks(5),
        y_ticks=y_axis.ticks(5),
        dots=tuple(dots),
        levels=tuple(levels),
    )


def _name(trial: Trial | None, chosen: Trial) -> str:
    if trial is None:
        return "float"
    return "chosen" if trial == chosen else "usual" if trial.step == "usual" else ""


def curve(coverage: Coverage) -> Curve | None:
    """How far ranges were from their last value as samples doubled; None with one step."""
    pairs = zip(coverage.steps, coverage.convergence, strict=True)
    steps = [(step, apart) for step, apart in pairs if step > 0]
    if len(steps) < 2 or steps[0][0] == steps[-1][0]:
        return None
    left, top, right, bottom = CURVE
    x_axis = Axis(math.log2(steps[0][0]), math.log2(steps[-1][0]), left + 8, right - 8)
    y_axis = Axis(0.0, max(0.01, *(apart for _, apart in steps)) * 1.12, bottom, top)
    points = tuple(
        (x_axis.at(math.log2(step)), y_axis.at(apart), f"{apart:.1%} after {step}")
        for step, apart in steps
    )
    ticks = [Tick(at=x_axis.at(math.log2(step)), text=str(step)) for step, _ in steps]
    # The last number is always written; those too near to it, or to each other, are not.
    shown = [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if shown[-1].at - tick.at >= 26:
            shown.append(tick)
    y_ticks = tuple(
        Tick(at=tick.at, text=f"{float(tick.text):.1%}".replace(".0%", "%"))
        for tick in y_axis.ticks(4)
    )
    return Curve(x_ticks=tuple(reversed(shown)), y_ticks=y_ticks, points=points)
