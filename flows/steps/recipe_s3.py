"""A recipe's folder from a bucket: everything that lies beside `s3://bucket/folder/recipe.yaml`.

It is fetched as it was at one moment, into a folder that is named by what the bucket's listing
says, and fetched again only when that says something else. Knows objects, no recipe.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from artifacts.store import s3, transfers
from engineworks.errors import RecipeError, StoreError
from engineworks.store import explain_os_error

SCHEME = "s3://"

#: Of the folder of one recipe.
MOST_OBJECTS, MOST_BYTES = 50_000, 8 * 2**30

_HINT = "write s3://bucket/folder/recipe.yaml"


def parse(text: str) -> tuple[s3.Address, str]:
    """Bucket and folder, and the recipe's name in it.

    Raises:
        RecipeError: The address is none.
    """
    parts = urlsplit(text)
    path = PurePosixPath(parts.path)
    plain = parts.scheme == "s3" and not (parts.query or parts.fragment or "@" in parts.netloc)
    if not plain or not parts.netloc or not path.name or ".." in path.parts:
        raise RecipeError(f"{text[:200]!r} names no recipe in a bucket", hint=_HINT)
    folder = "" if str(path.parent) == "/" else str(path.parent).strip("/")
    return s3.Address(bucket=parts.netloc, prefix=folder), path.name


def fetch(text: str, home: Path) -> Path:
    """Bring the folder of a recipe into the state folder; gives the recipe's file.

    Raises:
        RecipeError: There is no such recipe, or its folder is too large or holds strange names.
        StoreError: The server does not answer or refuses, the folder changes all the time, or the
            disk is full.
    """
    address, name = parse(text)
    bucket = s3.Bucket(address)
    for _ in range(3):
        listing = bucket.list("")
        folder = home / "recipes" / f"s3-{_digest(text, listing)}"
        _check(text, name, listing)
        if folder.is_dir():
            os.utime(folder)  # used now: `prune` lets go of what is old
            return folder / name
        work = folder.with_name(f".{uuid.uuid4().hex}")
        try:
            whole = _bring(bucket, listing, work)
            if whole and _digest(text, bucket.list("")) == folder.name.removeprefix("s3-"):
                work.rename(folder)
                return folder / name
        except OSError as error:
            if folder.is_dir():  # another process was quicker with the same objects
                return folder / name
            raise explain_os_error(error, folder) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    raise StoreError(
        f"{address} changed while it was fetched, three times", hint="wait until it is whole"
    )


def _digest(text: str, listing: list[s3.Listed]) -> str:
    """Names what the folder holds now."""
    entries = sorted((item.key, item.size_bytes, item.etag) for item in listing)
    return hashlib.sha256(json.dumps([text, entries]).encode()).hexdigest()[:32]


def _check(text: str, name: str, listing: list[s3.Listed]) -> None:
    if name not in {item.key for item in listing}:
        raise RecipeError(f"there is no {text}", hint=_HINT)
    size = sum(item.size_bytes for item in listing)
    if len(listing) > MOST_OBJECTS or size > MOST_BYTES:
        raise RecipeError(
            f"the folder of {text} has {len(listing)} objects and {size / 2**30:.1f} GiB; fetched "
            f"are up to {MOST_OBJECTS} and {MOST_BYTES / 2**30:g}",
            hint="give the recipe a folder of its own; data may lie elsewhere on the machine",
        )
    for item in listing:
        parts = item.key.removesuffix("/").split("/")
        if any(p in ("", ".", "..") for p in parts) or "\\" in item.key or "\0" in item.key:
            raise RecipeError(
                f"the folder of {text} holds an object {item.key[:200]!r}, which can be no file",
                hint="remove it, or give the recipe a folder of its own",
            )


def _bring(bucket: s3.Bucket, listing: list[s3.Listed], work: Path) -> bool:
    """Every object as a file; False: one is another by now."""
    work.mkdir(parents=True)
    for item in listing:
        if item.key.endswith("/"):  # what consoles write for a folder
            continue
        file = work / item.key
        file.parent.mkdir(parents=True, exist_ok=True)
        if not transfers.download(bucket, item.key, item.size_bytes, file):
            return False
        file.with_name(f"{file.name}.parts").unlink(missing_ok=True)
    return True
