"""How far answers are from those that are expected, and how far they may be.

Several statistics, each blind to what another sees: one value far off, noise everywhere, a small
shift of a whole channel, another order. Each is taken channel by channel, against that channel's
own spread, so that scores do not hide behind boxes in pixels. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Share of a channel's spread below which a deviation is never told from honest rounding, of an
#: engine that computes in fp32.
FLOORS = {"largest": 2e-3, "rms": 5e-4, "bias": 2e-4, "rank": 1e-3}

#: A tolerance is so many times the largest deviation of the honest replays.
MARGIN = 4.0

#: Positions of an output that are kept of each picture.
POSITIONS = 512

#: An axis with more places holds positions, not channels.
CHANNELS = 4096

#: A rank says nothing with fewer values.
_FEW = 8

#: Values that lie within this share of their channel's spread are in no order.
_STEP = 0.02

#: Added to a channel's spread: one that never changes has none.
_TINY = 1e-6


def channel_axis(shape: Sequence[int]) -> int:
    """The axis of one row's output that holds channels; -1: all of it is one channel.

    Args:
        shape: Without the batch dimension.
    """
    if len(shape) < 2:
        return -1
    ends = (0, len(shape) - 1)
    axis = min(ends, key=lambda end: shape[end])
    return axis if shape[axis] <= CHANNELS else -1


def columns(row: Array, axis: int) -> Array:
    """One row's output as float64 (positions, channels)."""
    flat = row[..., None] if axis < 0 else np.moveaxis(row, axis, -1)
    return np.asarray(flat.reshape(-1, flat.shape[-1]), np.float64)


def chosen(values: Array, most: int = POSITIONS) -> Array:
    """Positions to keep of (positions, channels): half spread evenly, half where most happens."""
    count = len(values)
    if count <= most:
        return np.arange(count, dtype=np.int64)
    even = np.linspace(0, count - 1, most // 2).round().astype(np.int64)
    spread = values.std(axis=0) + _TINY
    salience = np.abs((values - values.mean(axis=0)) / spread).max(axis=1)
    loud = np.setdiff1d(np.argsort(-salience, kind="stable")[:most], even, assume_unique=True)
    best = loud[np.argsort(-salience[loud], kind="stable")][: most - len(even)]
    return np.sort(np.concatenate([even, best])).astype(np.int64)


def scales(values: Array) -> Array:
    """Spread of every channel: (cases, positions, channels) -> (channels,)."""
    flat = values.reshape(-1, values.shape[-1])
    level = np.abs(flat).mean(axis=0)
    spread: Array = np.maximum(flat.std(axis=0), 1e-3 * level) + _TINY
    return spread


def deviations(expected: Array, actual: Array, scale: Array) -> dict[str, Array]:
    """Statistic -> its value for every channel; infinite where an answer is no number.

    Args:
        expected: (cases, positions, channels).
        actual: The same places of what was answered.
        scale: Of `scales`, of what is expected.
    """
    wanted = expected.reshape(-1, expected.shape[-1]).astype(np.float64)
    given = actual.reshape(wanted.shape).astype(np.float64)
    broken = ~np.isfinite(given).all(axis=0)
    delta = (np.where(np.isfinite(given), given, 0.0) - wanted) / scale
    found = {
        "largest": np.abs(delta).max(axis=0),
        "rms": np.sqrt(np.square(delta).mean(axis=0)),
        "bias": np.abs(delta.mean(axis=0)),
        "rank": _disorder(wanted / scale, np.where(np.isfinite(given), given, 0.0) / scale),
    }
    return {name: np.where(broken, np.inf, values) for name, values in found.items()}


def _disorder(wanted: Array, given: Array) -> Array:
    """1 - Spearman's rank correlation of every column; 0 where there are too few values.

    Args:
        wanted: (values, channels), in units of the channel's spread.
        given: The same of what was answered.
    """
    if len(wanted) < _FEW:
        return np.zeros(wanted.shape[1])
    ranks = [_ranks(np.round(values / _STEP)) for values in (wanted, given)]
    centred = [rank - rank.mean(axis=0) for rank in ranks]
    product = np.multiply(*centred).sum(axis=0)
    size = np.sqrt(np.prod([np.square(rank).sum(axis=0) for rank in centred], axis=0))
    same = np.where(size > 0, product / np.maximum(size, 1e-30), 1.0)
    # What is the same everywhere has no order that could be lost.
    flat = np.ptp(ranks[0], axis=0) == 0
    return np.where(flat, 0.0, np.maximum(0.0, 1.0 - same))


def _ranks(values: Array) -> Array:
    """Ranks of every column, from 0; equal values share the mean of theirs."""
    ranks = np.empty(values.shape)
    for column in range(values.shape[1]):
        _, inverse, counts = np.unique(values[:, column], return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        ranks[:, column] = (last - (counts + 1) / 2)[inverse.reshape(-1)]
    return ranks


def tolerances(honest: Sequence[Mapping[str, Array]], floor: float) -> dict[str, Array]:
    """What every statistic may reach in every channel.

    Args:
        honest: `deviations` of replays of the same engine that change nothing that matters.
        floor: How many times coarser than fp32 the engine rounds: `FLOORS` are raised by it.
    """
    limits = {}
    for name, least in FLOORS.items():
        worst = np.max([one[name] for one in honest], axis=0)
        # What befell one channel here may befall the next one elsewhere.
        usual = np.maximum(worst, np.median(worst))
        limits[name] = np.maximum(least * floor, MARGIN * usual)
    return limits
