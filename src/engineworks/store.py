"""The local store: artifacts in folders named by their identity.

An artifact is written under a temporary name, verified and renamed, so a folder that exists is
whole. Knows no network; `artifacts/store/remote.py` puts S3 behind it with the same verbs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from engineworks import locks
from engineworks import manifest as manifests
from engineworks.errors import ArtifactError, EngineworksError, InputError, StoreError
from engineworks.files import open_file
from engineworks.manifest import Artifact, FileEntry, Manifest

log = logging.getLogger(__name__)

#: A temporary folder older than this was left behind by a process that died.
STALE_S = 24 * 3600


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in blocks of 1 MiB."""
    sha256 = hashlib.sha256()
    with open_file(path) as stream:
        while block := stream.read(2**20):
            sha256.update(block)
    return sha256.hexdigest()


def pinned_bytes(path: Path, sha256: str) -> bytes:
    """A file's bytes, read once and only if they are those that were pinned.

    Args:
        path: The file.
        sha256: Of the bytes that it had when the run began.

    Raises:
        InputError: The file is another one now, or gone.
    """
    try:
        with open_file(path) as stream:
            data = stream.read()
    except OSError as error:
        raise changed(path, sha256, "") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise changed(path, sha256, actual)
    return data


def changed(path: Path, was: str, now: str) -> InputError:
    """The error of a file that is not what it was when the run began.

    Args:
        path: The file.
        was: Its sha256 then; empty: it was not there.
        now: Its sha256 now; empty: it cannot be read.
    """
    then, after = (f"sha256 {digest[:16]}..." if digest else "" for digest in (was, now))
    return InputError(
        f"{path} changed while the run went on: it was {then or 'not there'} when the run began, "
        f"now it {f'has {after}' if after else 'cannot be read'}",
        hint="run again: it works on the files as they are then, and nothing of this run was "
        "kept that came from other bytes",
    )


def explain_os_error(error: OSError, folder: Path) -> StoreError:
    """A full disk or a missing permission, said so that a person can act on it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free_mib = shutil.disk_usage(folder).free // 2**20 if folder.exists() else 0
        return StoreError(
            f"the disk under {folder} is full ({free_mib} MiB free)",
            hint="free space there or set ENGINEWORKS_HOME to another disk, then run again: "
            "finished stages are kept",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        return StoreError(
            f"{error.filename or folder} cannot be written ({error.strerror})",
            hint="set ENGINEWORKS_HOME to a folder you own",
        )
    return StoreError(f"{folder}: {error}", hint="check the disk, then run again")


def disk_error(error: BaseException, folder: Path) -> StoreError | None:
    """The `StoreError` behind an error of another library, if a full disk caused it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return explain_os_error(seen, folder)
        if "disk is full" in str(seen):  # SQLite's words
            return explain_os_error(OSError(errno.ENOSPC, str(seen)), folder)
        seen = seen.__cause__ or seen.__context__
    return None


#: Name of a folder that is called by its artifact's identity.
_IDENTITY = re.compile(r"[0-9a-f]{64}")


def is_identity(text: str) -> bool:
    """Whether a text could be an artifact's identity."""
    return _IDENTITY.fullmatch(text) is not None


def named(folder: Path) -> str:
    """The identity that a folder's own name claims, as in a store; empty: it claims none."""
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100 - "." and ".." leave it, links stay
    return name if is_identity(name) else ""


def verify(folder: Path, sha256: str = "") -> Manifest:
    """Check every file of an artifact folder against its manifest, and that against its name.

    Args:
        folder: Holds `manifest.json` and the files it lists.
        sha256: Identity that the artifact must have, where it is known (`engine.sha256` in
            summary.json, the tag `sha256` of a registered version); a folder that is named by an
            identity must have that one.

    Returns:
        The manifest. Where no identity is known, it proves only that the folder is as it was
        written, by whomever.

    Raises:
        ArtifactError: A file is missing, short, altered or a link that leads out of the folder,
            or this is another artifact than was asked for.
    """
    manifest = manifests.load(folder / manifests.MANIFEST_NAME)
    refuse_strange_paths(folder, manifest)
    for wanted in {sha256, named(folder)} - {""}:
        _refuse_another(folder, manifest, wanted)
    for entry in manifest.files:
        path = folder / entry.path
        try:
            size_bytes = path.stat().st_size
            actual = file_sha256(path) if size_bytes == entry.size_bytes else ""
        except OSError as error:
            raise ArtifactError(
                f"{path} should be {entry.size_bytes} bytes, found nothing ({error.strerror})",
                hint="delete the artifact's folder and run again: it is made anew",
            ) from error
        if size_bytes != entry.size_bytes:
            raise ArtifactError(
                f"{path} should be {entry.size_bytes} bytes, found {size_bytes} bytes",
                hint="delete the artifact's folder and run again: it is made anew",
            )
        if actual != entry.sha256:
            raise ArtifactError(
                f"{path} has sha256 {actual[:16]}..., its manifest says {entry.sha256[:16]}...: "
                "it was altered and is not opened",
                hint="delete the artifact's folder and run again: it is made anew",
            )
    return manifest


def _refuse_another(folder: Path, manifest: Manifest, sha256: str) -> None:
    if manifest.sha256 != sha256:
        raise ArtifactError(
            f"{folder} holds artifact {manifest.sha256[:16]}..., not {sha256[:16]}...: "
            "its manifest was altered, or it is another one",
            hint="do not use it: fetch the artifact again, or delete the folder and run again",
        )


def refuse_strange_paths(folder: Path, manifest: Manifest) -> None:
    """Only files below the folder, and only such as a digest covers, are ever opened."""
    for entry in manifest.files:
        path = PurePosixPath(entry.path)
        outside = path.is_absolute() or ".." in path.parts or "\\" in entry.path
        if outside or "\0" in entry.path:
            raise ArtifactError(
                f"{folder}: its manifest lists {entry.path!r}, which lies outside the artifact",
                hint="do not use it: ask whoever made it for the artifact again",
            )
        if not (folder / entry.path).resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(
                f"{folder / entry.path} is a link to {(folder / entry.path).resolve()}, outside "
                "the artifact",
                hint="do not use it: copy the artifact again, with its files",
            )
    if manifest.entry not in {entry.path for entry in manifest.files}:
        raise ArtifactError(
            f"{folder}: its manifest opens {manifest.entry!r}, which is none of its files",
            hint="do not use it: ask whoever made it for the artifact again",
        )


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold an advisory lock that ends with its process.

    Raises:
        StoreError: Another process has held it for long.
    """
    with path.open("w") as stream:
        locks.wait(stream, path)
        yield


@contextlib.contextmanager
def told_as(copy: Path, original: str) -> Iterator[None]:
    """Let errors about the store's copy of a user's file speak of the user's file."""
    try:
        yield
    except EngineworksError as error:
        texts = (text.replace(str(copy), original) for text in (error.message, error.hint))
        message, hint = texts
        raise type(error)(message, hint=hint) from error


def entry_of(inside: str, path: Path) -> FileEntry:
    """A manifest's line for a file as it is now, under its path inside an artifact."""
    return FileEntry(path=inside, sha256=file_sha256(path), size_bytes=path.stat().st_size)


def _move(source: Path, target: Path) -> bool:
    """Rename a folder; False if the target is there already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


class LocalStore:
    """Content-addressed folders: `<root>/<first 2 digits>/<sha256>/{manifest.json, files}`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._temporary = self.root / ".tmp"

    def put(
        self, sources: Mapping[str, Path], pinned: Mapping[str, str] | None = None, **fields: Any
    ) -> Artifact:
        """Copy files in as one artifact; an identical one already there is kept.

        Args:
            sources: Path inside the artifact -> file to copy.
            pinned: Path inside the artifact -> sha256 that the copy must have, for some or all.
            fields: The manifest's fields but `files`.

        Raises:
            InputError: A file is not the one that was pinned; nothing is left behind.
            StoreError: Disk full or no permission; nothing is left behind.
        """
        work = self._temporary / uuid.uuid4().hex
        try:
            self._sweep()
            work.mkdir(parents=True)
            entries = []
            for inside, source in sorted(sources.items()):
                target = work / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                entries.append(entry_of(inside, target))
                wanted = (pinned or {}).get(inside, entries[-1].sha256)
                if entries[-1].sha256 != wanted:
                    raise changed(source, wanted, entries[-1].sha256)
            manifest = Manifest(files=tuple(entries), **fields)
            (work / manifests.MANIFEST_NAME).write_text(manifests.dump(manifest), encoding="utf-8")
            return self._publish(work, manifest)
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def hold(self, sources: Mapping[str, Path], **fields: Any) -> Artifact:
        """As `put`, but where the same bytes are here already, whole, nothing is copied.

        The artifact is what its copy holds: sources may change at any time, before or after.
        """
        try:
            entries = tuple(entry_of(inside, path) for inside, path in sorted(sources.items()))
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        manifest = Manifest(files=entries, **fields)
        folder = self._folder(manifest.sha256)
        if not folder.is_dir() or self._damage(folder, manifest.sha256) is not None:
            return self.put(sources, **fields)
        artifact = self._artifact(manifest)
        self.push(artifact)
        return artifact

    def _publish(self, work: Path, manifest: Manifest) -> Artifact:
        final = self._folder(manifest.sha256)
        final.parent.mkdir(parents=True, exist_ok=True)
        # One that is here already has equal identity and equal bytes, unless it was damaged since.
        if not _move(work, final):
            with contextlib.suppress(OSError):  # used again: not one that may go
                os.utime(final / manifests.MANIFEST_NAME)
            if self._damage(final, manifest.sha256) is not None:
                self._replace(final, work, manifest.sha256)
        return self._artifact(manifest)

    def _damage(self, folder: Path, sha256: str) -> ArtifactError | None:
        try:
            self._verified(folder, sha256)
        except ArtifactError as error:
            return error
        return None

    def _replace(self, final: Path, work: Path, sha256: str) -> None:
        """Put `work` in the place of a damaged folder; of several processes only one does it."""
        aside = self._temporary / f"damaged-{uuid.uuid4().hex}"
        with alone(self._temporary / "repair.lock"):
            damage = self._damage(final, sha256)
            if damage is None:  # another process was first: nobody may take its folder away
                return
            log.warning("replacing a damaged artifact: %s", damage.message)
            final.rename(aside)
            _move(work, final)  # or a third process has just put the same bytes there
        shutil.rmtree(aside, ignore_errors=True)

    def _folder(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the artifact is here (whole, since folders appear by rename)."""
        return (self._folder(sha256) / manifests.MANIFEST_NAME).is_file()

    def get(self, sha256: str) -> Artifact:
        """The artifact of this identity.

        Raises:
            ArtifactError: It is not in this store.
        """
        folder = self._folder(sha256)
        manifest = manifests.load(folder / manifests.MANIFEST_NAME)
        if manifest.sha256 != sha256:
            raise ArtifactError(
                f"{folder}: its manifest was altered (it is of {manifest.sha256[:16]}...)",
                hint="delete that folder and run again: it is made anew",
            )
        return self._artifact(manifest)

    def fetch(self, sha256: str) -> None:
        """Make sure that an artifact is in the folder. Here nothing comes from elsewhere."""

    def push(self, artifact: Artifact) -> None:
        """Let other machines have an artifact. Here there are none."""

    def _artifact(self, manifest: Manifest) -> Artifact:
        return Artifact(
            kind=manifest.kind,
            sha256=manifest.sha256,
            size_bytes=manifest.size_bytes,
            uri=str(self._folder(manifest.sha256)),
            manifest=manifest,
        )

    def open(self, artifact: Artifact) -> Path:
        """Folder of an artifact whose bytes were verified just now.

        Raises:
            ArtifactError: Missing, damaged, or not the artifact of this identity.
        """
        folder = self._folder(artifact.sha256)
        self._verified(folder, artifact.sha256)
        return folder

    @staticmethod
    def _verified(folder: Path, sha256: str) -> Manifest:
        return verify(folder, sha256)

    def entry(self, artifact: Artifact) -> Path:
        """The artifact's main file, verified as by `open`."""
        return self.open(artifact) / artifact.manifest.entry

    def _sweep(self) -> None:
        if not self._temporary.is_dir():
            return
        for leftover in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > STALE_S:
                    shutil.rmtree(leftover, ignore_errors=True)
