"""How long engines take, alone and side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engineworks.codec import place
from engineworks.specs import Size


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """Latency of one input size and batch. Milliseconds per call, not per image."""

    height: int
    width: int
    batch: int
    threads: int
    mean_ms: float
    std_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    """None with fewer than 660 calls: too few to tell (MLPerf LoadGen's early-stopping figure)."""
    ci95_ms: tuple[float, float]
    """95 % interval of the median, from order statistics of block medians."""
    cpu_ms: float
    """CPU time of all threads per call."""
    throughput_per_s: float
    """Images per second: batch / mean."""
    n: int
    warmup: int
    inconclusive: str
    """Why the figures cannot be trusted; empty when they can."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All rows of one variant, with the circumstances."""

    rows: tuple[BenchmarkRow, ...]
    environment: dict[str, Any]
    elapsed_s: float = place()

    def first(self, height: int, width: int) -> BenchmarkRow | None:
        """The row of an input size at batch 1, if it was measured."""
        for row in self.rows:
            if (row.height, row.width, row.batch) == (height, width, 1):
                return row
        return None


@dataclass(frozen=True, kw_only=True)
class PrecisionComparison:
    """The next higher precision of the same target, timed side by side with this variant."""

    variant: str
    speedup: float
    """Its latency / this variant's: above 1 this variant is faster."""
    ci95: tuple[float, float]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One shipped variant in the final side-by-side timing."""

    variant: str
    ratio: float
    """Its latency / the fastest's: median of pairs of adjacent blocks."""
    ci95: tuple[float, float]
    p50_ms: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Shipped variants timed in one process in alternating blocks, fastest first."""

    size: Size
    batch: int
    contenders: tuple[Contender, ...]
    recommended: str
    reason: str
