"""The manifest: what must travel with an artifact's bytes, and the artifact it identifies.

An artifact's identity is the sha256 of its manifest without provenance; of what is no engine,
without its name, too: two recipes for one model share its graph. The manifest lists the sha256 of
every file, so one digest covers the bytes and all that they need to be used rightly
(tensors, preprocessing, labels, the machine they are for). Knows no store and no stage.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engineworks import files
from engineworks.codec import digest, from_json, meaning, place, to_json
from engineworks.errors import ArtifactError
from engineworks.specs import Preprocess, TaskSpec

#: Raised when a change to these classes gives manifests another form or identity.
SCHEMA = 2

#: Schema whose manifests all had their name in their identity; they are read and keep it.
NAMED = 1

MANIFEST_NAME = "manifest.json"

#: Of a manifest file: labels, layers and settings of the largest known have some 2 MB.
_MOST_BYTES = 2**26

#: Elements of one tensor: 8 GiB of float32.
_MOST_ELEMENTS = 2**31

_DTYPE = re.compile(r"u?int\d+|b?float\d+\w*|bool|string|object|complex\d+")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: `shape` holds numbers, and names for open dimensions."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an artifact; `path` is relative, with forward slashes."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Requires:
    """What a machine must have to open an engine; an empty field asks for nothing."""

    runtime: str
    """Name of the file in `engineworks.runtime.engines` that opens it."""
    package: str = ""
    """Package version it was built with, for example `onnxruntime==1.32.0`."""
    arch: str = ""
    """`platform.machine()` of the builder, when the bytes depend on it."""
    cpu_flags: tuple[str, ...] = ()
    """CPU instruction sets that the bytes were specialised for."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an artifact comes from. Not part of its identity."""

    stage: str
    parents: tuple[str, ...] = ()
    recipe_sha256: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a consumer needs beside the bytes."""

    kind: str
    name: str = place()
    """Of the model, as the recipe has it that made this artifact first. An engine says what it is
    called wherever it goes: of its identity it is a part."""
    entry: str
    """The file to open first, relative to the artifact's folder."""
    files: tuple[FileEntry, ...]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    preprocess: Preprocess | None = None
    task: TaskSpec | None = None
    target: str = ""
    precision: str = ""
    requires: Requires | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """Facts that only this kind of artifact has."""
    provenance: Provenance = place()
    schema: int = SCHEMA

    @property
    def sha256(self) -> str:
        """The artifact's identity."""
        if self.schema == NAMED or self.target:
            return digest({**meaning(self), "name": self.name})
        return digest(self)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def dynamic_batch(self) -> bool:
        """Whether the first input's batch dimension is open."""
        return bool(self.inputs) and not isinstance(self.inputs[0].shape[0], int)

    def batches(self, most: int) -> tuple[int, int]:
        """The smallest and the largest batch of an engine with an open one, up to `most`.

        An optimization profile (in `details`) bounds both.
        """
        bounds = self.details.get("profile", {}).get(self.inputs[0].name)
        if bounds is None:
            return 1, most
        low, high = int(bounds[0][0]), int(bounds[2][0])
        return low, max(low, min(most, high))


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Immutable bytes with a manifest. This small value travels; the bytes stay in the store."""

    kind: str
    sha256: str
    size_bytes: int = place()
    uri: str = place()
    manifest: Manifest = place()


#: Key of a manifest file's own sha256, over its bytes with this one value left empty: what is no
#: part of the identity cannot be damaged unseen either.
CHECKSUM = "checksum"

_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"')
_EMPTY = b'"checksum": ""'


def dump(manifest: Manifest) -> str:
    """Manifest as indented JSON text."""
    data = {CHECKSUM: "", **to_json(manifest)}
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(_EMPTY.decode(), f'"{CHECKSUM}": "{sha256}"', 1)


def _damaged(raw: bytes) -> bool:
    """Whether a manifest file is not as it was written; one of old has no sum to tell."""
    checksum = _CHECKSUM.search(raw)
    if checksum is None:
        return f'"{CHECKSUM}"'.encode() in raw
    return hashlib.sha256(_CHECKSUM.sub(_EMPTY, raw, count=1)).hexdigest().encode() != checksum[1]


def load(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        ArtifactError: It is missing, no JSON, or of a schema this version does not know.
    """
    try:
        raw = files.read_bytes(path, _MOST_BYTES)
        data = json.loads(raw.decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{path.parent} holds no {path.name}, so it is not an artifact",
            hint="give the folder of an engine that a run has made (engine.uri in summary.json)",
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"{path} is not readable JSON ({reason})", hint="fetch the artifact again"
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema not in (NAMED, SCHEMA):
        raise ArtifactError(
            f"{path} has schema {schema!r}; this version reads {NAMED} and {SCHEMA}",
            hint="use the version of engineworks that made the artifact, or build it anew",
        )
    if _damaged(raw):
        raise ArtifactError(
            f"{path} does not have the sum that it was written with: it was altered and nothing "
            "of it is used",
            hint="fetch the artifact again, or delete its folder and run again: it is made anew",
        )
    data.pop(CHECKSUM, None)
    manifest = from_json(Manifest, data)
    for spec in (*manifest.inputs, *manifest.outputs):
        _refuse_strange(path, spec)
    return manifest


def _refuse_strange(path: Path, spec: TensorSpec) -> None:
    sizes = [size for size in spec.shape if isinstance(size, int)]
    if min(sizes, default=1) < 1 or len(spec.shape) > 32 or math.prod(sizes) > _MOST_ELEMENTS:
        raise ArtifactError(
            f"{path}: {spec.name!r} of shape {str(list(spec.shape))[:80]} is no tensor that a "
            "machine could hold",
            hint="do not use it: ask whoever made it for the artifact again",
        )
    if not _DTYPE.fullmatch(spec.dtype):
        raise ArtifactError(
            f"{path}: {spec.name!r} has the dtype {spec.dtype[:40]!r}, which is none",
            hint="do not use it: ask whoever made it for the artifact again",
        )
