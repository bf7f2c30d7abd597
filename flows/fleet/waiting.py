"""What of a run waits for machines: one small record per model, enough to finish from the store.

Written by `ship --fleet` when variants are left without a machine, read by `complete`. Holds no
bytes: graphs, samples, photos and code are artifacts. A variant that was built and that its
machine can never open waits for nobody's return, and makes no record.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import fleet
from artifacts.registry import mlflow_log
from artifacts.registry.databases import embedded
from artifacts.store.s3 import Bucket
from engineworks import hosts
from engineworks.codec import to_json
from engineworks.facts.host import HostCard
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.recipe import Loaded, Recipe
from flows.fleet.order import Luggage
from flows.steps.prepare import Model
from tasks._cache import checkout_sha256
from tasks._run import home


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A run that is finished but for some variants."""

    variants: tuple[str, ...]
    """Names of the rows that wait for a machine."""
    recipe: dict[str, Any]
    """The resolved recipe."""
    recipe_text: str
    """As its author wrote it."""
    recipe_origin: str
    """The file that it was read from, on the machine `host`."""
    recipe_sha256: str
    host: HostCard
    """The machine that prepared the model."""
    model: Model
    sized: tuple[Model, ...]
    luggage: Luggage
    tracking_uri: str
    """The MLflow that the run was logged to, without passwords."""
    checkout_sha256: str

    @property
    def name(self) -> str:
        """Name of the model; a newer run of the same model replaces the record."""
        return self.model.shared.name

    def loaded(self, path: Path, folder: Path) -> Loaded:
        """The recipe, without its file and folder of then."""
        return Loaded(
            recipe=Recipe.model_validate(self.recipe),
            path=path,
            folder=folder,
            labels=self.model.shared.labels,
            sha256=self.recipe_sha256,
            text=self.recipe_text,
            origin=self.recipe_origin,
        )


def of(
    loaded: Loaded, host: HostCard, model: Model, sized: list[Model], luggage: Luggage,
    variants: tuple[str, ...],
) -> Waiting:  # fmt: skip
    """The record of a run, for the variants that wait."""
    return Waiting(
        variants=variants,
        recipe=to_json({name: getattr(loaded.recipe, name) for name in Recipe.model_fields}),
        recipe_text=loaded.text,
        recipe_origin=loaded.origin,
        recipe_sha256=loaded.sha256,
        host=host,
        model=model,
        sized=tuple(sized),
        luggage=luggage,
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
        or f"{planned.target}/{planned.precision}" in record.variants
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
    same = here == record.tracking_uri and hosts.probe().name == record.host.name
    if not files or same:
        return ""
    return (
        f"it was logged to MLflow at {record.tracking_uri} by {record.host.name}, and this "
        f"machine's is {here}"
    )
