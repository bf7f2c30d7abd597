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
from artifacts.summary import Engine, StageTiming, Variant
from engineworks import recipe as recipes
from engineworks import targets
from engineworks.codec import digest
from engineworks.errors import ArtifactError, StoreError
from engineworks.facts.host import HostCard, RegisteredHost
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.recipe import Loaded
from engineworks.store import LocalStore
from flows.fleet import order as orders
from flows.fleet.fanout import Child, FanOut
from flows.fleet.order import Luggage
from flows.steps.prepare import Model
from tasks._cache import checkout_sha256
from tasks._run import PROGRESS, Run

log = logging.getLogger("engineworks.flow")


def plan(loaded: Loaded, store: LocalStore, host: HostCard | None = None) -> Plan:
    """Which machine builds what, by the cards that are registered now.

    Args:
        loaded: The recipe.
        store: The store that all machines share.
        host: Card of the machine that prepares the model; left out: this one's.

    Raises:
        StoreError: There is no store that machines could share.
    """
    registered = fleet.registered(shared(store).bucket)
    return recipes.plan(loaded, host, registered=registered, code_sha256=checkout_sha256())


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
class Built:
    """What came of a fan-out."""

    plan: Plan
    """As it was carried out."""
    variants: list[Variant]
    """A row per variant, in the plan's order."""
    waiting: tuple[str, ...]
    """Those that wait for a machine, by name."""


def build_elsewhere(
    run: Run, loaded: Loaded, host: HostCard, model: Model, sized: list[Model], luggage: Luggage
) -> Built:
    """Have every variant built on its machine; what is known already is asked of none.

    Args:
        run: The run.
        loaded: The recipe.
        host: Card of the machine that prepared the model.
        model: The prepared model.
        sized: The same at further sizes.
        luggage: Photos and code, packed.
    """
    bucket = shared(run.store).bucket
    registered = fleet.registered(bucket)  # some may have come since the run began
    now = recipes.plan(loaded, host, registered=registered, code_sha256=checkout_sha256())
    begun = time.monotonic()
    children = []
    for planned in now.variants:
        if planned.action == "skip":
            children.append(Child(planned, "", pending="-"))
            continue
        order = orders.write(loaded, now, planned, model, sized, luggage, checkout_sha256())
        fleet.put_order(bucket, order.sha256, order)
        child = Child(planned, order.sha256, pending=planned.reason)
        answers = [
            row
            for row in fleet.rows(bucket, order.sha256)
            if row.host.name == planned.host or not planned.everywhere
        ]
        child.row = _known(run.store, planned, answers, registered)
        child.refused = any(row.host.name == planned.host for row in answers)
        _show(run, child, cached=True)
        children.append(child)
    waiting = [child for child in children if child.open]
    FanOut(bucket, waiting, loaded.recipe.name, lambda child: _show(run, child)).carry_out()
    run.waited_s += time.monotonic() - begun
    return Built(
        plan=now,
        variants=[_variant(run, child) for child in children],
        waiting=tuple(
            child.planned.name
            for child in children
            if child.row is None and child.planned.action != "skip"
        ),
    )


def _show(run: Run, child: Child, *, cached: bool = False) -> None:
    """Note a row that has come, and tell whoever watches."""
    if child.row is None:
        return
    row, name = child.row, child.planned.name
    for timing in row.stages:
        spent_s = 0.0 if cached else timing.elapsed_s
        run.elsewhere.append(
            dataclasses.replace(
                timing, variant=name, cached=cached or timing.cached, elapsed_s=spent_s
            )
        )
    whole = StageTiming(
        name="build-target", variant=name, elapsed_s=row.wall_s, cached=cached, peak_mib=0.0, log=""
    )
    words = f"{row.variant.verdict} on {row.host.name}"
    PROGRESS.get().finished(f"build-target {name}", whole, words)


def _known(
    store: LocalStore, planned: PlannedVariant, answers: list[Row], registered: list[RegisteredHost]
) -> Row | None:
    """An earlier answer that still holds: the same machine would find the same again."""
    cards = {host.card.name: host.card for host in registered}
    for row in answers:
        if row.variant.verdict in ("shipped", "rejected") and _same(
            row, cards.get(row.host.name), planned.target
        ):
            try:
                if row.variant.engine is not None:
                    store.get(row.variant.engine.sha256)
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


def _variant(run: Run, child: Child) -> Variant:
    """The row of a variant in this run's table."""
    planned, row = child.planned, child.row
    if row is None:
        skipped = planned.action == "skip"
        return Variant(
            name=planned.name,
            target=planned.target,
            precision=planned.precision,
            required=planned.required,
            verdict="skipped" if skipped else "pending",
            reason=planned.reason if skipped else child.pending,
        )
    engine = row.variant.engine
    if engine is not None:
        here = run.store.get(engine.sha256)
        engine = Engine(sha256=engine.sha256, size_bytes=engine.size_bytes, uri=here.uri)
    return dataclasses.replace(
        row.variant, name=planned.name, required=planned.required, engine=engine
    )
