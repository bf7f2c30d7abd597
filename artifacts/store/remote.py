"""A store on S3 behind the local one: what is put is sent there, what is missing is fetched.

    blobs/<2 digits>/<sha256>    the bytes of a file, once, whichever artifacts hold it
    artifacts/<identity>.json    the manifest, written last: an artifact that can be seen is whole

Every byte that comes is hashed before it is used. Stages run in child processes on the local
store alone and know nothing of this.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts.store import s3, transfers
from artifacts.store.cache import Cache
from artifacts.store.home import HomeStore
from engineworks import manifest as manifests
from engineworks.errors import ArtifactError, StoreError
from engineworks.manifest import Artifact, FileEntry, Manifest
from engineworks.store import LocalStore, alone, explain_os_error, file_sha256, refuse_strange_paths

log = logging.getLogger("engineworks.remote_store")


def address() -> s3.Address:
    """Where ENGINEWORKS_STORE says that the shared store is.

    Raises:
        StoreError: It is not set, or no address.
    """
    text = os.environ.get("ENGINEWORKS_STORE", "")
    if not text:
        raise StoreError(
            "ENGINEWORKS_STORE is not set, so there is no store that machines could share",
            hint="set ENGINEWORKS_STORE=s3://bucket/prefix (docs/fleet.md)",
        )
    return s3.parse(text)


def open_store(root: Path) -> LocalStore:
    """The store that the environment asks for.

    ENGINEWORKS_STORE=s3://bucket/prefix puts S3 behind the folder `root`;
    ENGINEWORKS_CACHE_MIB then limits that folder.

    Raises:
        StoreError: One of them is not understood.
    """
    if not os.environ.get("ENGINEWORKS_STORE"):
        return HomeStore(root)
    limit = os.environ.get("ENGINEWORKS_CACHE_MIB", "")
    if limit and not limit.isdigit():
        raise StoreError(
            f"ENGINEWORKS_CACHE_MIB is {limit!r}, not a whole number of MiB",
            hint="write for example ENGINEWORKS_CACHE_MIB=20000, or leave it out for no limit",
        )
    bucket = s3.Bucket(address())
    return RemoteStore(root, bucket, limit_bytes=int(limit) * 2**20 if limit else None)


class RemoteStore(LocalStore):
    """The verbs of `LocalStore`; the local folder is the cache of a bucket."""

    def __init__(self, root: Path, bucket: s3.Bucket, *, limit_bytes: int | None = None) -> None:
        super().__init__(root)
        self.bucket = bucket
        self._cache = Cache(self.root, limit_bytes)
        self._there: set[str] = set()
        """Identities that the bucket is known to hold."""

    def put(
        self, sources: Mapping[str, Path], pinned: Mapping[str, str] | None = None, **fields: Any
    ) -> Artifact:
        """Copy files in as one artifact and send it; see `LocalStore.put`."""
        artifact = super().put(sources, pinned, **fields)
        self.push(artifact)
        return artifact

    def has(self, sha256: str) -> bool:
        """Whether the artifact is here or can be fetched."""
        return super().has(sha256) or self._elsewhere(sha256)

    def get(self, sha256: str) -> Artifact:
        """The artifact of this identity, fetched if it is not here.

        Raises:
            ArtifactError: It is nowhere, or damaged.
        """
        self.fetch(sha256)
        return super().get(sha256)

    def open(self, artifact: Artifact) -> Path:
        """Folder of an artifact whose bytes were verified just now; fetched if it must be.

        Raises:
            ArtifactError: It is nowhere, or damaged here and in the bucket.
        """
        self.fetch(artifact.sha256)
        try:
            return super().open(artifact)
        except ArtifactError as error:
            if not self._elsewhere(artifact.sha256):
                raise
            log.warning("fetching it again: %s", error.message)
            self._pull(artifact.sha256)
            return super().open(artifact)

    def fetch(self, sha256: str) -> None:
        """Make sure that an artifact is here, and stays while this process lives.

        Raises:
            ArtifactError: It is nowhere, or damaged.
            StoreError: The server does not answer, or the disk is full.
        """
        self._cache.use(sha256)
        if not super().has(sha256):
            self._pull(sha256)

    def push(self, artifact: Artifact) -> None:
        """Send an artifact, files first and manifest last; nothing if it is there already.

        Raises:
            ArtifactError: It is damaged here.
            StoreError: The server does not answer or refuses.
        """
        self._cache.use(artifact.sha256)
        if self._elsewhere(artifact.sha256):
            return
        folder = super().open(artifact)  # verified: what is sent has the hash that names it
        files = {entry.sha256: entry for entry in artifact.manifest.files}
        s3.in_parallel(lambda entry: self._send(folder, entry), list(files.values()))
        text = manifests.dump(artifact.manifest)
        self.bucket.write(_manifest_key(artifact.sha256), text.encode(), only_new=True)
        self._there.add(artifact.sha256)

    def _send(self, folder: Path, entry: FileEntry) -> None:
        key = _blob_key(entry.sha256)
        there = self.bucket.head(key)
        if there is not None and there.size_bytes == entry.size_bytes:
            if there.age_s > s3.TOUCH_S:
                self.bucket.touch(key)
            return
        fresh = transfers.upload(self.bucket, folder / entry.path, key, _report("sent", entry))
        if not fresh and self.bucket.size(key) != entry.size_bytes:
            # Of another size under this name: half of what another tool has copied.
            self.bucket.set_aside(key)
            transfers.upload(self.bucket, folder / entry.path, key, _report("sent", entry))

    def _elsewhere(self, sha256: str) -> bool:
        if sha256 not in self._there:
            listed = self.bucket.head(_manifest_key(sha256))
            if listed is not None:
                self._there.add(sha256)
                if listed.age_s > s3.TOUCH_S:  # what is used is not pruned
                    self.bucket.touch(_manifest_key(sha256))
        return sha256 in self._there

    def _pull(self, sha256: str) -> None:
        manifest = self._manifest(sha256)
        work = self._temporary / uuid.uuid4().hex
        self._cache.make_room(manifest.size_bytes, self._elsewhere)
        try:
            self._refuse_full_disk(manifest)
            work.mkdir(parents=True)
            refuse_strange_paths(work, manifest)
            s3.in_parallel(lambda entry: self._bring(sha256, work, entry), list(manifest.files))
            (work / manifests.MANIFEST_NAME).write_text(manifests.dump(manifest), encoding="utf-8")
            self._publish(work, manifest)
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _refuse_full_disk(self, manifest: Manifest) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < manifest.size_bytes:
            raise StoreError(
                f"the disk under {self.root} is full: {free // 2**20} MiB free, the "
                f"{manifest.kind} needs {manifest.size_bytes / 2**20:.0f}",
                hint="free space there, or set ENGINEWORKS_CACHE_MIB to keep less",
            )

    def _manifest(self, sha256: str) -> Manifest:
        listed = self.bucket.read(_manifest_key(sha256))
        if listed is None:
            self._there.discard(sha256)
            raise ArtifactError(
                f"artifact {sha256[:16]}... is neither here nor in {self.bucket.address}",
                hint="run again: what is missing is made anew",
            )
        path = self._temporary / f"{uuid.uuid4().hex}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(listed.data)
            manifest = manifests.load(path)
            right = manifest.sha256 == sha256
        except ArtifactError:
            right = False
        finally:
            path.unlink(missing_ok=True)
        if not right:
            raise self._damaged(sha256, _manifest_key(sha256))
        return manifest

    def _bring(self, sha256: str, work: Path, entry: FileEntry) -> None:
        """One file, by way of a temporary name that a broken transfer goes on from."""
        partial = self._temporary / "partial" / entry.sha256
        partial.parent.mkdir(parents=True, exist_ok=True)
        target = work / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        key = _blob_key(entry.sha256)
        with alone(partial.with_name(partial.name + ".lock")):
            for _ in range(2):
                if not transfers.download(
                    self.bucket, key, entry.size_bytes, partial, _report("fetched", entry)
                ):
                    break
                right = file_sha256(partial) == entry.sha256
                partial.with_name(partial.name + ".parts").unlink(missing_ok=True)
                if right:
                    shutil.move(partial, target)
                    return
                partial.unlink()
                log.warning("%s/%s came damaged", self.bucket.address, key)
        raise self._damaged(sha256, key)

    def _damaged(self, sha256: str, key: str) -> ArtifactError:
        """Put a damaged object out of the way, and its artifact out of sight."""
        self._there.discard(sha256)
        with contextlib.suppress(Exception):  # may be refused: then it stays where it is
            if self.bucket.size(key) is not None:
                aside = self.bucket.set_aside(key)
                log.warning("the damaged object is now %s", aside)
            self.bucket.delete(_manifest_key(sha256))
        return ArtifactError(
            f"{self.bucket.address}/{key} is damaged or missing; artifact {sha256[:16]}... is "
            "not used",
            hint="run again: whoever holds the right bytes sends them anew",
        )


def _blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _manifest_key(sha256: str) -> str:
    return f"artifacts/{sha256}.json"


def _report(word: str, entry: FileEntry) -> transfers.Progress | None:
    """Tell of large files only, every tenth of them."""
    if entry.size_bytes <= transfers.PART_BYTES:
        return None
    steps: Iterator[int] = iter(range(10, 101, 10))
    upcoming = [next(steps)]

    def tell(done: int, total: int) -> None:
        percent = 100 * done // total
        if percent >= upcoming[0]:
            log.info("%s: %s %d of %d MiB", entry.path, word, done // 2**20, total // 2**20)
            while upcoming[0] <= percent:
                upcoming[0] = next(steps, 1000)

    return tell
