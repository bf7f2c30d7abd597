"""The numbers a server is configured with, each chosen from what the engine measured.

One thread per core in all instances together, merged only where merging was measured to be
faster, and a queue whose end is not too far away. Every number has its reason in words. Knows no
server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engineworks.facts.timing import BenchmarkRow
from engineworks.manifest import Manifest

#: How much faster a batch must be per image, at the least, to be worth waiting for.
WORTH = 1.05

#: Milliseconds that the last request of a full queue waits.
LONGEST_WAIT_MS = 1000.0

#: Largest batch that is offered where nothing was measured.
_UNMEASURED_BATCH = 8

#: Shortest queue: below it a burst of a page with several photos is refused.
_SHORTEST_QUEUE = 8


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How one engine is served."""

    max_batch: int
    """Rows in one execution; 0: the engine's batch is fixed."""
    merged: int
    """Requests are merged up to so many rows; 1: they are not."""
    delay_us: int
    """Microseconds that a request may wait for others."""
    instances: int
    threads: int
    """Of each instance."""
    queue: int
    """Requests that may wait."""
    reasons: Mapping[str, str]
    """Field -> why it is what it is, with the figures."""


def choose(
    manifest: Manifest, rows: Sequence[BenchmarkRow], cores: int, *, on_gpu: bool = False
) -> Numbers:
    """Choose the numbers for an engine.

    Args:
        manifest: The engine's.
        rows: Its benchmark; rows of other input sizes or without a conclusion are left out.
        cores: CPUs of the machine that it was measured on.
        on_gpu: Its instances take a GPU, not cores.
    """
    usable = _usable(manifest, rows)
    threads = max((row.threads for row in usable), default=cores)
    by_batch = {row.batch: row for row in usable if row.threads == threads}
    single = by_batch.get(1)
    max_batch, why_batch = _largest(manifest, by_batch)
    merged, why_merged = _merging(by_batch, max_batch)
    delay_us, why_delay = _delay(by_batch, merged)
    instances = 1 if on_gpu else max(1, cores // threads)
    queue, why_queue = _queue(single, instances)
    told = "timed with" if usable else "not timed:"
    return Numbers(
        max_batch=max_batch,
        merged=merged,
        delay_us=delay_us,
        instances=instances,
        threads=threads,
        queue=queue,
        reasons={
            "max_batch": why_batch,
            "merged": why_merged,
            "delay_us": why_delay,
            "instances": "one engine on one GPU: more of them were not timed"
            if on_gpu
            else f"{instances} x {threads} threads on {cores} cores: more would take the cores "
            "from each other",
            "threads": f"{told} {threads} threads on {cores} cores",
            "queue": why_queue,
        },
    )


def _usable(manifest: Manifest, rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """Rows of this engine's input size whose figures can be trusted."""
    fixed = {size for size in manifest.inputs[0].shape[1:] if isinstance(size, int)}
    return [
        row
        for row in rows
        if not row.inconclusive and (not fixed or {row.height, row.width} <= fixed)
    ]


def _largest(manifest: Manifest, by_batch: Mapping[int, BenchmarkRow]) -> tuple[int, str]:
    if not manifest.dynamic_batch:
        return 0, f"the engine takes exactly {manifest.inputs[0].shape[0]} rows"
    measured = max(by_batch, default=0)
    _, most = manifest.batches(measured or _UNMEASURED_BATCH)
    if manifest.details.get("profile"):
        return most, f"the engine's profile and its timing end at {most}"
    return most, f"the largest batch that was timed: {most}" if measured else "no batch was timed"


def _rate(row: BenchmarkRow) -> str:
    return f"batch {row.batch}: {row.batch / row.p50_ms * 1e3:.0f} images/s"


def _merging(by_batch: Mapping[int, BenchmarkRow], max_batch: int) -> tuple[int, str]:
    """The batch that is faster per image with confidence, and by the most; 1 where none is."""
    single = by_batch.get(1)
    others = [row for batch, row in by_batch.items() if 1 < batch <= max_batch]
    if not max_batch:
        return 1, "requests cannot be merged: the engine's batch is fixed"
    if single is None or not others:
        return 1, "requests are not merged: no larger batch was timed beside batch 1"
    told = ", ".join(_rate(by_batch[batch]) for batch in sorted(by_batch))
    sure = {row.batch: row.batch * single.ci95_ms[0] / row.ci95_ms[1] for row in others}
    best = max(sure, key=lambda batch: sure[batch])
    if sure[best] < WORTH:
        return 1, f"requests are not merged: it would not be faster with confidence ({told})"
    return best, f"{sure[best]:.2f}x the images per second at the least ({told})"


def _delay(by_batch: Mapping[int, BenchmarkRow], merged: int) -> tuple[int, str]:
    if merged == 1:
        return 0, "nobody is waited for"
    saved_ms = by_batch[1].p50_ms - by_batch[merged].p50_ms / merged
    delay_us = max(1, int(saved_ms * 1e3))
    return delay_us, f"what an image saves in a batch of {merged}: {saved_ms:.2f} ms"


def _queue(single: BenchmarkRow | None, instances: int) -> tuple[int, str]:
    if single is None:
        return 64, "batch 1 was not timed"
    fitting = math.ceil(LONGEST_WAIT_MS / single.p50_ms) * instances
    queue = max(_SHORTEST_QUEUE, fitting)
    wait_ms = queue * single.p50_ms / instances
    return queue, f"the last one waits {wait_ms:.0f} ms at {single.p50_ms:.2f} ms each"
