"""The published folder's metadata files: read, written under a number that is given once.

    <n>.root.json  <n>.targets.json  <n>.model-<name>.json  <n>.snapshot.json  timestamp.json

Everything but the timestamp is written under a new number and never changed. The timestamp is
written last and at once: until then devices see the state before. Knows no keys.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from engineworks.errors import DeliveryError
from engineworks.store import explain_os_error

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata

#: Roles that every repository has.
TOP = ("root", "targets", "snapshot", "timestamp")


class MetadataFolder:
    """The folder `metadata` of a repository.

    Args:
        folder: It.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def versions(self, role: str) -> list[int]:
        """Every number that a role was written under, in order."""
        pattern = re.compile(rf"(\d{{1,9}})\.{re.escape(quote(role, ''))}\.json")
        names = (path.name for path in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(int(number[1]) for number in map(pattern.fullmatch, names) if number)

    def read(self, role: str, version: int = 0) -> Metadata[Any]:
        """A role's metadata as it was written.

        Args:
            role: Its name.
            version: Its number; 0: the timestamp, or the newest root.

        Raises:
            DeliveryError: There is none, or it cannot be read.
        """
        from tuf.api.metadata import Metadata

        if role == "root" and not version:
            version = max(self.versions(role), default=0)
        path = self._path(role, version)
        try:
            return Metadata.from_bytes(path.read_bytes())
        except OSError as error:
            raise DeliveryError(
                f"{path} cannot be read ({error.strerror})",
                hint="name a repository that `engineworks deliver init` has made",
            ) from error
        except Exception as error:  # of the framework's many kinds
            raise DeliveryError(
                f"{path} is no metadata ({error})", hint="restore the repository from a copy"
            ) from error

    def raw(self, role: str, version: int) -> bytes:
        """The bytes of a role's metadata."""
        return self._path(role, version).read_bytes()

    def write(self, role: str, metadata: Metadata[Any]) -> bytes:
        """Write signed metadata, and return its bytes.

        Raises:
            DeliveryError: Its number was given to other bytes already.
            StoreError: Disk full or no permission.
        """
        data: bytes = metadata.to_bytes()
        version = 0 if role == "timestamp" else metadata.signed.version
        write_file(self._path(role, version), data, once=bool(version))
        return data

    def _path(self, role: str, version: int) -> Path:
        number = f"{version}." if version else ""
        return self._folder / f"{number}{quote(role, '')}.json"


def write_file(path: Path, data: bytes, *, once: bool) -> None:
    """Write a file whole or not at all, and make it outlive a power cut.

    Args:
        path: Where.
        data: What.
        once: Refuse where other bytes are there; the same bytes are left.

    Raises:
        DeliveryError: Other bytes are there.
        StoreError: Disk full or no permission.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{uuid.uuid4().hex}.writing")
        try:
            with unfinished.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if once:
                _give(unfinished, path, data)
            else:
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise explain_os_error(error, path.parent) from error


def _give(unfinished: Path, path: Path, data: bytes) -> None:
    try:
        os.link(unfinished, path)
    except FileExistsError:
        if path.read_bytes() != data:
            raise DeliveryError(
                f"{path} exists with other bytes: its number was given to something else",
                hint="two publish at once, or somebody has changed the repository: find out who",
            ) from None
