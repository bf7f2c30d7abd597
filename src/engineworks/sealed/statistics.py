"""How far answers are from those that are expected, and how far they may be.

Several statistics, each blind to what another sees: one value far off, noise everywhere, a small
shift or growth of a whole channel, another order. Each is taken channel by channel, against that
channel's own spread, so that scores do not hide behind boxes in pixels. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Share of a channel's spread below which a deviation is never told from honest rounding, of an
#: engine that computes in fp32.
FLOORS = {
    "largest": 1e-2, "rms": 1e-3, "bias": 5e-4, "slope": 1e-3, "rank": 2e-3, "overall": 1e-3
}  # fmt: skip

#: A tolerance lies so many times the spread of the honest replays above the worst of them,
MARGIN = 3.0

#: and at least by this share of it.
SLACK = 0.15

#: Times as much room for what varies more between honest replays than three draws of noise show: a
#: rebuilt integer engine came to 1.8 times the tolerance that it had without.
ROOM = {"slope": 2.5, "largest": 1.5}

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

    `largest` is one value far off, `rms` noise, `bias` a shift, `slope` what grows or shrinks with
    the value that is expected, `rank` another order; `overall` is the rms over all channels.

    Args:
        expected: (cases, positions, channels).
        actual: The same places of what was answered.
        scale: Of `scales`, of what is expected.
    """
    wanted = expected.reshape(-1, expected.shape[-1]).astype(np.float64)
    given = actual.reshape(wanted.shape).astype(np.float64)
    broken = ~np.isfinite(given).all(axis=0)
    delta = (np.where(np.isfinite(given), given, 0.0) - wanted) / scale
    rms = np.sqrt(np.square(delta).mean(axis=0))
    centred = (wanted - wanted.mean(axis=0)) / scale
    errors = {
        "largest": np.abs(delta).max(axis=0),
        "rms": rms,
        "bias": np.abs(delta.mean(axis=0)),
        "slope": np.abs((delta * centred).mean(axis=0)),
        "rank": _disorder(wanted / scale, np.where(np.isfinite(given), given, 0.0) / scale),
    }
    errors = {name: np.where(broken, np.inf, values) for name, values in errors.items()}
    return {**errors, "overall": np.sqrt(np.square(errors["rms"]).mean(keepdims=True))}


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
    order = values.argsort(axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    count = len(values)
    places = np.arange(count)[:, None]
    changes = ordered[1:] != ordered[:-1]
    edge = np.ones((1, values.shape[1]), bool)
    first = np.maximum.accumulate(np.where(np.vstack([edge, changes]), places, 0), axis=0)
    ends = np.where(np.vstack([changes, edge]), places, count)
    last = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=0)
    return ranks


def tolerance(honest: Array, floor: Array | float) -> Array:
    """What a figure may reach: above the worst honest one by a multiple of their spread.

    A figure that is far from 0 in every honest replay, as the distance of an integer engine from
    its source is, gets little room above; one that is 0 in some gets about four times the worst.

    Args:
        honest: (replays, channels).
        floor: At least this.
    """
    worst, spread = honest.max(axis=0), np.ptp(honest, axis=0)
    # What befell one channel here may befall the next one elsewhere.
    spread = np.maximum(spread, np.median(spread))
    limit: Array = np.maximum(floor, worst * (1 + SLACK) + MARGIN * spread)
    return limit


def tolerances(honest: Sequence[Mapping[str, Array]], floor: float) -> dict[str, Array]:
    """What every statistic may reach in every channel.

    Args:
        honest: `deviations` of replays of the same engine that change nothing that matters.
        floor: How many times coarser than fp32 the engine rounds: `FLOORS` are raised by it.
    """
    return {
        name: ROOM.get(name, 1.0)
        * tolerance(np.stack([replay[name] for replay in honest]), least * floor)
        for name, least in FLOORS.items()
    }
