"""What a fleet writes down beside its artifacts: small JSON objects in the store's bucket.

    hosts/<name>.json            a machine's card, written again by its worker every 30 s
    orders/<digest>.json         what a machine is asked to build
    rows/<digest>/<host>.json    what came of it: a row of the table
    waiting/<model>.json         all that completes a run whose machines were away
    locks/<name>                 held while two runs could log or register the same thing twice

Knows the bucket and the values; no Prefect. Ages are by the server's clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from artifacts.store import s3
from artifacts.summary import StageTiming
from engineworks.codec import from_json, place, to_json
from engineworks.errors import ArtifactError, StoreError
from engineworks.evaluate.paired import Paired
from engineworks.facts.host import HostCard, RegisteredHost
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.timing import Benchmark, Comparison
from engineworks.plan import SILENT_S

log = logging.getLogger("engineworks.fleet")

T = TypeVar("T")

#: A lock of this age was left by a process that was killed: holders write theirs again before.
ABANDONED_S = 120.0
#: Pause between two tries to get a lock, and for how long others are waited for.
TRY_S, WAIT_S = 1.0, 1800.0

#: Cards that a warning was given of: they are read again every few seconds.
_LEFT_OUT: set[str] = set()

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one machine found."""

    host: HostCard
    tools: dict[str, str]
    """Versions of the target's packages there."""
    found: VariantOutcome | Benchmark | Comparison | Paired
    """What became of a variant; of engines that were only measured, what was."""
    stages: tuple[StageTiming, ...]
    wall_s: float = place()
    """Seconds of the child run, from its first line to its last."""


def register(bucket: s3.Bucket, host: RegisteredHost) -> float:
    """Write a machine's card.

    Returns:
        For how many seconds it was not heard of, by the store's clock; infinite for a new one.

    Raises:
        StoreError: Another machine of this name is alive.
    """
    name = host.card.name
    if not NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} is no name for a machine of the fleet",
            hint="use letters, digits, '-', '_' and '.', at most 63: --name rack-3",
        )
    key = f"hosts/{name}.json"
    entry = bucket.read(key)
    others = entry is not None and _field(entry.data, "instance") not in (None, host.instance)
    if entry is not None and others and entry.age_s < SILENT_S:
        raise StoreError(
            f"another machine is registered as {name} and was heard of {entry.age_s:.0f} s ago",
            hint="give this one a name of its own: --name",
        )
    _write(bucket, key, dataclasses.replace(host, age_s=0.0))
    return math.inf if entry is None else entry.age_s


def registered(bucket: s3.Bucket) -> list[RegisteredHost]:
    """All machines, with their ages, by name. Cards that cannot be read are named and left out."""
    keys = [item.key for item in bucket.list("hosts/")]
    hosts = []
    for key, item in zip(keys, s3.in_parallel(bucket.read, keys), strict=True):
        if item is not None:
            try:
                host = _decode(RegisteredHost, item.data, key)
            except ArtifactError as error:
                # One machine with an older checkout must not stop all others.
                if f"{bucket.address}/{key}" not in _LEFT_OUT:
                    _LEFT_OUT.add(f"{bucket.address}/{key}")
                    log.warning("%s/%s is left out: %s", bucket.address, key, error.message)
                continue
            hosts.append(dataclasses.replace(host, age_s=item.age_s))
    return sorted(hosts, key=lambda host: host.card.name)


def forget(bucket: s3.Bucket, name: str) -> None:
    """Remove a machine that is gone for good.

    Raises:
        StoreError: There is none of this name, or it is alive.
    """
    key = f"hosts/{name}.json"
    entry = bucket.read(key)
    if entry is None:
        raise StoreError(
            f"no machine is registered as {name!r}",
            hint="`engineworks hosts` lists the names",
        )
    if entry.age_s < SILENT_S:
        raise StoreError(
            f"{name} was heard of {entry.age_s:.0f} s ago: its worker would register it again",
            hint=f"stop its worker, and forget it when it was silent for {SILENT_S:.0f} s",
        )
    bucket.delete(key)


def put_order(bucket: s3.Bucket, digest: str, order: Any) -> None:
    """Write what is asked for; one that was given before is young again, so it is not pruned."""
    bucket.write(f"orders/{digest}.json", _encode(order), only_new=False)


def order(bucket: s3.Bucket, digest: str, kind: type[T]) -> T:
    """Read what is asked for.

    Raises:
        ArtifactError: There is no such order, or it was written by another version.
    """
    key = f"orders/{digest}.json"
    entry = bucket.read(key)
    if entry is None:
        raise ArtifactError(
            f"{bucket.address}/{key} does not exist",
            hint="start the run again with `python -m flows.ship RECIPE --fleet`",
        )
    return _decode(kind, entry.data, key)


def put_waiting(bucket: s3.Bucket, name: str, record: Any, etag: str = "") -> bool:
    """Write what waits of a model, in place of an older record.

    Args:
        bucket: The bucket.
        name: The model.
        record: All that a later run needs.
        etag: Left out: whatever is there. Else only over the very record that was read as this.

    Returns:
        False when a newer one is there, which stays.
    """
    key = _waiting_key(name)
    if etag:
        return bucket.replace(key, _encode(record), etag)
    return bucket.write(key, _encode(record), only_new=False)


def end_waiting(bucket: s3.Bucket, name: str, etag: str = "") -> None:
    """Nothing of a model waits any more; with `etag`, of the very record that was read as this."""
    key = _waiting_key(name)
    entry = bucket.read(key)
    # Servers that do not know the condition ignore it: so it is compared here too.
    if entry is not None and etag in ("", entry.etag):
        bucket.delete(key, etag=etag or entry.etag)


def still_waiting(bucket: s3.Bucket, name: str, etag: str) -> bool:
    """Whether the record is the very one that was read as this; else a newer run has spoken."""
    entry = bucket.read(_waiting_key(name))
    return entry is not None and entry.etag == etag


def waiting(bucket: s3.Bucket) -> list[str]:
    """Names of the models of which something waits."""
    prefix, end = "waiting/", ".json"
    keys = [item.key for item in bucket.list(prefix)]
    return [key[len(prefix) : -len(end)] for key in keys if key.endswith(end)]


def read_waiting(
    bucket: s3.Bucket, name: str, kind: type[T], code_sha256: str
) -> tuple[T, str] | None:
    """What waits of a model, and the etag of that record; None: nothing.

    Raises:
        ArtifactError: The record is of another version of the checkout.
    """
    key = _waiting_key(name)
    entry = bucket.read(key)
    if entry is None:
        return None
    if _field(entry.data, "checkout_sha256") != code_sha256:
        # Machines would refuse its orders, and its fields may be others.
        raise ArtifactError(
            f"{name} waits since a run of another version of the checkout",
            hint="run its recipe again: finished variants are kept",
        )
    return _decode(kind, entry.data, key), entry.etag


def end_order(bucket: s3.Bucket, digest: str) -> None:
    """Remove an order that is asked once, and what was answered."""
    for key in (f"orders/{digest}.json", *(item.key for item in bucket.list(f"rows/{digest}/"))):
        bucket.delete(key)


def _waiting_key(name: str) -> str:
    return f"waiting/{name}.json"


def put_row(bucket: s3.Bucket, digest: str, row: Row) -> None:
    """Write what came of an order; a later answer of the same machine replaces it."""
    _write(bucket, f"rows/{digest}/{row.host.name}.json", row)


def rows(bucket: s3.Bucket, digest: str) -> list[Row]:
    """What machines have answered to an order. Answers of other versions are left out."""
    keys = [item.key for item in bucket.list(f"rows/{digest}/")]
    answers = []
    for key, item in zip(keys, s3.in_parallel(bucket.read, keys), strict=True):
        if item is not None:
            try:
                answers.append(_decode(Row, item.data, key))
            except ArtifactError:
                continue
    return answers


@contextlib.contextmanager
def alone(bucket: s3.Bucket, name: str) -> Iterator[None]:
    """Be the only one of the fleet that does something; others wait.

    The lock is kept young while it is held. A holder that cannot do so for `ABANDONED_S` (killed,
    asleep, cut off) is taken for dead, and the next one begins, perhaps beside it.

    Raises:
        StoreError: Others have been at it for too long.
    """
    key, token = f"locks/{name}", uuid.uuid4().hex.encode()
    until, told = time.monotonic() + WAIT_S, False
    while not _take(bucket, key, token):
        if not told:
            log.warning("%s/%s is held by another run: waiting for it", bucket.address, key)
            told = True
        if time.monotonic() > until:
            raise StoreError(
                f"{bucket.address}/{key} is held by another run, for {WAIT_S:.0f} s by now",
                hint="see what that run does; if none is at work, delete that object",
            )
        time.sleep(TRY_S)
    done = threading.Event()
    keeper = threading.Thread(target=_keep_young, args=(bucket, key, token, done), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        _release(bucket, key, token)


def _take(bucket: s3.Bucket, key: str, token: bytes) -> bool:
    """Whether the lock is ours now. One try, which several may make at once."""
    if bucket.write(key, token, only_new=True):
        return True
    entry = bucket.read(key)
    if entry is None:
        return False
    if entry.data.startswith(token):
        return True  # an earlier write arrived, only its answer was lost
    if entry.age_s <= ABANDONED_S:
        return False
    # Its holder was killed. Of all that see this, only the first still finds what it has read.
    return bucket.replace(key, token, entry.etag)


def _keep_young(bucket: s3.Bucket, key: str, token: bytes, done: threading.Event) -> None:
    """Write our lock again every so often until we are done, or it is another's."""
    for count in itertools.count(1):
        if done.wait(ABANDONED_S / 4):
            return
        with contextlib.suppress(StoreError):  # `s3` has warned; the next try may work
            entry = bucket.read(key)
            if entry is None or not entry.data.startswith(token):
                return
            # Other bytes each time: who has seen the old ones must not take over the new ones.
            bucket.replace(key, token + b" %d" % count, entry.etag)


def _release(bucket: s3.Bucket, key: str, token: bytes) -> None:
    """Remove our lock; one that another has taken over since stays.

    What was done under it is done: a server that is away now fails nothing, the lock ages.
    """
    try:
        entry = bucket.read(key)
        if entry is not None and entry.data.startswith(token):
            # Servers that do not know this condition ignore it: so the bytes are compared too.
            bucket.delete(key, etag=entry.etag)
        else:
            log.warning("%s/%s was taken over meanwhile", bucket.address, key)
    except StoreError as error:
        log.warning("%s/%s stays for %.0f s: %s", bucket.address, key, ABANDONED_S, error.message)


def _encode(value: Any) -> bytes:
    return json.dumps(to_json(value), indent=1).encode()


def _write(bucket: s3.Bucket, key: str, value: Any) -> None:
    bucket.write(key, _encode(value), only_new=False)


def _field(data: bytes, name: str) -> str | None:
    """One field of an object that another version may have written; None: not to be told."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return str(value[name]) if isinstance(value, dict) and name in value else None


def _decode(kind: type[T], data: bytes, at: str) -> T:
    try:
        return from_json(kind, json.loads(data), at=at)
    except ValueError as error:
        raise ArtifactError(f"{at} is no JSON ({error})", hint="make it anew") from error
