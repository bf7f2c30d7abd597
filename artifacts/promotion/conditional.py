"""Small files that are written only over the bytes that one has read: a bucket, or a folder here.

Knows bytes and names, no promotion.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from artifacts.store import s3
from artifacts.store.remote import RemoteStore
from engineworks.errors import StoreError
from engineworks.store import LocalStore, alone, explain_os_error


@dataclass(frozen=True, kw_only=True)
class HeldBytes:
    """A file's bytes, and the token that a write over just these must show."""

    data: bytes
    token: str


class Place(Protocol):
    """Where records lie."""

    def read(self, key: str) -> HeldBytes | None:
        """A file, or None when there is none."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write a new file; False: one of other bytes is there already."""
        ...

    def replace(self, key: str, data: bytes, token: str) -> bool:
        """Write over the bytes of a token; False: there are others by now."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Keys of all files under a prefix."""
        ...


class BucketPlace:
    """Objects of an S3 bucket, by If-None-Match and If-Match."""

    def __init__(self, bucket: s3.Bucket) -> None:
        self._bucket = bucket
        self._proven = False

    def read(self, key: str) -> HeldBytes | None:
        """See `Place`."""
        held = self._bucket.read(key)
        return None if held is None else HeldBytes(data=held.data, token=held.etag)

    def create(self, key: str, data: bytes) -> bool:
        """See `Place`."""
        self._prove()
        return self._bucket.write(key, data, only_new=True) or self._is(key, data)

    def replace(self, key: str, data: bytes, token: str) -> bool:
        """See `Place`."""
        self._prove()
        return self._bucket.replace(key, data, token) or self._is(key, data)

    def names(self, prefix: str) -> list[str]:
        """See `Place`."""
        return [item.key for item in self._bucket.list(prefix)]

    def _is(self, key: str, data: bytes) -> bool:
        """Whether one's own bytes are there: the answer to a write that was carried out was lost.

        Records carry an id of their own, so no two writers write the same bytes.
        """
        held = self._bucket.read(key)
        return held is not None and held.data == data

    def _prove(self) -> None:
        """Try whether this server keeps conditions at all.

        Raises:
            StoreError: It writes although the condition does not hold.
        """
        if self._proven:
            return
        key, bucket = f"promotions/.probe/{uuid.uuid4().hex}", self._bucket
        try:
            bucket.write(key, b"first", only_new=True)
            second = bucket.write(key, b"second", only_new=True)
            other = bucket.replace(key, b"third", f'"{"0" * 32}"')
        finally:
            bucket.delete(key)
        if second or other:
            raise StoreError(
                f"{bucket.address} ignores the conditions of conditional writes",
                hint="promote needs a server that keeps If-None-Match and If-Match: two at a time "
                "would undo each other",
            )
        self._proven = True


class FolderPlace:
    """Files of a folder of this machine, under one lock."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> HeldBytes | None:
        """See `Place`."""
        try:
            data = (self._root / key).read_bytes()
        except FileNotFoundError:
            return None
        return HeldBytes(data=data, token=hashlib.sha256(data).hexdigest())

    def create(self, key: str, data: bytes) -> bool:
        """See `Place`."""
        return self._write(key, data, None)

    def replace(self, key: str, data: bytes, token: str) -> bool:
        """See `Place`."""
        return self._write(key, data, token)

    def names(self, prefix: str) -> list[str]:
        """See `Place`."""
        files = (path for path in self._root.rglob("*.json") if path.is_file())
        keys = (path.relative_to(self._root).as_posix() for path in files)
        return sorted(key for key in keys if key.startswith(prefix))

    def _write(self, key: str, data: bytes, token: str | None) -> bool:
        path = self._root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with alone(self._root / "lock"):
                there = self.read(key)
                if (there.token if there else None) != token:
                    return there is not None and there.data == data
                partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
                with partial.open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(path)
                _sync(path.parent)
        except OSError as error:
            raise explain_os_error(error, self._root) from error
        return True


def _sync(folder: Path) -> None:
    """Make a rename outlive a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def place(store: LocalStore, home: Path) -> Place:
    """Where this installation's records lie: the store's bucket, else the state folder.

    Args:
        store: The store that is used.
        home: State folder.
    """
    if isinstance(store, RemoteStore):
        return BucketPlace(store.bucket)
    return FolderPlace(home)
