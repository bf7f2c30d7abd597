"""What of a state folder may go: old runs, what only they need, and what is left of both.

Kept are the last runs of every model, every run that goes on, what one of these names in its
files, what the caller names (registered versions, what waits), and the parents of all that. Knows
folders, locks and identities; neither Prefect nor MLflow.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.store.cache import Cache, is_locked
from engineworks import manifest as manifests
from engineworks.errors import ArtifactError

IDENTITY = re.compile(r"[0-9a-f]{64}")
#: Files of a run that name what it needs.
NAMING = ("summary.json", "logs/*/request.json", "logs/*/result.json")
#: Seconds since its last use before anything may go: a stage that has just made it has said so
#: to nobody yet.
YOUNG_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that may go."""

    kind: str
    """run, artifact, stage result, search, recipe folder; and those of the bucket, MLflow and
    Prefect."""
    name: str
    size_bytes: int = 0
    detail: str = ""
    """What else its own part must know to take it."""
    versions: tuple[str, ...] = ()
    """Registered versions that nobody can go back to without it."""


def runs(home: Path, last: int) -> tuple[list[Path], list[Path]]:
    """Folders of runs: kept, and those that may go.

    Args:
        home: State folder.
        last: How many of every model are kept.
    """
    by_model: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted((home / "runs").glob("*")):
        if folder.is_dir() and not folder.is_symlink():
            # <date>-<time>-<milliseconds>-<name>
            by_model[folder.name.split("-", 3)[-1]].append(folder)
    latest = (home / "runs" / "latest").resolve()
    kept: list[Path] = []
    gone: list[Path] = []
    for folders in by_model.values():
        for position, folder in enumerate(reversed(folders)):
            stays = position < last or folder == latest or _in_use(home, folder)
            (kept if stays else gone).append(folder)
    return sorted(kept), sorted(gone)


def _in_use(home: Path, folder: Path) -> bool:
    young = time.time() - folder.stat().st_mtime < YOUNG_S
    return young or is_locked(home / "running" / folder.name)


def named_in(folders: Iterable[Path]) -> set[str]:
    """All identities that the files of runs name; some name nothing, which does no harm."""
    identities: set[str] = set()
    for folder in folders:
        for pattern in NAMING:
            for path in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    identities |= set(IDENTITY.findall(path.read_text("utf-8", errors="replace")))
    return identities


def logged_in(folders: Iterable[Path]) -> set[str]:
    """Ids of the MLflow runs that the summaries of runs name."""
    run_ids: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            text = (folder / "summary.json").read_text("utf-8", errors="replace")
            run_ids |= set(re.findall(r'"run_id": "([0-9a-f]{32})"', text))
    return run_ids


def with_parents(needed: set[str], parents_of: Any) -> set[str]:
    """What is needed, and all that it was made of, as far as that is known."""
    closure: set[str] = set()
    left = list(needed)
    while left:
        sha256 = left.pop()
        if sha256 not in closure:
            closure.add(sha256)
            left += parents_of(sha256)
    return closure


def plan(home: Path, last: int, needed: set[str]) -> list[Item]:
    """What may go from a state folder.

    Args:
        home: State folder.
        last: Runs of every model that are kept.
        needed: Identities that something outside needs.
    """
    kept, gone = runs(home, last)
    store = home / "store"

    def parents_of(sha256: str) -> tuple[str, ...]:
        try:
            manifest = manifests.load(store / sha256[:2] / sha256 / manifests.MANIFEST_NAME)
        except ArtifactError:
            return ()
        return manifest.provenance.parents

    stays = with_parents(needed | named_in(kept), parents_of)
    items = [Item(kind="run", name=folder.name, size_bytes=_size(folder)) for folder in gone]
    artifacts = [
        Item(kind="artifact", name=sha256, size_bytes=size)
        for used, size, sha256 in Cache(store, None).artifacts()
        if sha256 not in stays and time.time() - used > YOUNG_S
    ]
    names = {item.name for item in artifacts}
    return [*items, *artifacts, *_results(home, names), *_searches(home), *_recipes(home, kept)]


def _results(home: Path, gone: set[str]) -> Iterator[Item]:
    """Results of stages that name an artifact which goes: they would be made again anyway."""
    if not gone:
        return
    for path in (home / "prefect" / "storage").glob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and gone & set(IDENTITY.findall(path.read_text(errors="replace"))):
                size = path.stat().st_size
                yield Item(kind="stage result", name=path.name, size_bytes=size)


def _searches(home: Path) -> Iterator[Item]:
    """What interrupted INT8 searches have measured, for other versions of the library."""
    folders = sorted((home / "searches").glob("*"), key=lambda path: path.stat().st_mtime)
    for folder in folders[:-1]:
        if time.time() - folder.stat().st_mtime > YOUNG_S:
            yield Item(kind="search", name=folder.name, size_bytes=_size(folder))


def _recipes(home: Path, kept: Iterable[Path]) -> Iterator[Item]:
    """Folders of recipes that came from elsewhere, and that no run which is kept names."""
    folders = [path for path in (home / "recipes").glob("*") if path.is_dir()]
    old = [path for path in folders if time.time() - path.stat().st_mtime > YOUNG_S]
    if not old:
        return
    named: set[str] = set()
    for folder in kept:
        for path in (found for pattern in NAMING for found in folder.glob(pattern)):
            with contextlib.suppress(OSError):
                text = path.read_text("utf-8", errors="replace")
                named |= {item.name for item in old if item.name in text}
    for path in old:
        if path.name not in named:
            yield Item(kind="recipe folder", name=path.name, size_bytes=_size(path))


def take(home: Path, items: list[Item]) -> list[Item]:
    """Remove what a plan names, but for what is in use by now; gives what has gone."""
    gone = []
    by_kind: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_kind[item.kind].append(item)
    for item in by_kind["run"]:
        folder = home / "runs" / item.name
        if folder.is_dir() and not _in_use(home, folder):
            shutil.rmtree(folder, ignore_errors=True)
            (home / "running" / item.name).unlink(missing_ok=True)
            gone.append(item)
    taken = Cache(home / "store", None).remove([i.name for i in by_kind["artifact"]], YOUNG_S)
    gone += [item for item in by_kind["artifact"] if item.name in taken]
    for item in by_kind["stage result"]:
        path = home / "prefect" / "storage" / item.name
        with contextlib.suppress(OSError):
            if taken & set(IDENTITY.findall(path.read_text(errors="replace"))):
                path.unlink()
                gone.append(item)
    for item in by_kind["recipe folder"]:
        folder = home / "recipes" / item.name
        if folder.is_dir() and time.time() - folder.stat().st_mtime > YOUNG_S:  # not used since
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(item)
    for item in by_kind["search"]:
        shutil.rmtree(home / "searches" / item.name, ignore_errors=True)
        gone.append(item)
    return gone


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total
