"""The fan-out: a child run per variant on its machine, and the rows that come back.

A machine that is missing, late or lost makes its variants `pending` and holds up no other; what
waits is written down by `_waiting` and completed later. Where things lie on the machine that began
is of no concern here: a later run on another machine does the same.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.store.remote import RemoteStore
from artifacts.summary import StageTiming
from engineworks import plan as planning
from engineworks import targets
from engineworks.codec import digest
from engineworks.errors import ArtifactError, StoreError
from engineworks.facts.host import HostCard, RegisteredHost
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.plan import Plan, PlannedVariant, Verdict
from engineworks.prepared import PreparedRun
from engineworks.recipe import Loaded
from engineworks.store import LocalStore
from flows.fleet import order
from flows.fleet.fanout import Child, FanOut
from tasks._cache import checkout_sha256
from tasks._job import Job
from tasks._run import PROGRESS, Run

log = logging.getLogger("engineworks.flow")


def plan(
    loaded: Loaded,
    store: LocalStore,
    host: HostCard | None = None,
    registered: list[RegisteredHost] | None = None,
) -> Plan:
    """Which machine builds what, by the cards that are registered now.

    Args:
        loaded: The recipe.
        store: The store that all machines share.
        host: Card of the machine that prepares the model; left out: this one's.
        registered: The cards, where they were read already.

    Raises:
        StoreError: There is no store that machines could share.
    """
    cards = fleet.registered(shared(store).bucket) if registered is None else registered
    return planning.plan(
        loaded.recipe.targets, host, registered=cards, code_sha256=checkout_sha256()
    )


def shared(store: LocalStore) -> RemoteStore:
    """The store, which must be one that all machines reach.

    Raises:
        StoreError: It is this machine's own.
    """
    if not isinstance(store, RemoteStore):
        raise StoreError(
            "a fleet needs a store that all machines reach; ENGINEWORKS_STORE is not set",
            hint="set ENGINEWORKS_STORE=s3://bucket/prefix here and for every worker "
            "(docs/fleet.md)",
        )
    return store


@dataclass(frozen=True, kw_only=True)
class FannedOut:
    """What came of a fan-out."""

    outcomes: list[VariantOutcome]
    """One per variant, in the plan's order."""
    waiting: tuple[str, ...]
    """Those that wait for a machine, by name."""


def build_elsewhere(job: Job, prepared: PreparedRun) -> FannedOut:
    """Have every variant built on its machine; what is known already is asked of none."""
    run, store = job.run, shared(job.run.store)
    registered = fleet.registered(store.bucket)  # some may have come since the run began
    planned = plan(job.loaded, store, prepared.host, registered).variants
    begun = time.monotonic()
    children = [
        None if variant.action == "skip" else _child(run, prepared, variant, registered)
        for variant in planned
    ]
    asked = [child for child in children if child is not None and child.open]
    FanOut(store.bucket, asked, prepared.name, lambda child: _show(run, child)).carry_out()
    run.waited_s += time.monotonic() - begun
    pairs = list(zip(planned, children, strict=True))
    return FannedOut(
        outcomes=[_outcome(run, variant, child) for variant, child in pairs],
        waiting=tuple(child.name for child in children if child and child.row is None),
    )


def _child(
    run: Run, prepared: PreparedRun, planned: PlannedVariant, registered: list[RegisteredHost]
) -> Child:
    """A variant's order, written; with its row where that is known."""
    bucket = shared(run.store).bucket
    asked = order.write(prepared, planned)
    fleet.put_order(bucket, asked.sha256, asked)
    child = Child(planned.name, planned.host, planned.pool, asked.sha256, pending=planned.reason)
    answers = [
        row
        for row in fleet.rows(bucket, asked.sha256)
        if row.host.name == planned.host or not planned.everywhere
    ]
    child.row = _known(run.store, planned, answers, registered)
    child.refused = any(row.host.name == planned.host for row in answers)
    _show(run, child, cached=True)
    return child


def outcome_of(row: Row) -> VariantOutcome:
    """What a machine found of a variant."""
    assert isinstance(row.found, VariantOutcome)  # noqa: S101 - its order asked for a variant
    return row.found


def _show(run: Run, child: Child, *, cached: bool = False) -> None:
    """Note a row that has come, and tell whoever watches."""
    if child.row is None:
        return
    row = child.row
    for timing in row.stages:
        spent_s = 0.0 if cached else timing.elapsed_s
        run.elsewhere.append(
            dataclasses.replace(
                timing, variant=child.name, cached=cached or timing.cached, elapsed_s=spent_s
            )
        )
    whole = StageTiming.whole("build-target", child.name, row.wall_s, cached=cached)
    ending = f"{outcome_of(row).verdict.verdict} on {row.host.name}"
    PROGRESS.get().finished(f"build-target {child.name}", whole, ending)


def _known(
    store: LocalStore, planned: PlannedVariant, answers: list[Row], registered: list[RegisteredHost]
) -> Row | None:
    """An earlier answer that still holds: the same machine would find the same again."""
    cards = {host.card.name: host.card for host in registered}
    for row in answers:
        outcome = outcome_of(row)
        if outcome.verdict.verdict in ("shipped", "rejected") and _same(
            row, cards.get(row.host.name), planned.target
        ):
            try:
                if outcome.built is not None:
                    store.get(outcome.built.engine.sha256)
            except ArtifactError as error:
                log.warning("%s is built again: %s", planned.name, error.message)
                continue
            return row
    return None


def _same(row: Row, card: HostCard | None, target: str) -> bool:
    if card is None:
        return True  # the machine is gone; what it found about itself was true
    packages = targets.load(target).packages
    same = all(card.packages.get(name) == row.host.packages.get(name) for name in packages)
    return same and digest(card) == digest(row.host)


def _outcome(run: Run, planned: PlannedVariant, child: Child | None) -> VariantOutcome:
    """What became of a variant, as this run's table shows it."""
    if child is None:
        skipped = Verdict(verdict="skipped", reason=planned.reason)
        return VariantOutcome(planned=planned, verdict=skipped)
    if child.row is None:
        pending = Verdict(verdict="pending", reason=child.pending)
        return VariantOutcome(planned=planned, verdict=pending)
    outcome = dataclasses.replace(outcome_of(child.row), planned=planned)
    if outcome.built is None:
        return outcome
    here = dataclasses.replace(outcome.built, engine=run.store.get(outcome.built.engine.sha256))
    return dataclasses.replace(outcome, built=here)
