"""The model file as the store keeps it: what was hashed is what is opened.

A file that is replaced while a run goes on, or in a cached run's past, changes nothing then. Knows
which files belong to a source, not what is in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from engineworks.export import outside
from engineworks.facts.model import PinnedModel
from engineworks.manifest import Artifact, Provenance
from engineworks.store import LocalStore, file_sha256, told_as

#: Of the model file inside its artifact, where no name of its means anything else.
FOLDER = "source"


def hold(path: Path, form: str, store: LocalStore, name: str) -> Artifact:
    """Copy a model file into the store, with those beside it that hold its weights.

    Args:
        path: The model file, or the weights file of a factory.
        form: The source's form, see `ModelSpec.form`.
        store: Keeps the copy.
        name: The recipe's.

    Raises:
        ModelError: A file that holds weights is missing, or lies elsewhere.
    """
    beside = outside.files(path) if form == "onnx" else {}
    files = {path.name: path, **beside}
    return store.hold(
        {f"{FOLDER}/{inside}": file for inside, file in files.items()},
        kind="source", name=name, entry=f"{FOLDER}/{path.name}",
        provenance=Provenance(stage="pin"),
    )  # fmt: skip


def bytes_sha256(source: Artifact) -> str:
    """Digest of the bytes of a source; its own name may be any."""
    files = {file.path: file.sha256 for file in source.manifest.files}
    own = files.pop(source.manifest.entry)
    return _digest(own, {name.removeprefix(f"{FOLDER}/"): digest for name, digest in files.items()})


def file_digest(path: Path, form: str) -> str:
    """`bytes_sha256` of a model file as it is now, without a copy.

    Raises:
        ModelError: As `hold`.
    """
    beside = outside.files(path) if form == "onnx" else {}
    return _digest(file_sha256(path), {name: file_sha256(file) for name, file in beside.items()})


def _digest(own: str, beside: Mapping[str, str]) -> str:
    others = [f"{name}\0{sha256}\n" for name, sha256 in sorted(beside.items())]
    return hashlib.sha256("".join((own, *others)).encode()).hexdigest() if others else own


@contextlib.contextmanager
def settled(model: PinnedModel, store: LocalStore) -> Iterator[PinnedModel]:
    """The model with the store's copy of its file in the place of the user's.

    What goes wrong inside is told of the user's file.

    Raises:
        ArtifactError: The copy is gone or damaged.
    """
    if model.stored is None:
        yield model
        return
    copy = store.entry(model.stored)
    with told_as(copy, model.path):
        yield dataclasses.replace(model, path=str(copy))
