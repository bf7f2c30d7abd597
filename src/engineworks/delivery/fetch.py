"""Artifacts by content: what is here goes on where it broke off, and is whole before it is seen.

Files come into `incoming/<sha256>/`, named by their digests; when all are there and verified from
the disk, the folder takes its place by a rename. Knows no signatures: the manifest's identity is
what was signed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from engineworks import manifest as manifests
from engineworks import store
from engineworks.delivery.disk import Disk, explained
from engineworks.delivery.home import Home
from engineworks.delivery.refusal import NoRoom, Refused, Unreachable
from engineworks.delivery.target import blob_path
from engineworks.delivery.transport import RepositorySource, slowed
from engineworks.errors import ArtifactError
from engineworks.manifest import FileEntry, Manifest

_log = logging.getLogger(__name__)

_PARTS = ".parts"


@dataclass(frozen=True, kw_only=True)
class DownloadLimits:
    """How much a download may take."""

    bytes_per_s: float = 0.0
    margin_bytes: int = 0
    may_go_on: Callable[[], bool] = lambda: True
    """Asked before each file."""


class Later(NoRoom):
    """It is not the hour for downloads."""


class Fetcher:
    """Brings artifacts onto the disk.

    Args:
        home: The device's folder.
        disk: How it is written.
        source: The repository.
    """

    def __init__(self, home: Home, disk: Disk, source: RepositorySource) -> None:
        self._home, self._disk, self._source = home, disk, source

    def whole(self, place: Path) -> bool:
        """Whether an artifact is here, read back from the disk."""
        try:
            store.verify(place)
        except ArtifactError:
            return False
        return True

    def bring(self, raw: bytes, sha256: str, place: Path, limits: DownloadLimits) -> None:
        """Make sure that an artifact lies whole in its place; a damaged one is repaired there.

        Args:
            raw: Its manifest, as it was signed.
            sha256: Its identity.
            place: Its folder, named by its identity.
            limits: See `DownloadLimits`.

        Raises:
            Refused: It is not what was signed.
            Unreachable: It does not come; what is here stays for the next try.
            NoRoom: The disk is full, or would be.
        """
        if self.whole(place):
            return
        work = self._home.incoming / sha256
        with explained(work):
            self._disk.folder(work)
            manifest = self._manifest(raw, sha256, work)
            self._make_room(manifest, work, limits)
            for entry in manifest.files:
                self._file(entry, work, limits)
            _verify(work, sha256)
            self._put(manifest, work, place)

    def _manifest(self, raw: bytes, sha256: str, work: Path) -> Manifest:
        self._disk.write(work / manifests.MANIFEST_NAME, raw)
        try:
            manifest = manifests.load(work / manifests.MANIFEST_NAME)
            store.refuse_strange_paths(work, manifest)
        except ArtifactError as error:
            raise Refused(error.message, hint=error.hint, check="content") from error
        if manifest.sha256 != sha256:
            raise Refused(
                f"signed is artifact {sha256[:12]}..., the manifest is of "
                f"{manifest.sha256[:12]}...",
                hint="nothing changes on this device; ask who signs for the model",
                check="identity",
            )
        return manifest

    def _make_room(self, manifest: Manifest, work: Path, limits: DownloadLimits) -> None:
        here = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        needed = max(0, manifest.size_bytes - here) + limits.margin_bytes
        free = self._disk.free_bytes(work)
        if free < needed:
            raise NoRoom(
                f"{needed // 2**20} MiB are needed, the disk has {free // 2**20} MiB free",
                hint="free space: what serves goes on, and the agent tries again by itself",
            )

    def _file(self, entry: FileEntry, work: Path, limits: DownloadLimits) -> None:
        final = work / entry.path
        if final.is_file() and store.file_sha256(final) == entry.sha256:
            return
        part = self._disk.folder(work / _PARTS) / entry.sha256
        for again in (True, False):
            begun = part.stat().st_size if part.is_file() else 0
            if begun > entry.size_bytes:
                begun = 0
            self._download(entry, part, begun, limits)
            sha256 = store.file_sha256(part)
            if sha256 == entry.sha256:
                break
            self._disk.unlink(part)
            if not (begun and again):  # what was begun before may have been cut by a power cut
                raise Refused(
                    f"{entry.path} has sha256 {sha256[:12]}..., signed is {entry.sha256[:12]}...",
                    hint="nothing changes on this device; look at the repository",
                    check="content",
                )
        self._disk.sync(part)
        self._disk.folder(final.parent)
        self._disk.rename(part, final)
        self._disk.sync_folder(final.parent)

    def _download(self, entry: FileEntry, part: Path, begun: int, limits: DownloadLimits) -> None:
        if not limits.may_go_on():
            raise Later("it is not the hour for downloads", hint="the card says the hours")
        if not begun:
            self._disk.create(part, b"")
        if begun == entry.size_bytes:
            return
        left = entry.size_bytes - begun
        blocks = self._source.read(blob_path(entry.sha256), begun)
        for block in slowed(blocks, limits.bytes_per_s):
            left -= len(block)
            if left < 0:
                self._disk.unlink(part)
                raise Refused(
                    f"{entry.path}: more comes than the {entry.size_bytes} bytes that are signed",
                    hint="nothing changes on this device; look at the repository",
                    check="length",
                )
            self._disk.append(part, block)
        if left:
            raise Unreachable(
                f"{entry.path}: {left} of {entry.size_bytes} bytes did not come",
                hint="it goes on where it was, later",
            )

    def _put(self, manifest: Manifest, work: Path, place: Path) -> None:
        if (work / _PARTS).is_dir():
            self._disk.remove(work / _PARTS)
        for folder in sorted({work, *(path.parent for path in work.rglob("*"))}):
            self._disk.sync_folder(folder)
        self._disk.folder(place.parent)
        if place.is_dir():
            # In use, and damaged: file by file, so that it is never away.
            names = [entry.path for entry in manifest.files]
            for name in (*names, manifests.MANIFEST_NAME):
                self._disk.folder((place / name).parent)
                self._disk.rename(work / name, place / name)
                self._disk.sync_folder((place / name).parent)
            self._disk.remove(work)
            _log.warning("%s was damaged, and is repaired", place)
        else:
            self._disk.rename(work, place)
            self._disk.sync_folder(place.parent)
        self._disk.sync_folder(work.parent)

    def tidy(self, keep: Collection[str]) -> None:
        """Remove engines, tests and downloads of which nothing is needed any more.

        Args:
            keep: Identities that stay.
        """
        for folder in (self._home.engines, self._home.tests, self._home.incoming):
            for place in sorted(folder.iterdir()) if folder.is_dir() else ():
                if place.name not in keep:
                    self._disk.remove(place)


def _verify(work: Path, sha256: str) -> None:
    try:
        store.verify(work, sha256)
    except ArtifactError as error:
        raise Refused(error.message, hint=error.hint, check="content") from error
