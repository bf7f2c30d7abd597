"""An open loop: requests are sent at random moments, whether or not the ones before are answered.

Latency counts from the moment a request was meant to be sent, so that a server that stalls is
charged for all who would have come meanwhile. Knows no rate to look for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from engineworks.load.wire import Client


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of one rate."""

    rate_per_s: float
    """Asked for."""
    duration_s: float
    sent: int
    ok: int
    """Answered with 2xx within the limit."""
    late: int
    """Answered with 2xx after the limit."""
    refused: int
    """503 or 429."""
    wrong: int
    """Any other status."""
    unanswered: int
    """No answer: the connection broke or the client gave up."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """Of all answers with 2xx, from the intended moment; 0 where there is none."""
    refusal_p99_ms: float
    generator_p99_ms: float
    """How late this program itself sent; a large one means that the figures are its own."""

    @property
    def ok_per_s(self) -> float:
        """Answers within the limit, a second."""
        return self.ok / self.duration_s

    @property
    def well(self) -> bool:
        """Whether 99 of 100 were answered within the limit."""
        return self.sent > 0 and self.ok >= 0.99 * self.sent


def moments(rate_per_s: float, duration_s: float, seed: int) -> list[float]:
    """Seconds from the start at which requests are sent: a Poisson process."""
    source = random.Random(seed)  # noqa: S311 - arrival times, no secret
    at, times_s = source.expovariate(rate_per_s), []
    while at < duration_s:
        times_s.append(at)
        at += source.expovariate(rate_per_s)
    return times_s


@dataclass
class _Tally:
    answered: list[float]
    refused: list[float]
    lags: list[float]
    wrong: int = 0
    unanswered: int = 0


async def send(
    client: Client,
    rate_per_s: float,
    duration_s: float,
    *,
    limit_s: float,
    give_up_s: float,
    seed: int = 0,
) -> Load:
    """Send for a while at a rate, and wait for every answer.

    Args:
        client: Sends one request.
        rate_per_s: Requests a second, on average.
        duration_s: How long to send.
        limit_s: An answer is good within this.
        give_up_s: After so long a request counts as unanswered.
        seed: Of the moments.
    """
    tally = _Tally([], [], [])
    tasks: list[asyncio.Task[None]] = []
    start = time.perf_counter()
    for at in moments(rate_per_s, duration_s, seed):
        wait_s = start + at - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        tally.lags.append(time.perf_counter() - start - at)
        tasks.append(asyncio.create_task(_one(client, start + at, give_up_s, tally)))
    await asyncio.gather(*tasks)
    took_s = max(duration_s, 1e-9)
    return Load(
        rate_per_s=rate_per_s,
        duration_s=took_s,
        sent=len(tasks),
        ok=sum(latency <= limit_s for latency in tally.answered),
        late=sum(latency > limit_s for latency in tally.answered),
        refused=len(tally.refused),
        wrong=tally.wrong,
        unanswered=tally.unanswered,
        p50_ms=percentile(tally.answered, 50) * 1e3,
        p95_ms=percentile(tally.answered, 95) * 1e3,
        p99_ms=percentile(tally.answered, 99) * 1e3,
        refusal_p99_ms=percentile(tally.refused, 99) * 1e3,
        generator_p99_ms=percentile(tally.lags, 99) * 1e3,
    )


async def _one(client: Client, intended: float, give_up_s: float, tally: _Tally) -> None:
    try:
        left_s = intended + give_up_s - time.perf_counter()
        status, _ = await asyncio.wait_for(client.ask(), left_s)
    except (OSError, asyncio.TimeoutError, ValueError):
        tally.unanswered += 1
        return
    latency = time.perf_counter() - intended
    if 200 <= status < 300:
        tally.answered.append(latency)
    elif status in (429, 503):
        tally.refused.append(latency)
    else:
        tally.wrong += 1


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank; 0 of nothing."""
    if not values:
        return 0.0
    order = sorted(values)
    rank = -(-len(order) * share // 100)  # rounded up
    return order[max(0, min(len(order), int(rank)) - 1)]
