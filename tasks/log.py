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
from tasks._cache import logging_sha256, stage_key
from tasks._job import Job
from tasks._run import home
from tasks._stage import OPTIONS, StageTask

told = logging.getLogger("engineworks.flow")

#: Files of a run's folder: the recipe that ran, as it was written and as it was understood.
RECIPE, RESOLVED = "recipe.yaml", mlflow_log.RESOLVED


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
    folder: str = place()
    """The run's, with summary.json, report and recipe."""
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
    reason = mlflow_wait.patiently(home, ask)
    if reason:
        told.warning("logging it again: %s", reason)
    else:
        confirmed.keep(home, summary.name, before)
    return not reason


def _alone(request: LogRequest, store: LocalStore) -> AbstractContextManager[None]:
    if isinstance(store, RemoteStore):
        return fleet.alone(store.bucket, f"log-{request.name}")
    return alone(Path(request.home) / "log.lock")


# `patiently` begins again by itself when a server does not answer.
@task(name="log", retries=0, **OPTIONS)
def _log(request: LogRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Log a run's facts to MLflow and register what is shipped; the same facts are logged once."""
    started = time.perf_counter()
    where = Path(request.folder)
    summary: Summary = summaries.read(where / "summary.json")
    store = open_store(Path(request.store))
    files = {name: where / name for name in ("report.html", RECIPE, RESOLVED)}
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


TASK = StageTask[LogRequest, Published](_log, Published)


def log(job: Job, summary: Summary, owner: Owner) -> Published:
    """Log a run's facts, unless MLflow has them; its files lie in the run's folder.

    Args:
        job: The run.
        summary: Its facts, written to the folder.
        owner: Who the recipe is to the registry.

    Raises:
        StoreError: MLflow does not answer, or has another model of this name.
    """
    run, root = job.run, home()
    request = LogRequest(
        name=summary.name,
        recipe_sha256=summary.recipe_sha256,
        variants=summary.variants,
        comparison=summary.comparison,
        source=_source(summary),
        tracking_uri=mlflow_log.public_uri(root),
        code_sha256=logging_sha256(),
        owner=owner,
        folder=str(run.folder),
        store=str(run.store.root),
        home=str(root),
    )

    def valid(value: Published) -> bool:
        return still_true(value, summary, root, owner)

    return TASK.call(run, request, job.recipe.limits.check_s, note=_note, valid=valid)


def _note(value: Published) -> str:
    registered = value.registered.values()
    aliases = "".join(f", {entry.alias} -> version {entry.version}" for entry in registered)
    return f"MLflow run {value.logged.run_id}{aliases}"


def _source(summary: Summary) -> tuple[str, ...]:
    onnx = summary.simplified.onnx if summary.simplified else summary.exported.onnx
    data = summary.data.sha256 if summary.data else ""
    return (data, summary.reference.artifact.sha256, onnx.sha256)
