"""Files that travel with a prepared run: photos and a recipe's own decoder, packed and unpacked.

They are artifacts in the store that all machines share, named by their bytes.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engineworks.errors import ArtifactError, DataError
from engineworks.evaluate import datasets
from engineworks.facts.data import PinnedData
from engineworks.facts.model import PinnedModel
from engineworks.facts.prepared import Attachments, PreparedModel
from engineworks.manifest import Artifact, Provenance
from engineworks.prepared import PreparedRun
from engineworks.recipe import Loaded
from engineworks.store import LocalStore

#: Folder of the photos in a data artifact, and the name of the annotations beside it.
IMAGES = "images"
ANNOTATIONS = "annotations.json"
#: Empty files hold a place in an artifact that must have an entry.
ENTRY = "contents.txt"


def pack(store: LocalStore, loaded: Loaded, prepared: PreparedRun) -> PreparedRun:
    """Put photos and the recipe's own code into the store."""
    model = prepared.model
    attachments = Attachments(
        data=pack_data(store, model.data, prepared.name) if model.data else None,
        code=_pack_code(store, loaded, model.pinned) if loaded.own_decoder else None,
    )
    return dataclasses.replace(prepared, attachments=attachments)


def pack_data(store: LocalStore, data: PinnedData, name: str) -> Artifact:
    """Put photos and their labels into the store.

    Raises:
        InputError: One of them is another one by now, or lies outside the folder.
    """
    root = datasets.root_of(data.spec)
    away = [file for file in data.files if Path(file).is_absolute() or ".." in Path(file).parts]
    if away:
        raise DataError(
            f"data.images lists {away[0]!r}, which lies outside the list's own folder: other "
            "machines could not be told of it",
            hint="put the list above all of its images",
        )
    files = {f"{IMAGES}/{file}": root / file for file in data.files}
    digests = {f"{IMAGES}/{file}": sha256 for file, sha256 in data.digests.items()}
    if data.truth is not None:
        files[ANNOTATIONS] = store.entry(data.truth)
    return _put(store, files, digests, "data", name)


def _pack_code(store: LocalStore, loaded: Loaded, pinned: PinnedModel) -> Artifact:
    """The files of the recipe's own decoder that lie beside the recipe."""
    digests = next(c.files for c in pinned.code if c.reference == loaded.recipe.task.layout)
    beside = {name for name in digests if (loaded.folder / name).is_file()}
    files = {name: loaded.folder / name for name in beside}
    return _put(store, files, digests, "code", loaded.recipe.name)


def _put(
    store: LocalStore, files: dict[str, Path], digests: Mapping[str, str], kind: str, name: str
) -> Artifact:
    """Files as one artifact, if they are those that were pinned.

    Raises:
        InputError: One of them is another one by now.
    """
    with tempfile.TemporaryDirectory() as work:
        entry = Path(work, ENTRY)
        entry.write_text(f"{len(files)} files\n", encoding="ascii")
        return store.put(
            {**files, ENTRY: entry}, digests, kind=kind, name=name, entry=ENTRY,
            provenance=Provenance(stage="order"),
        )  # fmt: skip


def unpack(prepared: PreparedRun, store: LocalStore) -> tuple[PreparedRun, Path]:
    """Fetch the attachments of a run of another machine, or of another day.

    Returns:
        The run, its paths leading somewhere here, and the folder of the recipe's own code.

    Raises:
        ArtifactError: Something of it is nowhere, or damaged.
        StoreError: The store cannot be reached, or the disk is full.
    """
    attached = prepared.attachments
    data = store.open(attached.data) if attached.data else None
    folder = store.open(attached.code) if attached.code else store.root
    model, *sized = (
        _settle(model, store, data, folder) for model in (prepared.model, *prepared.sized)
    )
    return dataclasses.replace(prepared, model=model, sized=tuple(sized)), folder


def _settle(
    model: PreparedModel, store: LocalStore, data: Path | None, folder: Path
) -> PreparedModel:
    pinned = model.data
    if pinned is not None and data is not None:
        pinned = _unpacked(pinned, data)
    return dataclasses.replace(
        model,
        shared=dataclasses.replace(model.shared, store=str(store.root)),
        pinned=dataclasses.replace(model.pinned, folder=str(folder)),
        data=pinned,
    )


def _unpacked(pinned: PinnedData, folder: Path) -> PinnedData:
    spec = dataclasses.replace(
        pinned.spec,
        images=str(folder / IMAGES),
        annotations=str(folder / ANNOTATIONS) if pinned.spec.annotations else None,
    )
    return dataclasses.replace(pinned, spec=spec)


def settled(store: LocalStore, data: PinnedData, files: Artifact | None) -> PinnedData:
    """Photos and labels, their paths leading somewhere here.

    Args:
        store: The store.
        data: As they were pinned.
        files: What `pack_data` made of them; None: they lie where they lay.

    Raises:
        ArtifactError: They are nowhere here, or damaged.
    """
    if files is not None:
        return _unpacked(data, store.open(store.get(files.sha256)))
    if not Path(data.spec.images).exists():
        raise ArtifactError(
            f"the photos {data.spec.images} are not on this machine",
            hint="promote where they are, or bring them back",
        )
    if data.truth is None:
        return data
    annotations = str(store.entry(store.get(data.truth.sha256)))
    return dataclasses.replace(data, spec=dataclasses.replace(data.spec, annotations=annotations))
