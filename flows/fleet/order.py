"""What a machine of the fleet is asked: one variant of a prepared run, by reference.

An order is small JSON. Its digest covers what it means and not where things lie, so two runs of
one recipe give the same order, and it is built once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engineworks import plan as planning
from engineworks.codec import digest
from engineworks.facts.host import HostCard
from engineworks.facts.plan import PlannedVariant
from engineworks.prepared import PreparedRun
from engineworks.store import LocalStore
from flows.fleet.attachments import unpack
from flows.steps.variant import job_of
from tasks._cache import checkout_sha256
from tasks._job import Job, VariantJob
from tasks._run import open_run


@dataclass(frozen=True, kw_only=True)
class Order:
    """One variant for one kind of machine."""

    prepared: PreparedRun
    """With the variant's target only."""
    precision: str
    checkout_sha256: str

    @property
    def sha256(self) -> str:
        """Identity of the order."""
        return digest(self)


def write(prepared: PreparedRun, planned: PlannedVariant) -> Order:
    """The order of one variant."""
    return Order(
        prepared=prepared.only(planned),
        precision=planned.precision,
        checkout_sha256=checkout_sha256(),
    )


def take(order: Order, store: LocalStore, card: HostCard) -> tuple[VariantJob, PreparedRun]:
    """An order as the work of this machine: every path leads somewhere here.

    Raises:
        ArtifactError: Something of it is nowhere, or damaged.
        StoreError: The store cannot be reached, or the disk is full.
    """
    prepared, folder = unpack(order.prepared, store)
    loaded = prepared.loaded(Path(prepared.name), folder)
    variants = tuple(variant for spec in loaded.recipe.targets for variant in planning.rows(spec))
    planned = next(variant for variant in variants if variant.precision == order.precision)
    job = Job(run=open_run(prepared.name, store), loaded=loaded, host=card)
    return job_of(job, planned, variants), prepared
