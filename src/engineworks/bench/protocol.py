"""The timing protocol: warm up until stable, time single calls in blocks, state the doubt.

Knows a callable and a clock, no engine. Rules and their sources:
warm-up ends when the medians of three windows agree within 5 % (Triton perf_analyzer's
stability rule, tightened); tails are never clipped; p99 needs 660 calls (MLPerf LoadGen's
early-stopping figure); the interval of the median comes from blocks, because neighbouring calls
are not independent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engineworks.specs import P99_CALLS

STABLE = 0.05
WINDOWS = 3
MIN_CALLS = 30
BLOCKS = 20
#: Median intervals wider than this share of the median are not conclusive.
WIDEST = 0.10
#: CPU that other processes may use, as a share of the machine.
OTHERS = 0.15


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latencies of single calls, in milliseconds."""

    mean_ms: float
    std_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    ci95_ms: tuple[float, float]
    cpu_ms: float
    n: int
    warmup: int
    inconclusive: str


def measure(call: Callable[[], object], *, seconds: float, calls: int = MIN_CALLS) -> Timing:
    """Time a call.

    Args:
        call: Does one inference and returns when it is done.
        seconds: How long to measure after warm-up.
        calls: Least number of calls, however long they take.
    """
    warmup, stable = warm_up(call, limit_s=max(2.0, seconds))
    watch = CpuWatch()
    cpu_before = time.process_time()
    samples: list[float] = []
    until = time.perf_counter() + seconds
    while len(samples) < calls or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        samples.append((time.perf_counter() - started) * 1e3)
    cpu_ms = (time.process_time() - cpu_before) * 1e3 / len(samples)
    others = watch.others()
    times = np.array(samples)
    low, high = median_interval(times)
    median = float(np.median(times))
    doubts = []
    if not stable:
        doubts.append("latency did not settle during warm-up")
    if high - low > WIDEST * median:
        doubts.append(f"95 % interval of the median spans {(high - low) / median:.0%} of it")
    if others > OTHERS:
        doubts.append(f"other processes used {others:.0%} of the CPU")
    return Timing(
        mean_ms=float(times.mean()),
        std_ms=float(times.std(ddof=1)),
        p50_ms=median,
        p95_ms=float(np.percentile(times, 95)),
        p99_ms=float(np.percentile(times, 99)) if len(times) >= P99_CALLS else None,
        ci95_ms=(low, high),
        cpu_ms=cpu_ms,
        n=len(times),
        warmup=warmup,
        inconclusive="; ".join(doubts),
    )


def warm_up(call: Callable[[], object], *, limit_s: float) -> tuple[int, bool]:
    """Call until the medians of three windows agree: (calls made, whether they did agree)."""
    medians: list[float] = []
    calls = 0
    until = time.perf_counter() + limit_s
    while time.perf_counter() < until or len(medians) < WINDOWS:
        window = []
        for _ in range(5):
            started = time.perf_counter()
            call()
            window.append(time.perf_counter() - started)
        calls += len(window)
        medians.append(float(np.median(window)))
        last = medians[-WINDOWS:]
        if len(last) == WINDOWS and max(last) <= min(last) * (1 + STABLE):
            return calls, True
    return calls, False


def median_interval(times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """95 % interval of the median: order statistics of the medians of `BLOCKS` blocks.

    Distribution-free (binomial ranks); see Conover, Practical Nonparametric Statistics, 3.2.
    """
    blocks = [float(np.median(block)) for block in np.array_split(times, min(BLOCKS, len(times)))]
    blocks.sort()
    n = len(blocks)
    reach = 1.96 * math.sqrt(n) / 2
    low = max(0, math.floor(n / 2 - reach))
    high = min(n - 1, math.ceil(n / 2 + reach) - 1)
    return blocks[low], blocks[high]


class CpuWatch:
    """What share of the machine's CPU time other processes used since it was made."""

    def __init__(self) -> None:
        self._machine = _machine_busy_s()
        self._own = time.process_time()
        self._started = time.perf_counter()

    def others(self) -> float:
        """0..1 of all cores; 0 where the system does not tell."""
        machine = _machine_busy_s()
        if self._machine is None or machine is None:
            return 0.0
        busy, cores = machine[0] - self._machine[0], machine[1]
        own = time.process_time() - self._own
        elapsed = max(1e-9, time.perf_counter() - self._started)
        return max(0.0, (busy - own) / (elapsed * cores))


def _machine_busy_s() -> tuple[float, int] | None:
    """(busy CPU seconds of all cores since boot, cores), from /proc/stat; steal counts as busy."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # user nice system idle iowait irq softirq steal ..., in ticks of 1/100 s
    ticks = [int(value) for value in lines[0].split()[1:9]]
    cores = sum(line.startswith("cpu") for line in lines) - 1
    return (sum(ticks) - ticks[3] - ticks[4]) / 100, cores
