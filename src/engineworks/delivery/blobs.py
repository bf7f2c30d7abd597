"""Files of artifacts in a repository, by content. Knows no metadata and no keys."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks import manifest as manifests
from engineworks import store
from engineworks.delivery.metadata import write_file
from engineworks.delivery.target import Parcel, blob_path
from engineworks.errors import EngineworksError
from engineworks.manifest import Manifest

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile


def publish(repository: Path, folder: Path, manifest: Manifest) -> None:
    """Copy an artifact's files into a repository, those that it does not hold whole.

    Raises:
        InputError: A file is not the one that the manifest names.
        StoreError: Disk full or no permission.
    """
    for entry in manifest.files:
        place = repository / blob_path(entry.sha256)
        if place.is_file() and store.file_sha256(place) == entry.sha256:
            continue
        write_file(place, store.pinned_bytes(folder / entry.path, entry.sha256), once=False)


def manifest_path(file: TargetFile) -> str:
    """Where the manifest of a target lies, relative to the repository."""
    folder, _, name = file.path.rpartition("/")
    return f"targets/{folder}/{file.hashes['sha256']}.{name}"


def whole(repository: Path, file: TargetFile) -> bool:
    """Whether a repository holds all of an engine and of what travels with it.

    Bytes of files are not read: a device reads them, and refuses others.
    """
    parcel = (file.custom or {}).get("sealed")
    try:
        manifests_of = [repository / manifest_path(file)]
        if parcel:
            manifests_of.append(repository / blob_path(parcel["manifest_sha256"]))
        entries = [entry for path in manifests_of for entry in manifests.load(path).files]
        return all(
            (repository / blob_path(entry.sha256)).stat().st_size == entry.size_bytes
            for entry in entries
        )
    except (OSError, EngineworksError, KeyError, TypeError):
        return False


def publish_parcel(repository: Path, folder: Path) -> Parcel:
    """Copy an artifact that travels beside an engine, with its manifest.

    Raises:
        ArtifactError: It is damaged.
    """
    manifest = store.verify(folder)
    raw = (folder / manifests.MANIFEST_NAME).read_bytes()
    publish(repository, folder, manifest)
    sha256 = hashlib.sha256(raw).hexdigest()
    write_file(repository / blob_path(sha256), raw, once=False)
    return Parcel(sha256=manifest.sha256, manifest_sha256=sha256, manifest_bytes=len(raw))
