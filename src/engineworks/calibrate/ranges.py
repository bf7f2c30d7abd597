"""Ranges from a histogram: MinMax, percentiles, MSE and entropy, without running a model again.

All of them contain 0, which integers must be able to say exactly (padding, ReLU). Knows one
histogram at a time, no graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.qdq.ranges import Range

Array = np.ndarray[Any, Any]

#: Levels of an 8-bit integer, and of its half when it is symmetric around 0.
LEVELS = 256
HALF = 128

#: Bins that entropy compares with its levels, as in the source below; finer ones are merged.
ENTROPY_BINS = 2048

#: Ends that entropy tries.
ENTROPY_CANDIDATES = 48

#: Positions tried on each side of a range by the searching methods.
CANDIDATES = 96


@dataclass(frozen=True)
class Histogram:
    """Counts of equal bins: bin i holds values in [(first + i) * width, (first + i + 1) * width).

    Attributes:
        first: Number of the first bin; bin 0 begins at the value 0.
        width: Width of a bin, a power of two.
        counts: int64 (bins,).
        minimum: Smallest value seen, exact.
        maximum: Largest value seen, exact.
    """

    first: int
    width: float
    counts: Array
    minimum: float
    maximum: float

    @property
    def centres(self) -> Array:
        """float64 (bins,): the middle of each bin."""
        return (self.first + np.arange(len(self.counts)) + 0.5) * self.width

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    def folded(self) -> Histogram:
        """The histogram of absolute values."""
        negative = max(0, -self.first)
        size = max(len(self.counts) + self.first, negative)
        counts = np.zeros(size, np.int64)
        right = self.counts[negative:] if self.first <= 0 else self.counts
        offset = max(0, self.first)
        counts[offset : offset + len(right)] += right
        left = self.counts[:negative][::-1]
        counts[: len(left)] += left
        largest = max(abs(self.minimum), abs(self.maximum))
        return Histogram(0, self.width, counts, 0.0, largest)


def _with_zero(low: float, high: float) -> Range:
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (0.0, 1.0)  # all values are 0: any range will do


def _symmetric(bound: float) -> Range:
    return (-bound, bound) if bound > 0 else (-1.0, 1.0)


def minmax(histogram: Histogram, symmetric: bool) -> Range:
    """The extremes that were seen."""
    if symmetric:
        return _symmetric(max(abs(histogram.minimum), abs(histogram.maximum)))
    return _with_zero(histogram.minimum, histogram.maximum)


def percentile(histogram: Histogram, symmetric: bool, *, keep: float) -> Range:
    """The range that keeps this share of the values; asymmetric: cut equally from each side.

    Args:
        histogram: What was seen.
        symmetric: Of absolute values.
        keep: Share in 0..1, for example 0.9999.
    """
    if symmetric:
        return _symmetric(_quantile(histogram.folded(), keep))
    cut = 1.0 - keep
    return _with_zero(_quantile(histogram, cut), _quantile(histogram, 1.0 - cut))


def _quantile(histogram: Histogram, share: float) -> float:
    """Value below which this share lies, linear inside a bin, never beyond what was seen."""
    sums = np.concatenate([[0], np.cumsum(histogram.counts)])
    edges = (histogram.first + np.arange(len(sums))) * histogram.width
    value = float(np.interp(share * sums[-1], sums, edges))
    return min(max(value, histogram.minimum), histogram.maximum)


def mse(
    histogram: Histogram, symmetric: bool, *, through: Callable[[Array], Array] | None = None
) -> Range:
    """The range with the smallest mean squared error of 8-bit values.

    Args:
        histogram: What was seen.
        symmetric: Range around 0.
        through: The function that alone reads the tensor. The error is then that of its answers,
            so that accuracy is not spent where the function flattens everything (SiLU left of
            -5).
    """
    values, weights = _points(histogram)
    lows, highs = _grid(histogram, symmetric)
    wanted = through(values) if through else values
    best, bounds = np.inf, minmax(histogram, symmetric)
    for low in lows:
        # All upper ends at once: (candidates, points).
        scale = (highs - low) / (LEVELS - 1) if not symmetric else highs / (HALF - 1)
        bottom = np.full_like(highs, low) if not symmetric else -highs
        zero = np.round(-bottom / scale) if not symmetric else np.zeros_like(highs)
        limits = (0, LEVELS - 1) if not symmetric else (-HALF + 1, HALF - 1)
        steps = np.round(values[None] / scale[:, None]) + zero[:, None]
        rounded = (np.clip(steps, *limits) - zero[:, None]) * scale[:, None]
        error = rounded - wanted if through is None else through(rounded) - wanted
        errors = (error * error) @ weights
        place = int(errors.argmin())
        if errors[place] < best:
            best, bounds = float(errors[place]), (float(bottom[place]), float(highs[place]))
    return _symmetric(bounds[1]) if symmetric else _with_zero(*bounds)


def _points(histogram: Histogram, most: int = 1024) -> tuple[Array, Array]:
    """Bins as weighted points, thinned to at most `most`; empty ones left out."""
    counts, centres = histogram.counts, histogram.centres
    together = -(-len(counts) // most)
    padding = -len(counts) % together
    counts = np.pad(counts, (0, padding)).reshape(-1, together)
    centres = np.pad(centres, (0, padding), mode="edge").reshape(-1, together)
    weights = counts.sum(axis=1)
    middle = (counts * centres).sum(axis=1) / np.maximum(weights, 1)
    full = weights > 0
    return middle[full], weights[full] / max(1, weights.sum())


def _grid(histogram: Histogram, symmetric: bool) -> tuple[Array, Array]:
    low, high = minmax(histogram, symmetric)
    shares = np.geomspace(0.02, 1.0, CANDIDATES)
    if symmetric:
        return np.zeros(1), high * shares
    if high == 0:
        return low * shares, np.zeros(1)
    lows = low * np.geomspace(0.05, 1.0, 16) if low < 0 else np.zeros(1)
    return lows, high * shares


def entropy(histogram: Histogram, symmetric: bool) -> Range:
    """The range whose 8-bit distribution is nearest to the real one (Kullback-Leibler).

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017. 2,048 bins of absolute values
    against 128 levels; an asymmetric range keeps its lower end by the same rule on that side.
    """
    if symmetric:
        return _symmetric(_divergence_bound(histogram.folded()))
    # Each side alone, with the levels that fall to it by its length.
    low, high = minmax(histogram, symmetric=False)
    bounds = []
    for sign, end in ((-1, -low), (1, high)):
        if end <= 0:
            bounds.append(0.0)
            continue
        side = _side(histogram, sign)
        levels = max(16, round(LEVELS * end / (high - low)))
        bounds.append(_divergence_bound(side, levels) if side.total else end)
    return _with_zero(-bounds[0], bounds[1])


def _side(histogram: Histogram, sign: int) -> Histogram:
    zero = -histogram.first
    counts = histogram.counts[zero:] if sign > 0 else histogram.counts[: max(zero, 0)][::-1]
    end = histogram.maximum if sign > 0 else -histogram.minimum
    return Histogram(0, histogram.width, np.array(counts), 0.0, max(end, 0.0))


def _divergence_bound(histogram: Histogram, levels: int = HALF) -> float:
    filled = np.flatnonzero(histogram.counts)
    if not len(filled):
        return histogram.maximum
    counts, width = histogram.counts[: filled[-1] + 1].astype(np.float64), histogram.width
    while len(counts) > ENTROPY_BINS:
        counts = np.append(counts, 0.0) if len(counts) % 2 else counts
        counts, width = counts.reshape(-1, 2).sum(axis=1), width * 2
    # The peak at exactly 0 (padding, ReLU) is always said exactly: it must not decide.
    counts[0] = counts[1] if len(counts) > 1 else counts[0]
    if len(counts) <= levels:
        return histogram.maximum
    best, bins = np.inf, len(counts)
    step = max(1, (len(counts) - levels) // ENTROPY_CANDIDATES)
    # A range that keeps next to nothing is near to what it keeps, and useless.
    least = int(np.searchsorted(np.cumsum(counts), 0.9 * counts.sum())) + 1
    for end in (*range(max(levels, least), len(counts), step), len(counts)):
        kept = counts[:end].copy()
        kept[-1] += counts[end:].sum()
        divergence = _divergence(kept, counts[:end], levels)
        if divergence < best:
            best, bins = divergence, end
    return min(bins * width, histogram.maximum)


def _divergence(real: Array, source: Array, levels: int) -> float:
    """KL divergence of a clipped distribution from its version with `levels` levels."""
    borders = np.linspace(0, len(real), levels + 1).round().astype(int)[:-1]
    full = source > 0
    sums = np.add.reduceat(source, borders)
    filled = np.add.reduceat(full.astype(np.float64), borders)
    lengths = np.diff(np.append(borders, len(real)))
    spread = np.repeat(sums / np.maximum(filled, 1), lengths) * full
    p, q = real / real.sum(), spread / max(spread.sum(), 1e-300)
    used = (p > 0) & (q > 0)
    # What falls on an empty level costs as much as the smallest share there is.
    lost = p[(p > 0) & (q == 0)].sum() * 20.0
    return float((p[used] * np.log(p[used] / q[used])).sum() + lost)


#: Name -> (histogram, symmetric) -> range. The names stand in reports and in recipes.
METHODS: dict[str, Callable[[Histogram, bool], Range]] = {
    "minmax": minmax,
    "percentile-99.9": lambda h, s: percentile(h, s, keep=0.999),
    "percentile-99.95": lambda h, s: percentile(h, s, keep=0.9995),
    "percentile-99.99": lambda h, s: percentile(h, s, keep=0.9999),
    "percentile-99.999": lambda h, s: percentile(h, s, keep=0.99999),
    "entropy": entropy,
    "mse": mse,
}
