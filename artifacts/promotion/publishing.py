"""What the generation records say is live, as signed metadata for devices.

Each record's champion becomes the target of its variant: the generation is the record's, the head
of its log is signed with it, and the versions that were live and good before may be gone back to.
Knows MLflow, records and the signing side of delivery, no gates.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from artifacts.promotion import evidence, ledger, projection
from artifacts.promotion.conditional import Place
from artifacts.promotion.evidence import Evidence
from artifacts.promotion.ledger import Generation
from artifacts.registry.mlflow_log import client, engine_path, speaking
from artifacts.table import main_row
from engineworks import store as stores
from engineworks.delivery.repository import Repository
from engineworks.delivery.target import SignedTarget
from engineworks.errors import ArtifactError, EngineworksError
from engineworks.facts.plan import slug
from engineworks.store import LocalStore

#: Versions that a device may go back to, at most.
MOST_BACK = 3


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What became of one variant."""

    model: str
    variant: str
    version: str
    generation: int
    outcome: Literal["published", "unchanged", "dropped", "passes", "failed"]
    """dropped: nothing is live any more, and devices keep what they run; passes: it would be
    published."""
    reason: str


def publish(
    home: Path, store: LocalStore, place: Place, repository: Repository, model: str, *,
    variant: str = "", dry_run: bool = False, now: bool = False,
) -> list[Publication]:  # fmt: skip
    """Sign and publish what is live of a model.

    Args:
        home: State folder.
        store: Where engines lie; what it lacks comes from MLflow, verified.
        place: Where the records lie.
        repository: What devices read.
        model: Registered model.
        variant: One variant; empty: all.
        dry_run: Only say what would be published.
        now: Devices take it as soon as they hear of it, and do not watch it.

    Returns:
        One for each variant that was ever promoted; one that failed stops no other.
    """
    publications = []
    for record in ledger.all_of(place, model):
        if variant not in ("", record.variant):
            continue
        try:
            projection.verify(home, place, record)  # a log that was rewritten is not signed
            outcome, reason = _one(home, store, repository, record, dry_run, now)
        except EngineworksError as error:
            outcome, reason = "failed", error.line
        publications.append(
            Publication(
                model=model, variant=record.variant, version=record.champion,
                generation=record.number, outcome=outcome, reason=reason,
            )
        )  # fmt: skip
    return publications


def _one(
    home: Path,
    store: LocalStore,
    repository: Repository,
    record: Generation,
    dry_run: bool,
    now: bool,
) -> tuple[Any, str]:
    before = repository.target(record.model, record.variant)
    if not record.champion:
        if before is None:
            return "unchanged", "nothing is live, and nothing is published"
        if not dry_run:
            repository.drop(record.model, record.variant)
        return "passes" if dry_run else "dropped", "nothing is live any more"
    if before is not None and (before.generation, before.head) == (record.number, record.head):
        return "unchanged", f"generation {record.number} is published"
    known = evidence.read(home, record.model, record.champion, record.variant)
    said = replace(_said(home, record, known), now=now)
    if dry_run:
        return "passes", f"{said.sha256[:12]}..., back to {len(said.allowed)} others"
    path = engine_path(record.variant)
    row = known.variant.sealed
    with contextlib.ExitStack() as held:
        folder = held.enter_context(_folder(home, store, record, path, said.sha256))
        test = None
        if row is not None and row.sha256:
            place = f"sealed/{slug(record.variant)}"
            test = held.enter_context(_folder(home, store, record, place, row.sha256))
        repository.put(record.model, record.variant, folder, said, test)
    proof = "with its sealed test" if test else "without a sealed test"
    return "published", f"{said.sha256[:12]}... {proof}, back to {len(said.allowed)} others"


def _said(home: Path, record: Generation, known: Evidence) -> SignedTarget:
    row = main_row(known.variant, known.size)
    allowed: list[str] = []
    with speaking(home):
        mlflow = client(home)
        for version in reversed(record.stack):
            if len(allowed) < MOST_BACK and not evidence.unusable(mlflow, record.model, version):
                allowed.append(
                    mlflow.get_model_version(record.model, version).tags.get("sha256", "")
                )
    sha256 = known.manifest.sha256
    return SignedTarget(
        model=record.model, variant=record.variant, version=record.champion, sha256=sha256,
        generation=record.number, head=record.head, threads=known.threads,
        p50_us=round((row.p50_ms if row else 0.0) * 1e3), machine=known.standing.machine,
        allowed=tuple(digest for digest in dict.fromkeys(allowed) if digest not in ("", sha256)),
    )  # fmt: skip


@contextmanager
def _folder(
    home: Path, store: LocalStore, record: Generation, path: str, sha256: str
) -> Iterator[Path]:
    """An artifact's folder, verified: from the store, else from the version's run in MLflow."""
    folder = _stored(store, sha256)
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as work:
        with speaking(home):
            mlflow = client(home)
            version = mlflow.get_model_version(record.model, record.champion)
            fetched = Path(mlflow.download_artifacts(version.run_id, path, work))
        stores.verify(fetched, sha256)
        yield fetched  # what goes wrong with it is not MLflow's fault


def _stored(store: LocalStore, sha256: str) -> Path | None:
    try:
        store.fetch(sha256)
        return store.open(store.get(sha256))
    except ArtifactError:  # not there, or damaged
        return None
