"""Which shipped variant is fastest here? All of them in one process, in alternating blocks.

Figures from separate runs differ by more than engines do when the machine drifts; neighbouring
blocks do not. The start of each block is dropped: it pays for the other's caches and threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import hosts
from engineworks.bench import protocol
from engineworks.bench.matrix import feed
from engineworks.facts.timing import Comparison, Contender
from engineworks.manifest import Manifest
from engineworks.runtime.session import open_engine
from engineworks.specs import Preprocess, Size

ROUNDS = 21
CALLS = 6
#: A block lasts at least this long, and its first part is not counted: threads of the runtime
#: that ran before may still spin for some milliseconds.
BLOCK_S = 0.06
SETTLE_S = 0.02


def run(engines: Mapping[str, tuple[Path, Manifest]], size: Size, threads: int) -> Comparison:
    """Time the variants against each other at batch 1.

    Args:
        engines: Variant name -> (engine folder, manifest), in the recipe's order.
        size: The model's own (height, width).
        threads: CPU threads; 0: all.
    """
    with contextlib.ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for name, (folder, manifest) in engines.items():
            session = stack.enter_context(open_engine(folder, threads=threads or hosts.cores()))
            feeds = feed(session, manifest.preprocess or Preprocess(), size, 1)
            calls[name] = partial(session.infer, feeds)
            protocol.warm_up(calls[name], limit_s=2.0)
        return rank(alternate(calls, ROUNDS), size)


def alternate(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Time calls in short blocks, in turn, the order reversed every round.

    Args:
        calls: Name -> one warmed-up inference.
        rounds: Blocks of each.

    Returns:
        Name -> block medians in ms, float64 (rounds,); the same index is the same round.
    """
    medians: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(rounds):
        order = list(calls)[:: 1 if round_number % 2 else -1]
        for name in order:
            medians[name].append(_block(calls[name]))
    return {name: np.array(values) for name, values in medians.items()}


def ratio(
    medians: np.ndarray[Any, Any], base: np.ndarray[Any, Any]
) -> tuple[float, tuple[float, float]]:
    """Median of the ratios of neighbouring blocks, and its 95 % interval by bootstrap.

    Args:
        medians: Block medians (rounds,) of one.
        base: Those of the other, from the same rounds.
    """
    ratios = medians / base
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), (float(low), float(high))


def _block(call: Callable[[], object]) -> float:
    """Median latency in ms of one block, its start left out."""
    begun = time.perf_counter()
    call()
    while time.perf_counter() - begun < SETTLE_S:
        call()
    times: list[float] = []
    while len(times) < CALLS or time.perf_counter() - begun < BLOCK_S:
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times))


def rank(
    medians: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]], size: Size
) -> Comparison:
    """Order variants by latency and say whether the first place is certain.

    Args:
        medians: Variant -> block medians in ms, one per round, same rounds for all. The order
            of the mapping decides among equals.
        size: For the record.
    """
    fastest = min(medians, key=lambda name: float(np.median(medians[name])))
    contenders = []
    for name, values in medians.items():
        middle, interval = ratio(values, medians[fastest])
        contenders.append(
            Contender(variant=name, ratio=middle, ci95=interval, p50_ms=float(np.median(values)))
        )
    contenders.sort(key=lambda contender: contender.ratio)
    tied = [c.variant for c in contenders if c.variant != fastest and c.ci95[0] <= 1.0]
    recommended, reason = fastest, _lead(fastest, contenders)
    if tied:
        recommended = next(name for name in medians if name == fastest or name in tied)
        others = [name for name in (fastest, *tied) if name != recommended]
        reason = (
            f"as fast as {' and '.join(others)} (95 % interval of the ratio includes 1); "
            "first in the recipe"
        )
    return Comparison(
        size=size, batch=1, contenders=tuple(contenders), recommended=recommended, reason=reason
    )


def _lead(fastest: str, contenders: list[Contender]) -> str:
    others = [c for c in contenders if c.variant != fastest]
    if not others:
        return "the only variant that is shipped"
    next_one = others[0]
    return (
        f"fastest: {next_one.variant} takes {next_one.ratio:.2f}x as long "
        f"(95 % interval {next_one.ci95[0]:.2f}-{next_one.ci95[1]:.2f})"
    )
