"""Throughput of one engine pool over devices or sessions, each device's part and the whole.

Batches are noise, as in `matrix`. One session alone is timed in the same run, in turns with all of
them, so that the gain is a ratio and no comparison of two days.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import hosts
from engineworks.bench.matrix import feed
from engineworks.runtime.predictor import image_input
from engineworks.runtime.session import Tensors
from engineworks.runtime.session_pool import Opener, SessionPool
from engineworks.specs import Preprocess

#: Turns of one session and of all.
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """One session's part."""

    device: int
    calls: int
    throughput_per_s: float
    """Images per second of the whole run that it took on."""
    busy: float
    """Share of the time that it was at work, 0..1."""


@dataclass(frozen=True, kw_only=True)
class SessionPoolRow:
    """One batch size."""

    batch: int
    threads: int
    """CPU threads of each session."""
    throughput_per_s: float
    """Images per second, median of the turns."""
    alone_per_s: float
    """Of one session alone, with the CPU threads of all."""
    gain: float
    place: str
    """What the first session says that it runs on; empty where it does not say."""
    devices: tuple[DeviceRow, ...]


def measure(
    engine: Path | str | Opener,
    devices: Sequence[int],
    batches: Sequence[int],
    *,
    threads: int,
    seconds: float,
) -> tuple[SessionPoolRow, ...]:
    """Measure an engine over devices.

    Args:
        engine: As `SessionPool` takes it.
        devices: As `SessionPool` takes them.
        batches: Batch sizes, a row each.
        threads: CPU threads altogether; 0: all.
        seconds: Time for each row after warm-up, for one session and for all.

    Raises:
        ArtifactError: A session cannot be opened.
        ValueError: A batch does not fit the engine.
    """
    total = threads or hosts.cores()
    each = max(1, total // len(devices))
    with (
        SessionPool(engine, devices[:1], threads=total) as alone,
        SessionPool(engine, devices, threads=each) as pool,
    ):
        return tuple(_row(alone, pool, batch, each, seconds / ROUNDS) for batch in batches)


def _row(
    alone: SessionPool, pool: SessionPool, batch: int, threads: int, turn_s: float
) -> SessionPoolRow:
    """Time one batch size, one session and all of them in turns of `turn_s` seconds."""
    manifest = pool.session.manifest
    size, _ = image_input(manifest)
    feeds = feed(pool.session, manifest.preprocess or Preprocess(), size, batch)
    for sessions in (alone, pool):
        _run(sessions, feeds, max(0.5, turn_s))
        sessions.reset()
    alone_per_s, together_per_s = [], []
    elapsed_s = 0.0
    for _ in range(ROUNDS):
        calls, passed_s = _run(alone, feeds, turn_s)
        alone_per_s.append(calls * batch / passed_s)
        calls, passed_s = _run(pool, feeds, turn_s)
        together_per_s.append(calls * batch / passed_s)
        elapsed_s += passed_s
    together, single = float(np.median(together_per_s)), float(np.median(alone_per_s))
    return SessionPoolRow(
        batch=batch,
        threads=threads,
        throughput_per_s=together,
        alone_per_s=single,
        gain=together / single,
        place=str(manifest.details.get("device", "")),
        devices=tuple(
            DeviceRow(
                device=share.device,
                calls=share.calls,
                throughput_per_s=share.rows / elapsed_s,
                busy=min(1.0, share.busy_s / elapsed_s),
            )
            for share in pool.shares()
        ),
    )


def _run(pool: SessionPool, feeds: dict[str, Any], seconds: float) -> tuple[int, float]:
    """Keep all sessions busy for a time: (calls, seconds)."""
    waiting: deque[Future[Tensors]] = deque()
    calls, started = 0, time.perf_counter()
    ahead = len(pool.shares()) + 1
    while time.perf_counter() - started < seconds:
        while len(waiting) < ahead:
            waiting.append(pool.submit(feeds))
        pool.answer(waiting.popleft())
        calls += 1
    calls += len([pool.answer(answer) for answer in waiting])
    return calls, time.perf_counter() - started
