"""API keys: who may do what, how often. A file holds their digests, never the keys.

A key is 256 random bits, so one sha256 is enough to keep it. Knows no HTTP beyond the header's
words.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, DataError
from engineworks.runtime.outputs import temporary_name

RIGHTS = ("infer", "metrics", "admin")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What one key may do."""

    name: str
    sha256: str
    rights: tuple[str, ...] = ("infer",)
    per_second: float = 0.0
    """Requests a second over any longer time, this many at once; 0: no limit."""

    def __post_init__(self) -> None:
        strange = set(self.rights) - set(RIGHTS)
        if strange or not self.rights:
            raise ArtifactError(
                f"key {self.name!r} has the rights {list(self.rights)}",
                hint=f"use some of {', '.join(RIGHTS)}",
            )


def digest(key: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        DataError: It cannot be read or is no list of keys.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        keys = tuple(from_json(Key, entry) for entry in entries)
    except (OSError, ValueError, TypeError, ArtifactError) as error:
        cause = getattr(error, "message", None) or str(error)
        raise DataError(
            f"{path} is no file of keys ({cause})", hint="make one: engineworks serve-key"
        ) from error
    if not keys:
        raise DataError(f"{path} holds no key", hint="add one: engineworks serve-key")
    return keys


def add(path: Path, name: str, rights: tuple[str, ...], per_second: float) -> str:
    """Make a key, keep its digest in the file, and return the key: it is never shown again.

    Raises:
        DataError: The name is taken, or the file is none of keys.
    """
    keys = read(path) if path.exists() else ()
    if any(key.name == name for key in keys):
        raise DataError(f"{path} has a key {name!r} already", hint="choose another name")
    secret = f"ew_{secrets.token_urlsafe(32)}"
    new = Key(name=name, sha256=digest(secret), rights=rights, per_second=per_second)
    unfinished = temporary_name(path)
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(to_json((*keys, new)), indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return secret


class KeyRing:
    """Finds the key of a request, and holds it to its rate.

    Args:
        keys: All there are.
        workers: The rate is divided among so many processes.
    """

    def __init__(self, keys: tuple[Key, ...], workers: int = 1) -> None:
        self._keys = {key.sha256: key for key in keys}
        self._workers = workers
        self._left: dict[str, tuple[float, float]] = {}

    def find(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The key in `Authorization: Bearer`, `X-API-Key`, or the password of `Basic`."""
        return self._keys.get(digest(_given(headers)))

    def wait_s(self, key: Key) -> float:
        """Take one request off the key's share; the seconds to wait instead, 0 where it has one."""
        if not key.per_second:
            return 0.0
        rate = key.per_second / self._workers
        now = time.monotonic()
        tokens, seen = self._left.get(key.sha256, (max(1.0, rate), now))
        tokens = min(max(1.0, rate), tokens + (now - seen) * rate)
        if tokens < 1:
            self._left[key.sha256] = (tokens, now)
            return (1 - tokens) / rate
        self._left[key.sha256] = (tokens - 1, now)
        return 0.0


def _given(headers: Mapping[bytes, bytes]) -> str:
    plain = headers.get(b"x-api-key")
    if plain is not None:
        return plain.decode("latin-1").strip()
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    text = value.strip().decode("latin-1")
    if kind.lower() == b"bearer":
        return text
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(text, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
