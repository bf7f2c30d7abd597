"""Contenders timed in alternating blocks of one process: a drifting machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 21,
    block: int = 8,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Array]:
    """Median milliseconds of each contender in each round.

    Args:
        calls: Name -> does the work once.
        rounds: How often everyone has its turn; every other round in reverse order.
        block: Calls in a turn. One more comes first and does not count: it pays for the caches of
            whoever ran before.
        clock: Seconds. `time.thread_time` where all work is on this thread: it stands still while
            other programs have the core.
    """
    medians: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        order = list(calls) if number % 2 else list(calls)[::-1]
        for name in order:
            calls[name]()
            times = []
            for _ in range(block):
                started = clock()
                calls[name]()
                times.append((clock() - started) * 1e3)
            medians[name].append(float(np.median(times)))
    return {name: np.array(values) for name, values in medians.items()}


def ratio(slow: Array, fast: Array) -> tuple[float, tuple[float, float]]:
    """Median over rounds of slow / fast, and its 95 % interval (bootstrap over rounds)."""
    ratios = slow / fast
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), (float(low), float(high))
