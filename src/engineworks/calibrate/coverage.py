"""Are these samples enough, and do they look like what the model was trained on?

Reads statistics that were collected; runs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.calibrate.collect import Statistics
from engineworks.facts.int8 import Coverage, MovingRange

Array = np.ndarray[Any, Any]

#: Ranges that still grow by more than this when the samples double are not known yet.
MOVING = 0.05

#: A channel that uses less of its tensor's range than this has few of the 256 levels left.
NARROW = 1 / 32

#: A channel whose extreme is this many times the typical channel's stretches all others.
OUTLIER = 8.0


def report(statistics: Statistics, input_name: str, classes: dict[str, int]) -> Coverage:
    """What the samples cover, and warnings in words.

    Args:
        statistics: As collected.
        input_name: The model's input.
        classes: Labelled objects (or images) by class name; empty when there are no labels.
    """
    dead = outliers = narrow = channels = 0
    for table in statistics.channels.values():
        low, high = table[0], table[1]
        reach = np.maximum(np.abs(low), np.abs(high))
        channels += len(reach)
        dead += int((high - low == 0).sum())
        typical = float(np.median(reach))
        outliers += int((reach > OUTLIER * typical).sum()) if typical > 0 else 0
        narrow += int((reach < NARROW * reach.max()).sum()) if reach.max() > 0 else 0
    moving = _moving(statistics)
    warnings = []
    share = len(moving) / max(1, len(statistics.tensors))
    if len(statistics.steps) < 2:
        warnings.append("one sample: no range can be trusted")
    elif share > 0.1:
        warnings.append(
            f"{len(moving)} of {len(statistics.tensors)} ranges still moved by more than "
            f"{MOVING:.0%} when the samples doubled: more samples would change the result"
        )
    warnings += _input_warnings(statistics.channels[input_name])
    absent = [name for name, count in classes.items() if count == 0]
    if absent:
        warnings.append(
            f"{len(absent)} of {len(classes)} classes are on no calibration image "
            f"({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''})"
        )
    return Coverage(
        samples=statistics.samples,
        tensors=len(statistics.tensors),
        channels=channels,
        dead_channels=dead,
        outlier_channels=outliers,
        narrow_channels=narrow,
        steps=statistics.steps,
        convergence=_convergence(statistics),
        moving=moving[:10],
        classes=classes,
        warnings=tuple(warnings),
    )


def _reach(statistics: Statistics, name: str) -> Array:
    history = statistics.history[name]
    return np.asarray(np.maximum(np.abs(history).max(axis=1), 1e-12))


def _convergence(statistics: Statistics) -> tuple[float, ...]:
    """At each checkpoint: how far the median range is from its last value, relative."""
    reaches = np.stack([_reach(statistics, name) for name in statistics.tensors])
    apart = np.abs(reaches / reaches[:, -1:] - 1.0)
    return tuple(float(value) for value in np.median(apart, axis=0))


def _moving(statistics: Statistics) -> tuple[MovingRange, ...]:
    if len(statistics.steps) < 2:
        return ()
    # The last checkpoint may lie close to the one before: compare with half the samples.
    half = max(n for n, step in enumerate(statistics.steps) if step <= statistics.samples / 2)
    moving = []
    for name in statistics.tensors:
        reach = _reach(statistics, name)
        change = float(reach[-1] / reach[half] - 1.0)
        if abs(change) > MOVING:
            moving.append(MovingRange(tensor=name, change=change))
    return tuple(sorted(moving, key=lambda item: -abs(item.change)))


def _input_warnings(table: Array) -> list[str]:
    """Signs that images are not what the model takes."""
    low, high, mean = table
    warnings = []
    if (high - low).min() == 0:
        warnings.append("an input channel is constant over all samples: are these real images?")
    elif len(mean) == 3 and high.max() > 0:
        # No colour photo has as much red as blue to the sixth digit.
        spread = high.max() - low.min()
        if abs(mean[0] - mean[2]) / spread < 1e-6:
            warnings.append("all input channels are equal: grey images for a colour model?")
    return warnings
