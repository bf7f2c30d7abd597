"""Log a run's facts to MLflow and register what is shipped; the same facts are logged once."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from artifacts import fleet
from artifacts import summary as summaries
from artifacts.registry import confirmed, mlflow_log, mlflow_wait, versions
from artifacts.registry.ownership import Owner
from artifacts.store.remote import RemoteStore, open_store
from artifacts.summary import Logged, Registered, Summary, Variant
from engineworks.codec import place, to_json
from engineworks.facts.timing import Comparison
from engineworks.store import LocalStore, alone
from tasks import _stage
from tasks._cache import stage_key

told = logging.getLogger("engineworks.flow")


@dataclass(frozen=True, kw_only=True)
class LogRequest:
    """The facts; everything else says where they are."""

    name: str
    recipe_sha256: str
    variants: tuple[Variant, ...]
    comparison: Comparison | None
    source: tuple[str, ...]
    """Digests of data, reference and graph."""
    tracking_uri: str
    code_sha256: str
    """Of `artifacts/` and `tasks/`, which decide what is logged."""
    owner: Owner = place()
    summary: str = place()
    report: str = place()
    recipe: str = place()
    resolved: str = place()
    store: str = place()
    home: str = place()


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the run and its registered versions are in MLflow."""

    logged: Logged
    registered: dict[str, Registered]


def still_true(published: Published, summary: Summary, home: Path, owner: Owner) -> bool:
    """Ask MLflow whether what was logged and registered once is there; says what is not.

    Raises:
        StoreError: It does not answer.
    """

    def ask() -> str:
        with mlflow_log.speaking(home):
            return versions.contradiction(
                summary, published.logged, published.registered, home, owner
            )

    before = confirmed.state(home, summary.name, published.logged.run_id, owner)
    if confirmed.is_known(home, summary.name, before):
        return True
    words = mlflow_wait.patiently(home, ask)
    if words:
        told.warning("logging it again: %s", words)
    else:
        confirmed.keep(home, summary.name, before)
    return not words


def _alone(request: LogRequest, store: LocalStore) -> AbstractContextManager[None]:
    if isinstance(store, RemoteStore):
        return fleet.alone(store.bucket, f"log-{request.name}")
    return alone(Path(request.home) / "log.lock")


# `patiently` begins again by itself when a server does not answer.
@task(name="log", retries=0, **_stage.STAGE)
def log(request: LogRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Log a run's facts to MLflow and register what is shipped; the same facts are logged once."""
    started = time.perf_counter()
    summary: Summary = summaries.read(Path(request.summary))
    store = open_store(Path(request.store))
    files = {
        "report.html": Path(request.report),
        "recipe.yaml": Path(request.recipe),
        "recipe.resolved.json": Path(request.resolved),
    }
    home = Path(request.home)
    key = stage_key("log", request)

    # MLflow has no compare-and-set. Two runs of one recipe at once would each take the other's
    # unfinished run for one that was killed and delete it, and register one engine twice.
    def attempt() -> tuple[Logged, dict[str, Registered]]:
        with mlflow_log.speaking(home), _alone(request, store):
            versions.refuse_another(mlflow_log.client(home), summary.name, request.owner)
            logged = mlflow_log.log_run(summary, store, files, key, home)
            return logged, versions.register(summary, logged, home, request.owner)

    logged, registered = mlflow_wait.patiently(home, attempt)
    confirmed.keep_owner(home, summary.name, request.owner)
    value = Published(logged=logged, registered=registered)
    elapsed_s = time.perf_counter() - started
    return {"value": to_json(value), "elapsed_s": elapsed_s, "peak_mib": 0.0, "folder": ""}
