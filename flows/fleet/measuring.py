"""Who measures an engine: the machine that built it, by an order or right here.

A machine that is away holds up no other. Knows the fan-out; judges nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.store.remote import RemoteStore
from artifacts.store.s3 import Bucket
from artifacts.summary import StageTiming
from engineworks import hosts
from engineworks.errors import EngineworksError
from engineworks.facts.host import RegisteredHost
from engineworks.plan import absence
from flows.fleet.fanout import Child, FanOut
from flows.fleet.machine import this_machine
from flows.fleet.timing import Timed, TimeOrder, carry_out, words
from tasks._cache import checkout_sha256
from tasks._run import PROGRESS, Run


@dataclass(frozen=True, kw_only=True)
class Untimed:
    """Why there is no measurement."""

    outcome: Literal["skipped", "pending", "failed"]
    reason: str


def measure(run: Run, wanted: Sequence[tuple[str, TimeOrder]], tag: str) -> list[Timed | Untimed]:
    """What each order found, or why it found nothing.

    Args:
        run: The run.
        wanted: (machine that built the engine, what is asked of it).
        tag: Of the runs on other machines, for people.
    """
    bucket = run.store.bucket if isinstance(run.store, RemoteStore) else None
    machines = {host.card.name: host for host in fleet.registered(bucket)} if bucket else {}
    card = dataclasses.replace(hosts.probe(), name=this_machine())
    answers: dict[int, Timed | Untimed] = {}
    children: dict[int, Child] = {}
    for number, (machine, order) in enumerate(wanted):
        if bucket and machine in machines:
            children[number] = _child(bucket, order, machines[machine])
        elif machine == card.name:
            try:
                answers[number] = carry_out(run, order, card)
            except EngineworksError as error:
                answers[number] = Untimed(outcome="failed", reason=error.line)
        else:
            answers[number] = _nowhere(machine, bucket)
    if bucket and children:
        _ask(bucket, children, tag)
    answers |= {number: _answer(child) for number, child in children.items()}
    return [answers[number] for number in range(len(wanted))]


def _nowhere(machine: str, bucket: Bucket | None) -> Untimed:
    if bucket is None:
        return Untimed(
            outcome="skipped",
            reason=f"it was built on {machine}, and ENGINEWORKS_STORE, by which that machine "
            "could be asked, is not set",
        )
    return Untimed(
        outcome="pending",
        reason=f"no worker: {machine}, on which it was built, is not registered",
    )


def _child(bucket: Bucket, order: TimeOrder, host: RegisteredHost) -> Child:
    reason = absence(host, checkout_sha256())
    if not reason:
        fleet.put_order(bucket, order.sha256, order)
    return Child(order.name, host.card.name, host.pool, order.sha256, pending=reason)


def _ask(bucket: Bucket, children: dict[int, Child], tag: str) -> None:
    """Have the machines asked, each for one order at a time: its queue sees to that."""
    waiting = [child for child in children.values() if child.open]
    try:
        FanOut(bucket, waiting, tag, _show, flow="time-engine").carry_out()
    finally:
        for child in waiting:  # asked once: what it found goes to MLflow
            fleet.end_order(bucket, child.order)


def _answer(child: Child) -> Timed | Untimed:
    if child.row is None:
        return Untimed(outcome="pending", reason=child.pending)
    return _timed(child.row)


def _show(child: Child) -> None:
    """Tell whoever watches."""
    assert child.row is not None  # noqa: S101 - that is when it is called
    row = child.row
    whole = StageTiming.whole("time-engine", child.name, row.wall_s, cached=False)
    said = f"{words(_timed(row))} on {row.host.name}"
    PROGRESS.get().finished(f"time-engine {child.name}", whole, said)


def _timed(row: Row) -> Timed:
    assert isinstance(row.found, Timed)  # noqa: S101 - its order asked for one
    return row.found
