"""The fan-out: a child run per variant on its machine, and the rows that come back.

A machine that is missing, late or lost makes its variants `pending` and holds up no other; they
are completed by the next run of the same recipe. Knows Prefect's deployments and run states.
"""

from __future__ import annotations

import dataclasses
import logging
import time

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.remote_store import RemoteStore
from artifacts.s3 import Bucket
from artifacts.summary import Engine, StageTiming, Variant
from engineworks import recipe as recipes
from engineworks import targets
from engineworks.codec import digest
from engineworks.errors import ArtifactError, StoreError
from engineworks.recipe import Loaded
from engineworks.store import LocalStore
from engineworks.values import HostCard, Plan, PlannedVariant, RegisteredHost
from flows import _order
from flows._common import Model
from flows._fanout import Child, FanOut
from tasks._cache import checkout_sha256
from tasks._run import PROGRESS, Run

log = logging.getLogger("engineworks.flow")


def plan(loaded: Loaded, store: LocalStore) -> Plan:
    """Which machine builds what, by the cards that are registered now.

    Raises:
        StoreError: There is no store that machines could share.
    """
    registered = fleet.registered(_bucket(store))
    return recipes.plan(loaded, registered=registered, code_sha256=checkout_sha256())


def _bucket(store: LocalStore) -> Bucket:
    if not isinstance(store, RemoteStore):
        raise StoreError(
            "--fleet needs a store that all machines reach; ENGINEWORKS_STORE is not set",
            hint="set ENGINEWORKS_STORE=s3://bucket/prefix here and for every worker "
            "(docs/fleet.md)",
        )
    return store.bucket


def build_elsewhere(
    run: Run, loaded: Loaded, earlier: Plan, model: Model, sized: list[Model]
) -> tuple[Plan, list[Variant]]:
    """Have every variant built on its machine.

    Args:
        run: The run.
        loaded: The recipe.
        earlier: The plan that the run began with.
        model: The prepared model.
        sized: The same at further sizes.

    Returns:
        The plan as it was carried out, and a row per variant in its order.
    """
    bucket = _bucket(run.store)
    registered = fleet.registered(bucket)  # some may have come since the run began
    now = recipes.plan(loaded, earlier.host, registered=registered, code_sha256=checkout_sha256())
    luggage = _order.pack_luggage(run.store, loaded, model)
    begun = time.monotonic()
    children = []
    for planned in now.variants:
        if planned.action == "skip":
            children.append(Child(planned, "", pending="-"))
            continue
        order = _order.write(loaded, now, planned, model, sized, luggage, checkout_sha256())
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
    return now, [_variant(run, child) for child in children]


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
    packages = targets.load(target).PACKAGES
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
