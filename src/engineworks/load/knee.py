"""The knee: the highest rate at which 99 of 100 requests are answered within the limit.

Rises in steps until that fails, halves the gap a few times, then measures at half the knee, at it
and at twice as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from engineworks.errors import DataError
from engineworks.load.poisson import Load, percentile, send
from engineworks.load.wire import Client

#: From one step to the next, while all is well.
_STEP = 1.5

#: How often the gap between a good and a bad rate is halved.
_HALVINGS = 3

#: No server here is expected to answer more often.
_MOST_PER_S = 20_000.0


@dataclass(frozen=True, kw_only=True)
class Knee:
    """What a server stands."""

    alone_p50_ms: float
    """One request at a time."""
    limit_ms: float
    knee_per_s: float
    """0: not even the lowest rate went well."""
    steps: tuple[Load, ...]
    half: Load | None
    at: Load | None
    double: Load | None


async def alone(client: Client, seconds: float, give_up_s: float) -> list[float]:
    """Latencies in seconds of requests sent one after another.

    Raises:
        DataError: The server does not answer such a request with 2xx.
    """
    times_s: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times_s) < 5:
        begun = time.perf_counter()
        try:
            status, body = await client.ask()
        except (OSError, ValueError) as error:
            where = f"{client.target.host}:{client.target.port}"
            raise DataError(
                f"{where} gives no answer ({error})", hint="start the server, or check the URL"
            ) from error
        if not 200 <= status < 300:
            said = body[:200].decode("utf-8", "replace")
            raise DataError(
                f"{client.target.path} answers {status}: {said}",
                hint="check the URL, the image and the key",
            )
        times_s.append(time.perf_counter() - begun)
        if times_s[-1] > give_up_s:
            break
    return times_s


async def find(
    client: Client,
    *,
    seconds: float,
    limit_ms: float | None,
    give_up_s: float,
    tell: Callable[[str, Load], None],
) -> Knee:
    """Find the knee, and measure around it.

    Args:
        client: Sends one request.
        seconds: Of each measurement.
        limit_ms: What is a good answer; None: ten times the median alone, at least 100 ms.
        give_up_s: When a request counts as unanswered.
        tell: Called with each measurement and its name.

    Raises:
        DataError: The server does not answer at all.
    """
    await alone(client, 0.5, give_up_s)  # what is only slow the first time
    latencies = await alone(client, min(seconds, 2.0), give_up_s)
    median_ms = percentile(latencies, 50) * 1e3
    limit = limit_ms or max(100.0, 10 * median_ms)

    async def measured(name: str, rate: float) -> Load:
        load = await send(
            client, rate, seconds, limit_s=limit / 1e3, give_up_s=give_up_s, seed=round(rate * 1e3)
        )
        tell(name, load)
        return load

    steps: list[Load] = []
    rate, good, bad = 500 / median_ms, 0.0, 0.0
    while not bad and rate <= _MOST_PER_S:
        load = await measured("step", rate)
        steps.append(load)
        good, bad = (rate, 0.0) if load.well else (good, rate)
        rate *= _STEP
    if not good:  # even half of what one client alone gets was too much
        rate = bad / 4
        load = await measured("step", rate)
        steps.append(load)
        good = rate if load.well else 0.0
    for _ in range(_HALVINGS if good and bad else 0):
        rate = (good + bad) / 2
        load = await measured("step", rate)
        steps.append(load)
        good, bad = (rate, bad) if load.well else (good, rate)
    around: dict[str, Load | None] = {"half": None, "at": None, "double": None}
    for name, share in (("half", 0.5), ("at", 1.0), ("double", 2.0)):
        around[name] = await measured(name, good * share) if good else None
    return Knee(
        alone_p50_ms=median_ms, limit_ms=limit, knee_per_s=good, steps=tuple(steps), **around
    )
