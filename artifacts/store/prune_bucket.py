"""What of the shared bucket may go: what no run of any machine has used for some time.

Which runs go on elsewhere is not known here, so age decides: whatever a run uses it makes young
again (`RemoteStore`, `fleet.put_order`), by the server's clock. What the caller names, what waits
for a machine, what young orders ask for, and the parents of all that, are kept at any age.
"""

from __future__ import annotations

import json
from typing import Any

from artifacts.store import s3
from artifacts.store.prune_home import IDENTITY, Item, with_parents
from engineworks.errors import StoreError

DAY_S = 24 * 3600.0


def plan(bucket: s3.Bucket, days: float, needed: set[str]) -> list[Item]:
    """What may go.

    Args:
        bucket: The bucket.
        days: For how long something must not have been used.
        needed: Identities that something needs.

    Raises:
        StoreError: The server does not answer.
    """
    old_s = days * DAY_S
    everything = bucket.list("")
    orders = _young_orders(everything, old_s)
    named = [
        item.key
        for item in everything
        if item.key.startswith("waiting/") or _order_of(item.key) in orders
    ]
    stays = set(needed)
    for entry in s3.in_parallel(bucket.read, named):
        stays |= set(IDENTITY.findall(entry.data.decode(errors="replace"))) if entry else set()
    manifests = {
        _identity(item.key): item for item in everything if item.key.startswith("artifacts/")
    }
    contents = _contents(bucket, list(manifests))
    stays = with_parents(
        stays | {name for name, item in manifests.items() if item.age_s <= old_s},
        lambda name: contents.get(name, ({}, ()))[1],
    )
    gone = [item for name, item in manifests.items() if name not in stays]
    blobs = {
        blob for name in manifests if name in stays for blob in contents.get(name, ((), ()))[0]
    }
    for item in everything:
        kind = item.key.partition("/")[0]
        if item.age_s > old_s and (
            (kind == "blobs" and item.key.rpartition("/")[2] not in blobs)
            or (kind in ("orders", "rows") and _order_of(item.key) not in orders)
            or kind in ("damaged", "locks")
        ):
            gone.append(item)
    return [Item(kind="object", name=item.key, size_bytes=item.size_bytes) for item in gone]


def _identity(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _order_of(key: str) -> str:
    """Digest of the order that an object is or answers; "" for others."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0].removesuffix(".json") if kind in ("orders", "rows") else ""


def _young_orders(everything: list[s3.Listed], old_s: float) -> set[str]:
    """Orders that were given, or answered, not long ago."""
    return {_order_of(item.key) for item in everything if item.age_s <= old_s} - {""}


def _contents(bucket: s3.Bucket, names: list[str]) -> dict[str, tuple[set[str], tuple[str, ...]]]:
    """Identity -> digests of its files, and its parents.

    Raises:
        StoreError: One cannot be read: then nobody knows which files it needs.
    """
    contents: dict[str, tuple[set[str], tuple[str, ...]]] = {}
    keys = [f"artifacts/{name}.json" for name in names]
    for name, item in zip(names, s3.in_parallel(bucket.read, keys), strict=True):
        if item is not None:
            try:
                value: dict[str, Any] = json.loads(item.data)
                files = {entry["sha256"] for entry in value["files"]}
                parents = tuple(value.get("provenance", {}).get("parents", ()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreError(
                    f"{bucket.address}/artifacts/{name}.json is no manifest "
                    f"({type(error).__name__}), so what it needs is not known",
                    hint="delete that object: whoever holds the artifact sends it anew",
                ) from error
            contents[name] = (files, parents)
    return contents


def take(bucket: s3.Bucket, days: float, items: list[Item]) -> list[Item]:
    """Remove what a plan names, but for what was used since; gives what has gone.

    Manifests first: what cannot be seen is not begun to be used. A file stays when an artifact
    that came meanwhile has it.
    """
    old_s = days * DAY_S
    ours = sorted(items, key=lambda item: not item.name.startswith("artifacts/"))
    manifests = {item.name for item in ours if item.name.startswith("artifacts/")}
    gone = [item for item in ours if item.name in manifests and _remove(bucket, item, old_s)]
    left = [item.key for item in bucket.list("artifacts/")]
    contents = _contents(bucket, [_identity(key) for key in left])
    blobs = {blob for files, _ in contents.values() for blob in files}
    for item in ours:
        if item.name not in manifests and item.name.rpartition("/")[2] not in blobs:
            gone += [item] if _remove(bucket, item, old_s) else []
    return gone


def _remove(bucket: s3.Bucket, item: Item, old_s: float) -> bool:
    """Remove an object that is still old; False: it was used, or is gone."""
    entry = bucket.head(item.name)
    if entry is None or entry.age_s <= old_s:
        return False
    bucket.delete(item.name)
    return True
