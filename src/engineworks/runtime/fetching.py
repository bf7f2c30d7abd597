"""Brings an engine from elsewhere into a folder of its own, whole or not at all.

The manifest comes first and must be the one that was asked for; it then says which files there are,
how long they are and what they hold. Knows folders over HTTP and on S3, and no registry
(`registered.py`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from engineworks import manifest as manifests
from engineworks import store
from engineworks.deadlines import within
from engineworks.errors import ArtifactError, MissingDependency, StoreError, said
from engineworks.manifest import MANIFEST_NAME

#: Of a manifest file.
_MOST_MANIFEST = 2**26

_BLOCK = 2**20

#: Seconds without a byte after which a server counts as away.
_PATIENCE_S = 30.0
#: An answer that comes more slowly than this is given up, after that patience.
_LEAST_PER_S = 256


class ArtifactSource(Protocol):
    """A folder that lies elsewhere."""

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes, in blocks.

        Raises:
            StoreError: It is not there, or whoever has it does not answer.
        """
        ...


def home_store() -> Path:
    """The store of the state folder, where what is brought stays."""
    return Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks").absolute() / "store"


def bring(source: ArtifactSource, sha256: str, place: Path) -> Path:
    """Fetch an artifact, or take the whole one that lies at `place` already.

    Args:
        source: Where it is.
        sha256: Identity that it must have.
        place: Its folder, which appears whole or not at all.

    Raises:
        ArtifactError: It is another one, or its bytes are not those that its manifest lists.
        StoreError: The source does not answer, or the disk is full.
    """
    if place.exists():
        with contextlib.suppress(ArtifactError):
            store.verify(place, sha256)
            return place
        raise ArtifactError(
            f"{place} is there already, and is not the artifact {sha256[:16]}...",
            hint="remove it, or give another folder",
        )
    work = place.parent / f".{uuid.uuid4().hex}"
    try:
        work.mkdir(parents=True)
        _save(source, MANIFEST_NAME, work / MANIFEST_NAME, _MOST_MANIFEST)
        manifest = manifests.load(work / MANIFEST_NAME)
        if manifest.sha256 != sha256:
            raise ArtifactError(
                f"what was fetched is artifact {manifest.sha256[:16]}..., not {sha256[:16]}...",
                hint="do not use it: the registry's tag and the files that it leads to disagree",
            )
        store.refuse_strange_paths(work, manifest)
        for entry in manifest.files:
            _save(source, entry.path, work / entry.path, entry.size_bytes)
        store.verify(work, sha256)
        with contextlib.suppress(OSError):  # another process was quicker: its bytes are the same
            work.rename(place)
        store.verify(place, sha256)
    except OSError as error:
        raise store.explain_os_error(error, place.parent) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def _save(source: ArtifactSource, name: str, path: Path, most: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with path.open("wb") as stream:
        for block in source.read(name):
            size += len(block)
            if size > most:
                raise ArtifactError(
                    f"{name} has more than the {most} bytes that it should have",
                    hint="do not use it: ask whoever registered it",
                )
            stream.write(block)


class _Staying(HTTPRedirectHandler):
    """Follows no redirect to another host: credentials and trust are this one's."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """See `HTTPRedirectHandler`."""
        if urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            raise StoreError(
                f"{urlsplit(req.full_url).netloc} sends us to {urlsplit(newurl).netloc}",
                hint="give the address of the server itself",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True, kw_only=True)
class Http:
    """What answers over HTTP."""

    base: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Iterator[bytes]:
        """The body of an answer, in blocks.

        Raises:
            StoreError: It refuses, or does not answer.
        """
        request = Request(f"{self.base}{path}")  # noqa: S310 - `base` is http or https
        for name, value in self.headers.items():
            request.add_unredirected_header(name, value)
        where = f"{urlsplit(self.base).scheme}://{urlsplit(self.base).netloc}"
        try:
            opener = build_opener(_Staying)
            # A server that drips its head renews the patience for each byte of it.
            with within(
                2 * _PATIENCE_S, lambda: opener.open(request, timeout=_PATIENCE_S)
            ) as answer:
                yield from _paced(answer, where)
        except HTTPError as error:
            reason = _reason(error)
            raise StoreError(
                f"{where} refuses {path.partition('?')[0]} ({error.code}: {reason})",
                hint="check the name, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                if error.code in (401, 403)
                else "check that it is registered there, and its files are",
            ) from None
        except (URLError, OSError, ValueError, HTTPException) as error:
            raise StoreError(
                f"{where} does not answer ({said(getattr(error, 'reason', error))})",
                hint="start it, or correct its address",
            ) from None


def _reason(error: HTTPError) -> str:
    """What a server says of its refusal, if it says it in time."""
    try:
        return said(within(_PATIENCE_S, lambda: error.read(2000)).decode(errors="replace"))
    except (OSError, HTTPException, ValueError):
        return str(error.reason)


def _paced(answer: Any, where: str) -> Iterator[bytes]:
    """What comes of an answer: every byte is waited for, and all of them not for ever.

    Raises:
        StoreError: It comes far too slowly.
    """
    begun, size = time.monotonic(), 0
    while block := within(2 * _PATIENCE_S, lambda: answer.read1(_BLOCK)):
        size += len(block)
        yield block
        took_s = time.monotonic() - begun
        if took_s > _PATIENCE_S and size / took_s < _LEAST_PER_S:
            raise StoreError(
                f"{where} sends {size / took_s:.0f} bytes a second, too few to wait for",
                hint="try again when the server or the connection is better",
            )


@dataclass(frozen=True, kw_only=True)
class S3Folder:
    """A folder in a bucket; credentials and endpoint are those of AWS's own variables."""

    bucket: str
    prefix: str

    def read(self, name: str) -> Iterator[bytes]:
        """See `ArtifactSource`."""
        try:
            import boto3
        except ModuleNotFoundError as error:
            raise MissingDependency(
                "an s3:// address needs the package 'boto3'", hint="pip install boto3"
            ) from error
        key = f"{self.prefix}/{name}".lstrip("/")
        try:
            body = boto3.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"]
            yield from body.iter_chunks(_BLOCK)
        except Exception as error:  # botocore's are many, and not imported for their names
            raise StoreError(
                f"s3://{self.bucket}/{key} cannot be read ({type(error).__name__}: {said(error)})",
                hint="check the address, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                "AWS_ENDPOINT_URL",
            ) from None


def s3_folder(uri: str, sha256: str) -> tuple[ArtifactSource, str]:
    """What an `s3://bucket/folder` means: the folder, and the identity it must have.

    Raises:
        ArtifactError: Neither the folder's name nor the caller says which artifact it is.
    """
    parts = urlsplit(uri)
    folder = parts.path.strip("/")
    named = folder.rpartition("/")[2]
    wanted = sha256 or (named if store.is_identity(named) else "")
    if not wanted:
        raise ArtifactError(
            f"{uri}: nothing says which engine must lie there",
            hint="give its identity: open(uri, sha256=...), or pull --sha256",
        )
    return S3Folder(bucket=parts.netloc, prefix=folder), wanted


def quoted(text: str) -> str:
    """Text as a value in an address."""
    return quote(text, safe="")
