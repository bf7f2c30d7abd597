"""What of MLflow may go, and what its registry needs of everything else.

A registered version needs its engine, its sealed test, and the run that it came from. Runs that are
not of engineworks are nobody's business here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.registry.databases import embedded, sqlite_url
from artifacts.registry.mlflow_log import KEY_TAG, client, public_uri, speaking, tracking_uri
from artifacts.store.prune_home import YOUNG_S, Item
from engineworks.errors import StoreError

PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """A version, by what `registry` has written on it; empty: it has not."""

    model: str
    version: str
    variant: str
    engine: str
    """Identity."""
    sealed: str
    """Identity of its sealed test."""
    run_id: str
    aliases: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.model} {self.variant} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What registered versions need."""

    engines: frozenset[str]
    """Identities, of sealed tests too."""
    runs: frozenset[str]
    """MLflow's own ids."""


def is_there(home: Path) -> bool:
    """Whether there is an MLflow to ask; asking would make the state folder's own.

    Raises:
        StoreError: A database is named that does not exist.
    """
    uri = tracking_uri(home)
    if not embedded(uri) or _database(uri).exists():
        return True
    if uri != sqlite_url(home / "mlflow.db"):
        raise StoreError(
            f"MLFLOW_TRACKING_URI is {uri}, and there is no such database",
            hint="correct it: what is registered must be known first, so nothing is removed",
        )
    return False


def refuse_another(home: Path, folders: Iterable[Path], same: Collection[str]) -> None:
    """Refuse to go by a registry that is not the one that runs were logged to.

    Args:
        home: State folder.
        folders: Of its runs.
        same: Other addresses of the registry that is asked.

    Raises:
        StoreError: A summary names another registry.
    """
    asked = public_uri(home)
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            logged = str(
                json.loads((folder / "summary.json").read_bytes())["mlflow"]["tracking_uri"]
            )
            if logged in (asked, *same) or _moved_along(home, logged):
                continue
            raise StoreError(
                f"{folder.name} was logged to {logged}, and {asked} is asked what is registered",
                hint=f"set MLFLOW_TRACKING_URI={logged}; or, where both are one registry, give "
                f"--same-registry {logged}",
            )


def _moved_along(home: Path, logged: str) -> bool:
    """Whether a registry was that of a state folder which is this one now, under another name."""
    own = home / "mlflow.db"
    if not embedded(logged) or not own.exists():
        return False
    before = _database(logged)
    return before.name == own.name and not before.exists()


def _database(uri: str) -> Path:
    from sqlalchemy import make_url

    return Path(make_url(uri).database or "")


def versions(home: Path) -> list[RegisteredVersion]:
    """All registered versions.

    Raises:
        StoreError: MLflow does not answer: then nobody knows what may go.
    """
    if not is_there(home):
        return []
    with speaking(home):
        mlflow = client(home)
        known = list(_pages(mlflow.search_model_versions))
        # What a search gives carries no aliases.
        names = {version.name for version in known}
        aliases = {name: mlflow.get_registered_model(name).aliases for name in names}
    return [
        RegisteredVersion(
            model=version.name, version=str(version.version),
            variant=version.tags.get("variant", ""), engine=version.tags.get("sha256", ""),
            sealed=version.tags.get("sealed", ""), run_id=version.run_id or "",
            aliases=tuple(
                alias
                for alias, number in aliases[version.name].items()
                if str(number) == str(version.version)
            ),
        )
        for version in known
    ]  # fmt: skip


def needed(
    registered: Iterable[RegisteredVersion], let_go: Collection[tuple[str, str]] = ()
) -> Needed:
    """What the registry needs.

    Args:
        registered: All versions.
        let_go: (model, version) of those that nothing holds any more.
    """
    kept = [item for item in registered if (item.model, item.version) not in let_go]
    engines = frozenset(sha256 for item in kept for sha256 in (item.engine, item.sealed) if sha256)
    return Needed(engines=engines, runs=frozenset(item.run_id for item in kept))


def plan(
    home: Path, last: int, keep: frozenset[str], registered: Iterable[RegisteredVersion] = ()
) -> list[Item]:
    """Runs of MLflow that may go.

    Args:
        home: State folder.
        last: Runs of every experiment that are kept.
        keep: Ids of runs that are kept in any case.
        registered: All versions, for naming those that cannot be gone back to without their run.

    Raises:
        StoreError: MLflow does not answer.
    """
    if not is_there(home):
        return []
    items = []
    of_run: dict[str, list[str]] = defaultdict(list)
    for version in registered:
        of_run[version.run_id].append(version.title)
    with speaking(home):
        mlflow = client(home)
        for experiment in _pages(mlflow.search_experiments):
            runs = _pages(
                mlflow.search_runs,
                experiment_ids=[experiment.experiment_id],
                order_by=["attributes.start_time DESC"],
            )
            ours = [run for run in runs if KEY_TAG in run.data.tags]
            for run in ours[last:]:
                if run.info.run_id not in keep and _is_old(run):
                    items.append(
                        Item(
                            kind="MLflow run",
                            name=f"{experiment.name} {run.info.run_name}",
                            size_bytes=_size(home, experiment.name, run.info.run_id),
                            detail=run.info.run_id,
                            versions=tuple(of_run.get(run.info.run_id, ())),
                        )
                    )
    return items


def _is_old(run: Any) -> bool:
    ended_ms = run.info.end_time
    return ended_ms is not None and time.time() - ended_ms / 1000 > YOUNG_S


def _pages(ask: Any, **query: Any) -> list[Any]:
    items, token = [], None
    while True:
        page = ask(max_results=PAGE, page_token=token, **query)
        items += page
        token = page.token
        if not token:
            return items


def _size(home: Path, experiment: str, run_id: str) -> int:
    """Bytes of a run's files where they lie on this machine; 0: on a server, which keeps them."""
    folder = home / "mlruns" / experiment / run_id
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def take(home: Path, items: list[Item], let_go: Collection[tuple[str, str]] = ()) -> list[Item]:
    """Remove runs; those that a version needs by now stay.

    Args:
        home: State folder.
        items: As `plan` gives them.
        let_go: See `needed`.

    A server marks them as deleted, and `mlflow gc` there frees their space; the state folder's own
    database gives it back at once.

    Raises:
        StoreError: MLflow does not answer.
    """
    keep = needed(versions(home), let_go).runs  # some may have been registered meanwhile
    gone = [item for item in items if item.detail not in keep]
    if not gone:
        return []
    with speaking(home):
        mlflow = client(home)
        for item in gone:
            mlflow.delete_run(item.detail)
    uri = tracking_uri(home)
    if uri.startswith("sqlite:"):
        ids = ",".join(item.detail for item in gone)
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri,
             "--tracking-uri", uri, "--run-ids", ids],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise StoreError(
                f"mlflow gc: {' '.join(done.stderr.split())[-300:]}",
                hint="the runs are marked as deleted; run mlflow gc by hand to free their space",
            )
        for item in gone:  # gc leaves empty folders
            for folder in (home / "mlruns").glob(f"*/{item.detail}"):
                shutil.rmtree(folder, ignore_errors=True)
    return gone
