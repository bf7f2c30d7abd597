"""Which artifacts of the local store may go: a size limit, and leases on what a run is using.

A lease is a file that its process holds locked for as long as it lives; it lists identities.
Knows folders and locks (POSIX), no network: the caller says what can be fetched again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from engineworks import locks

log = logging.getLogger("engineworks.cache")


class Cache:
    """The size limit of one local store."""

    def __init__(self, root: Path, limit_bytes: int | None) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._leases = root / ".leases"
        self._lease: IO[str] | None = None
        self._used: set[str] = set()

    def use(self, sha256: str) -> None:
        """Keep an artifact for as long as this process lives. Call before looking for it."""
        if sha256 in self._used:
            return
        with self._locked(exclusive=self._lease is None):
            if self._lease is None:
                self._held()  # sweeps what dead ones have left
                self._lease = (self._leases / f"{os.getpid()}-{uuid.uuid4().hex}").open("w")
                locks.wait(self._lease, Path(self._lease.name))
            self._lease.write(sha256 + "\n")
            self._lease.flush()
        self._used.add(sha256)
        # The order of use is the manifests' times: no database to keep.
        with contextlib.suppress(OSError):
            os.utime(self._folder(sha256) / "manifest.json")

    def make_room(self, wanted_bytes: int, elsewhere: Callable[[str], bool]) -> None:
        """Remove the least recently used artifacts until `wanted_bytes` fit under the limit.

        Args:
            wanted_bytes: What is about to be written.
            elsewhere: Whether an artifact could be fetched again; others stay.
        """
        if self._limit_bytes is None:
            return
        with self._locked(exclusive=True):
            held = self._held()
            artifacts = sorted(self.artifacts())
            total = sum(size for _, size, _ in artifacts)
            for _, size, sha256 in artifacts:
                if total + wanted_bytes <= self._limit_bytes:
                    break
                if sha256 in held or not elsewhere(sha256):
                    continue
                shutil.rmtree(self._set_aside(sha256), ignore_errors=True)
                total -= size
                log.info("removed %s from the cache (%d KiB)", sha256[:16], size // 1024)

    def remove(self, identities: list[str], young_s: float) -> set[str]:
        """Remove artifacts, but for those that a living process uses or that were used just now.

        Args:
            identities: Which.
            young_s: Seconds since its last use for which one stays.

        Returns:
            Those that have gone.
        """
        aside = {}
        with self._locked(exclusive=True):  # nobody can begin to use one meanwhile
            held = self._held()
            for sha256 in identities:
                with contextlib.suppress(FileNotFoundError):
                    used = (self._folder(sha256) / "manifest.json").stat().st_mtime
                    if sha256 not in held and time.time() - used > young_s:
                        aside[sha256] = self._set_aside(sha256)
        for folder in aside.values():
            shutil.rmtree(folder, ignore_errors=True)
        return set(aside)

    def _set_aside(self, sha256: str) -> Path:
        """Take an artifact out of sight in one step."""
        aside = self._root / ".tmp" / f"evicted-{uuid.uuid4().hex}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        self._folder(sha256).rename(aside)
        return aside

    def _folder(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def artifacts(self) -> Iterator[tuple[float, int, str]]:
        """(time of the last use, size in bytes, identity) of every artifact."""
        for manifest in self._root.glob("??/*/manifest.json"):
            with contextlib.suppress(OSError):
                files = [path for path in manifest.parent.rglob("*") if path.is_file()]
                size = sum(path.stat().st_size for path in files)
                yield manifest.stat().st_mtime, size, manifest.parent.name

    def _held(self) -> set[str]:
        """Identities on the leases of living processes; leases of dead ones are removed."""
        held: set[str] = set()
        for path in self._leases.iterdir():
            if path.name == "lock":
                continue
            with contextlib.suppress(FileNotFoundError), path.open("r+") as stream:
                own = self._lease is not None and path.name == Path(self._lease.name).name
                if not own and locks.attempt(stream):
                    path.unlink()
                    continue
                held |= set(stream.read().split())
        return held

    @contextlib.contextmanager
    def _locked(self, *, exclusive: bool) -> Iterator[None]:
        self._leases.mkdir(parents=True, exist_ok=True)
        path = self._leases / "lock"
        with path.open("w") as stream:
            locks.wait(stream, path, exclusive=exclusive)
            yield


def is_locked(path: Path) -> bool:
    """Whether a living process holds a lock on a file."""
    try:
        with path.open("r+") as stream:
            return not locks.attempt(stream)
    except OSError:
        return False
