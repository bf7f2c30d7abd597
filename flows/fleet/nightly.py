"""Who times which promoted version: the machine that built it, by an order or right here.

A machine that is away holds up no other. Knows the fan-out; judges nothing.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.registry.promoted import Promoted
from artifacts.store.remote import RemoteStore
from artifacts.store.s3 import Bucket
from artifacts.summary import StageTiming
from engineworks import hosts
from engineworks.errors import EngineworksError
from engineworks.facts.host import RegisteredHost
from engineworks.facts.timing import Benchmark, BenchmarkRow
from engineworks.plan import absence
from flows.fleet.fanout import Child, FanOut
from flows.fleet.machine import HOST_VARIABLE
from flows.fleet.timing import TimeOrder, carry_out
from tasks._cache import checkout_sha256
from tasks._run import PROGRESS, Run


@dataclass(frozen=True, kw_only=True)
class Untimed:
    """Why there is no latency."""

    outcome: Literal["skipped", "pending", "failed"]
    reason: str


Answer = BenchmarkRow | Untimed


def time_all(run: Run, versions: list[Promoted]) -> list[Answer]:
    """A latency, or the reason why there is none, for each version."""
    bucket = run.store.bucket if isinstance(run.store, RemoteStore) else None
    machines = {host.card.name: host for host in fleet.registered(bucket)} if bucket else {}
    card = hosts.probe()
    card = dataclasses.replace(card, name=os.environ.get(HOST_VARIABLE) or card.name)
    answers: dict[int, Answer] = {}
    children: dict[int, Child] = {}
    for number, one in enumerate(versions):
        if reason := _unfit(one):
            answers[number] = Untimed(outcome="skipped", reason=reason)
        elif bucket and one.machine in machines:
            children[number] = _child(bucket, one, machines[one.machine])
        elif one.machine == card.name:
            try:
                answers[number] = carry_out(run, _order(one), card).rows[0]
            except EngineworksError as error:
                answers[number] = Untimed(outcome="failed", reason=error.line)
        else:
            answers[number] = _nowhere(one, bucket)
    if bucket and children:
        answers |= _elsewhere(bucket, children)
    return [answers[number] for number in range(len(versions))]


def _unfit(one: Promoted) -> str:
    """What a version lacks to be timed and compared; empty when nothing."""
    if not (one.sha256 and one.machine and one.run_id):
        return "it does not say which engine it is and where it was built; ship its recipe again"
    if one.size is None or one.p50_ms <= 0:
        return "it was registered without a latency at batch 1, so there is nothing to compare with"
    return ""


def _nowhere(one: Promoted, bucket: Bucket | None) -> Untimed:
    if bucket is None:
        return Untimed(
            outcome="skipped",
            reason=f"it was built on {one.machine}, and ENGINEWORKS_STORE, by which that machine "
            "could be asked, is not set",
        )
    return Untimed(
        outcome="pending",
        reason=f"no worker: {one.machine}, on which it was built, is not registered",
    )


def _order(one: Promoted) -> TimeOrder:
    assert one.size is not None  # noqa: S101 - `_unfit` has looked
    return TimeOrder(
        engine_sha256=one.sha256,
        name=one.variant,
        target=one.target,
        precision=one.precision,
        size=one.size,
        threads=one.threads,
        asked_at=datetime.now(timezone.utc).isoformat(),
        checkout_sha256=checkout_sha256(),
    )


def _child(bucket: Bucket, one: Promoted, host: RegisteredHost) -> Child:
    reason = absence(host, checkout_sha256())
    order = _order(one)
    if not reason:
        fleet.put_order(bucket, order.sha256, order)
    return Child(order.name, host.card.name, host.pool, order.sha256, pending=reason)


def _elsewhere(bucket: Bucket, children: dict[int, Child]) -> dict[int, Answer]:
    """Have the machines asked, each for one engine at a time: its queue sees to that."""
    waiting = [child for child in children.values() if child.open]
    try:
        FanOut(bucket, waiting, "benchmark", _show, flow="time-engine").carry_out()
    finally:
        for child in waiting:  # asked once: the series is in MLflow
            fleet.end_order(bucket, child.order)
    return {number: _answer(child) for number, child in children.items()}


def _answer(child: Child) -> Answer:
    if child.row is None:
        return Untimed(outcome="pending", reason=child.pending)
    return _latency(child.row)


def _show(child: Child) -> None:
    """Tell whoever watches."""
    assert child.row is not None  # noqa: S101 - that is when it is called
    row = child.row
    whole = StageTiming.whole("time-engine", child.name, row.wall_s, cached=False)
    words = f"p50 {_latency(row).p50_ms:.3g} ms on {row.host.name}"
    PROGRESS.get().finished(f"time-engine {child.name}", whole, words)


def _latency(row: Row) -> BenchmarkRow:
    assert isinstance(row.found, Benchmark)  # noqa: S101 - its order asked for a latency
    return row.found.rows[0]
