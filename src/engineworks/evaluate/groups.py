"""Numeric agreement by group of channels, so that nothing hides behind larger numbers.

Boxes in pixels beside scores in 0..1: one figure over the tensor says nothing of the scores. An
output is cut where its channels differ much in size, and each part is held to the limit by itself.
Knows arrays only, not what they mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Channels whose values are this many times smaller than the largest are a group of their own.
FACTOR = 8.0

#: With fewer values to a channel than this, sizes vary by chance: the factor is squared.
FEW = 16

#: Groups of one output.
MOST = 3

#: An axis with more places holds positions, not channels.
CHANNELS = 4096

#: Beside a larger group, values that never pass this are silent: judged by absolute difference.
SILENT = 0.05

#: SNR of equal arrays.
EQUAL_DB = 200.0


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels of one output with values of one order of magnitude."""

    axis: int
    """0: the whole output."""
    channels: tuple[int, ...]

    def of(self, array: Array) -> Array:
        """Its part of an output."""
        return array if self.axis == 0 else array.take(self.channels, axis=self.axis)

    def __str__(self) -> str:
        if self.axis == 0:
            return ""
        first, last = self.channels[0], self.channels[-1]
        run = len(self.channels) == last - first + 1
        span = f"{first}..{last}" if run else f"{len(self.channels)} from {first} on"
        return f"channels {span if len(self.channels) > 1 else first}"


WHOLE = Group(axis=0, channels=())


def groups(want: Array) -> tuple[Group, ...]:
    """The groups of an output, those with the largest values first.

    Args:
        want: (n, ...) that the source model answered.
    """
    if want.dtype.kind != "f" or want.ndim < 2 or not np.isfinite(want).all():
        return (WHOLE,)
    best, sizes = 0, np.zeros(0)
    for axis in _axes(want.shape):
        if 2 <= want.shape[axis] <= CHANNELS:
            others = tuple(n for n in range(want.ndim) if n != axis)
            here = np.sqrt(np.mean(np.square(want, dtype=np.float64), axis=others))
            few = want.size < FEW * len(here)
            if _spread(here) > max(FACTOR**2 if few else FACTOR, _spread(sizes)):
                best, sizes = axis, here
    if not best:
        return (WHOLE,)
    parts: list[Group] = []
    left = np.arange(len(sizes))
    while len(left) and len(parts) < MOST:
        last = len(parts) == MOST - 1
        loud = left if last else left[sizes[left] > sizes[left].max() / FACTOR]
        if not len(loud):  # nothing but zeros is left
            loud = left
        parts.append(Group(axis=best, channels=tuple(loud.tolist())))
        left = np.setdiff1d(left, loud)
    return tuple(parts)


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those that may hold channels: of maps and volumes the shortest, else all but the batch."""
    if len(shape) < 4:
        return tuple(range(1, len(shape)))
    return (min((1, len(shape) - 1), key=lambda axis: shape[axis]),)


def _spread(sizes: Array) -> float:
    """Largest over smallest size."""
    return float(sizes.max() / max(float(sizes.min()), 1e-30)) if len(sizes) else 0.0


def snr_db(got: Array, want: Array) -> float:
    """Signal-to-noise ratio without the mean: what is the same everywhere is no signal.

    Where that leaves nothing, as of a constant, the mean counts.
    """
    want64 = want.astype(np.float64)
    noise = float(np.linalg.norm(got.astype(np.float64) - want64))
    whole = float(np.linalg.norm(want64))
    signal = float(np.linalg.norm(want64 - want64.mean()))
    signal = signal if signal > 1e-4 * whole else whole
    if noise == 0:
        return EQUAL_DB
    return min(EQUAL_DB, 20 * math.log10(signal / noise)) if signal else -EQUAL_DB


def weakest(got: Array, want: Array, parts: tuple[Group, ...]) -> tuple[float, Group]:
    """The lowest SNR of all groups, and whose it is.

    Args:
        got: Finite, of the shape of `want`.
        want: What the source model answered.
        parts: Of `groups`, made of all rows together.
    """
    worst, whose = EQUAL_DB, parts[0]
    for number, part in enumerate(parts):
        mine, theirs = part.of(got), part.of(want)
        silent = number > 0 and float(np.abs(theirs).max(initial=0.0)) < SILENT
        if silent and float(np.abs(mine - theirs).max(initial=0.0)) < SILENT:
            continue
        here = snr_db(mine, theirs)
        if here < worst:
            worst, whose = here, part
    return worst, whose


def relative(got: Array, want: Array, parts: tuple[Group, ...]) -> tuple[float, Group]:
    """The largest difference of all groups, relative to max(1, the group's largest value)."""
    worst, whose = 0.0, parts[0]
    for part in parts:
        mine, theirs = part.of(got).astype(np.float64), part.of(want).astype(np.float64)
        scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
        here = float(np.abs(mine - theirs).max(initial=0.0)) / scale
        if here > worst:
            worst, whose = here, part
    return worst, whose
