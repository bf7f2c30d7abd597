"""Engines by the name that they are registered under: `models:/name@alias`, `models:/name/3`.

Asks MLflow's REST API and nothing of MLflow's package, so that a device needs none. The version's
tag `sha256` says which engine it is; that one, and no other, is fetched and opened.
Source: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from engineworks import store
from engineworks.errors import ArtifactError, StoreError
from engineworks.runtime.fetching import ArtifactSource, Http, bring, home_store, quoted, s3_folder

SCHEME = "models:/"

#: name@alias or name/version.
_NAMED = re.compile(r"(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>[0-9]+))")

#: Bytes of one answer of the registry.
_MOST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version."""

    name: str
    version: str
    sha256: str
    """Identity of its engine."""
    source: ArtifactSource


@dataclass(frozen=True, kw_only=True)
class _RunFolder:
    """A folder among the artifacts of an MLflow run, as its server gives them."""

    http: Http
    run_id: str
    folder: str

    def read(self, name: str) -> Iterator[bytes]:
        """See `ArtifactSource`."""
        path = quoted(f"{self.folder}/{name}".lstrip("/"))
        return self.http.get(f"/get-artifact?path={path}&run_uuid={quoted(self.run_id)}")


def is_address(text: str) -> bool:
    """Whether a text names what must be fetched before it can be opened."""
    return text.startswith((SCHEME, "s3://"))


def fetch(address: str, sha256: str = "", place: Path | None = None) -> Path:
    """The folder of an engine that lies elsewhere.

    Args:
        address: `models:/name@alias`, `models:/name/version` or `s3://bucket/folder`.
        sha256: Identity that it must have, where it is known.
        place: Where it shall lie; None: in the store of the state folder.

    Raises:
        ArtifactError: There is none of this name, or it is another one.
        StoreError: Registry or store do not answer, or refuse.
    """
    if address.startswith(SCHEME):
        registered = look_up(address)
        source, wanted = registered.source, registered.sha256
        if sha256 and sha256 != wanted:
            raise ArtifactError(
                f"{address} is engine {wanted[:16]}..., not {sha256[:16]}...",
                hint="the alias has moved on: ask for the version that you mean",
            )
    else:
        source, wanted = s3_folder(address, sha256)
    return bring(source, wanted, place or home_store() / wanted[:2] / wanted)


def look_up(address: str) -> Version:
    """Ask the registry at MLFLOW_TRACKING_URI.

    Raises:
        ArtifactError: The address is none, the version is withdrawn or says not which engine it is.
        StoreError: The registry does not answer, or has no such version.
    """
    match = _NAMED.fullmatch(address.removeprefix(SCHEME))
    if match is None:
        raise ArtifactError(
            f"{address!r} names no registered version",
            hint="write models:/NAME@ALIAS or models:/NAME/VERSION, for example "
            "models:/yolox-nano@champion-openvino-int8",
        )
    http, name = server(), match["name"]
    if match["alias"]:
        query = f"registered-models/alias?name={quoted(name)}&alias={quoted(match['alias'])}"
    else:
        query = f"model-versions/get?name={quoted(name)}&version={match['version']}"
    registered = _answer(http, f"/api/2.0/mlflow/{query}").get("model_version", {})
    tags = {str(tag["key"]): str(tag.get("value", "")) for tag in registered.get("tags", [])}
    version = str(registered.get("version", ""))
    sha256 = tags.get("sha256", "")
    if not store.is_identity(sha256):
        raise ArtifactError(
            f"version {version} of {name} has no tag sha256: nothing says which engine it is",
            hint="register it with `ship`",
        )
    if tags.get("verdict", "shipped") != "shipped":
        raise ArtifactError(
            f"version {version} of {name} is {tags['verdict']}: it was withdrawn",
            hint="ask for another version, for example the champion",
        )
    run_id, _, folder = str(registered.get("source", "")).removeprefix("runs:/").partition("/")
    if not str(registered.get("source", "")).startswith("runs:/") or not folder:
        raise ArtifactError(
            f"version {version} of {name} leads to {registered.get('source')!r}, not into a run",
            hint="register it with `ship`",
        )
    source = _RunFolder(http=http, run_id=run_id, folder=folder)
    return Version(name=name, version=version, sha256=sha256, source=source)


def server() -> Http:
    """The registry's server, with the credentials that MLflow's own client would use.

    Raises:
        ArtifactError: MLFLOW_TRACKING_URI names none.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ArtifactError(
            "models:/ needs an MLflow server, and MLFLOW_TRACKING_URI names none",
            hint="set MLFLOW_TRACKING_URI=http(s)://...; of the embedded database `make ui` starts "
            "one",
        )
    host = parts.netloc.rpartition("@")[2]
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or unquote(parts.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or unquote(parts.password or "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    headers: dict[str, str] = {}
    if user:
        joined = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {joined}"
    elif token:
        headers["Authorization"] = f"Bearer {token}"
    return Http(base=urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")),
                headers=headers)  # fmt: skip


def _answer(http: Http, path: str) -> dict[str, Any]:
    raw = b""
    for block in http.get(path):
        raw += block
        if len(raw) > _MOST_BYTES:
            break
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise StoreError(
            f"{http.base} gives no JSON: it is no MLflow server",
            hint="correct MLFLOW_TRACKING_URI",
        )
    return data
