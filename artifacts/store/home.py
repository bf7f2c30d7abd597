"""The store of one machine, which remembers what a living process uses: nothing of it is pruned.

Knows leases (`cache`); the bytes are the business of `LocalStore`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.store.cache import Cache
from engineworks.manifest import Artifact
from engineworks.store import LocalStore


class HomeStore(LocalStore):
    """The verbs of `LocalStore`; what they are said of stays while this process lives."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._cache = Cache(self.root, None)

    def put(
        self, sources: Mapping[str, Path], pinned: Mapping[str, str] | None = None, **fields: Any
    ) -> Artifact:
        """See `LocalStore.put`. One that was there is young again, so it is not taken between."""
        artifact = super().put(sources, pinned, **fields)
        self._cache.use(artifact.sha256)
        return artifact

    def get(self, sha256: str) -> Artifact:
        """See `LocalStore.get`."""
        self._cache.use(sha256)
        return super().get(sha256)

    def open(self, artifact: Artifact) -> Path:
        """See `LocalStore.open`."""
        self._cache.use(artifact.sha256)
        return super().open(artifact)

    def fetch(self, sha256: str) -> None:
        """Nothing comes from elsewhere; it stays from now on."""
        self._cache.use(sha256)

    def push(self, artifact: Artifact) -> None:
        """Nobody else wants it; it stays from now on."""
        self._cache.use(artifact.sha256)
