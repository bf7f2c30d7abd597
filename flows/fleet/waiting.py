"""What of a run waits for machines: one small record per model, enough to finish from the store.

Written by `ship --fleet` when variants are left without a machine, read by `complete`. Holds no
bytes: graphs, samples, photos and code are artifacts. A variant that was built and that its
machine can never open waits for nobody's return, and makes no record.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from artifacts import fleet
from artifacts.registry import mlflow_log
from artifacts.registry.databases import embedded
from artifacts.store.s3 import Bucket
from engineworks import hosts
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.prepared import PreparedRun
from tasks._cache import checkout_sha256
from tasks._run import home


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A run that is finished but for some variants."""

    variants: tuple[str, ...]
    """Names of the rows that wait for a machine."""
    prepared: PreparedRun
    tracking_uri: str
    """The MLflow that the run was logged to, without passwords."""
    checkout_sha256: str

    @property
    def name(self) -> str:
        """Name of the model; a newer run of the same model replaces the record."""
        return self.prepared.name


def of(prepared: PreparedRun, variants: tuple[str, ...]) -> Waiting:
    """The record of a run, for the variants that wait."""
    return Waiting(
        variants=variants,
        prepared=prepared,
        tracking_uri=mlflow_log.public_uri(home()),
        checkout_sha256=checkout_sha256(),
    )


def keep(bucket: Bucket, record: Waiting, etag: str = "") -> None:
    """Write a record, or remove it when nothing waits any more.

    Args:
        bucket: The bucket.
        record: What waits now.
        etag: Of the record that this one follows; one of a newer run is then left as it is.
    """
    if record.variants:
        fleet.put_waiting(bucket, record.name, record, etag)
    else:
        fleet.end_waiting(bucket, record.name, etag)


def read(bucket: Bucket, name: str) -> tuple[Waiting, str] | None:
    """A model's record and its etag; None when nothing of it waits.

    Raises:
        ArtifactError: It is of another version of the checkout.
    """
    return fleet.read_waiting(bucket, name, Waiting, checkout_sha256())


def concerned(record: Waiting, plan: Plan) -> list[PlannedVariant]:
    """What a new plan says of the variants that wait.

    One that had no machine at all waits by the name without a machine, and may get several.
    """
    return [
        planned
        for planned in plan.variants
        if planned.name in record.variants
        or dataclasses.replace(planned, everywhere=False).name in record.variants
    ]


def ready(record: Waiting, plan: Plan) -> bool:
    """Whether a machine could take one of them now."""
    return any(planned.action == "run" for planned in concerned(record, plan))


def foreign_mlflow(record: Waiting) -> str:
    """Why this machine must not log what the run began; empty when it may.

    Without a server, MLflow is a file of one machine: versions would be registered where nobody
    looks for them. Servers may have several addresses, so these are not compared.
    """
    here = mlflow_log.public_uri(home())
    files = [uri for uri in (here, record.tracking_uri) if embedded(uri)]
    same = here == record.tracking_uri and hosts.probe().name == record.prepared.host.name
    if not files or same:
        return ""
    return (
        f"it was logged to MLflow at {record.tracking_uri} by {record.prepared.host.name}, and "
        f"this machine's is {here}"
    )
