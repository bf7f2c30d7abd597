"""What may go of everything that runs leave behind, and its removal: four places, one list.

A place that cannot be asked stops all: what a registered version needs must be known first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from prefect.client.orchestration import get_client

from artifacts import prune_prefect
from artifacts.promotion import restorable
from artifacts.promotion.conditional import place
from artifacts.registry import prune_mlflow
from artifacts.store import prune_bucket, prune_home
from artifacts.store.prune_home import Item
from artifacts.store.remote import RemoteStore
from flows.steps.deliver import REPOSITORY
from tasks import _run

Place = Literal["home", "bucket", "mlflow", "prefect"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is kept beside what is in use."""

    last: int = 20
    """Runs of every model."""
    days: float = 30.0
    """For how long objects of the bucket and runs of Prefect must not have been used."""
    versions: int = restorable.LAST
    """Versions of every variant's history that can be gone back to."""
    same_registry: tuple[str, ...] = ()
    """Other addresses, in summaries, of the registry that is asked."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What may go, by place."""

    items: dict[Place, list[Item]] = field(default_factory=dict)

    @property
    def all(self) -> list[Item]:
        """Everything."""
        return [item for items in self.items.values() for item in items]


def plan(keep: Keep, places: tuple[Place, ...] = PLACES) -> Removal:
    """Look what may go; removes nothing.

    Raises:
        StoreError: MLflow or the bucket does not answer.
    """
    home, store = _run.home(), _run.open_home_store()
    bucket = store.bucket if isinstance(store, RemoteStore) else None
    folders = [folder for some in prune_home.runs(home, 1) for folder in some]
    prune_mlflow.refuse_another(home, folders, keep.same_registry)
    registered, let_go = _registry(keep)
    needs = prune_mlflow.needed(registered, let_go)
    kept, _ = prune_home.runs(home, keep.last)
    needed = {*needs.engines, *prune_home.named_in(kept)}
    logged = frozenset({*needs.runs, *prune_home.logged_in(kept)})
    ask: dict[Place, Callable[[], list[Item]]] = {
        "home": lambda: prune_home.plan(home, keep.last, needed),
        "mlflow": lambda: prune_mlflow.plan(home, keep.last, logged, registered),
        "prefect": lambda: _of_prefect(home, keep),
    }
    if bucket is not None:
        there = bucket
        ask["bucket"] = lambda: prune_bucket.plan(there, keep.days, needed)
    removal = {place: ask[place]() for place in PLACES if place in places and place in ask}
    if bucket is not None and "home" in removal:
        # What is nowhere else stays; the rest can be fetched again.
        elsewhere = {item.key.rpartition("/")[2] for item in bucket.list("artifacts/")}
        removal["home"] = [
            item
            for item in removal["home"]
            if item.kind != "artifact" or f"{item.name}.json" in elsewhere
        ]
    return Removal(items=removal)


def _registry(
    keep: Keep,
) -> tuple[list[prune_mlflow.RegisteredVersion], frozenset[tuple[str, str]]]:
    """All versions, and (model, version) of those that were live long ago and nothing holds."""
    home, store = _run.home(), _run.open_home_store()
    registered = prune_mlflow.versions(home)
    histories = restorable.pasts(home, place(store, home), (item.model for item in registered))
    folder = os.environ.get(REPOSITORY, "")
    published = restorable.signed(Path(folder)) if folder and histories else set()
    return registered, restorable.let_go(registered, histories, published, keep.versions)


def _of_prefect(home: Path, keep: Keep) -> list[Item]:
    if "PREFECT_API_URL" not in os.environ and not (home / "prefect" / "prefect.db").exists():
        return []  # asking would make one
    with get_client(sync_client=True) as client:
        return prune_prefect.plan(client, keep.days, keep.last)


def take(keep: Keep, removal: Removal) -> list[Item]:
    """Remove what a plan names and nobody has begun to use since; gives what has gone.

    It is planned once more first: somebody may have gone back to an old version meanwhile.

    Raises:
        StoreError: MLflow or the bucket does not answer.
    """
    home, store = _run.home(), _run.open_home_store()
    now = plan(keep, tuple(removal.items))
    still = {(item.kind, item.name, item.detail) for item in now.all}
    removal = Removal(
        items={
            at: [item for item in items if (item.kind, item.name, item.detail) in still]
            for at, items in removal.items.items()
        }
    )
    gone = []
    if items := removal.items.get("mlflow"):
        gone += prune_mlflow.take(home, items, _registry(keep)[1])
    if items := removal.items.get("home"):
        gone += prune_home.take(home, items)
    if (items := removal.items.get("bucket")) and isinstance(store, RemoteStore):
        gone += prune_bucket.take(store.bucket, keep.days, items)
    if items := removal.items.get("prefect"):
        with get_client(sync_client=True) as client:
            gone += prune_prefect.take(client, items)
    return gone


def words(items: list[Item]) -> list[str]:
    """A line for each kind: how many, and how much."""
    lines = []
    for kind in dict.fromkeys(item.kind for item in items):
        sizes = [item.size_bytes for item in items if item.kind == kind]
        size = f"{sum(sizes) / 2**20:.1f} MiB" if any(sizes) else "size not known"
        lines.append(f"{len(sizes):>6} {kind}{'s' if len(sizes) != 1 else '':<1}, {size}")
    lost = sorted(title for item in items for title in item.versions)
    if lost:
        lines.append(f"Nobody can go back to these versions without them: {', '.join(lost)}")
    return lines
