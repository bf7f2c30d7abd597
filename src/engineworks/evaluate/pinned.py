"""Images and annotations fixed by their bytes, so that what was hashed is what is decoded.

Images stay where they are: whoever reads one holds its bytes against its digest. Annotations are
small, and every format reads them in its own way: the store keeps a copy for `validate`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from engineworks.errors import DataError
from engineworks.evaluate.annotations.truth import answer_files
from engineworks.manifest import Artifact, Provenance
from engineworks.runtime.pictures import (
    MAX_PIXELS,
    Picture,
    check_size,
    decode_picture,
    read_picture,
)
from engineworks.specs import DataSpec
from engineworks.store import LocalStore, entry_of, file_sha256, pinned_bytes, told_as

#: Of the annotations inside their artifact, where no name of theirs means anything else.
FOLDER = "answers"


def digests(root: Path, files: Sequence[str]) -> dict[str, str]:
    """sha256 of the bytes of every image, by name; empty for one that cannot be read."""

    def digest(name: str) -> str:
        try:
            return file_sha256(root / name)
        except OSError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(files, pool.map(digest, files), strict=True))


def bytes_sha256(
    images: Mapping[str, str], answers: Artifact | None, spec: DataSpec | None = None
) -> str:
    """One digest over names and bytes of all images, and over the annotations.

    Args:
        images: sha256 by name.
        answers: The store's copy of the annotations, if there are any and it keeps one.
        spec: Where the annotations lie, without a copy.
    """
    sha256 = hashlib.sha256()
    for name, digest in images.items():
        sha256.update(f"{name}\0{digest}\n".encode())
    entries = answers.manifest.files if answers else ()
    if answers is None and spec is not None:
        entries = tuple(entry_of(inside, path) for inside, path in _answer_files(spec).items())
    for entry in entries:
        # The name of what the recipe gives may be any; those below it say which image is meant.
        below = "/".join(entry.path.split("/")[2:])
        sha256.update(f"{below}\0{entry.sha256}\n".encode())
    return sha256.hexdigest()


def picture(
    root: Path, name: str, known: Mapping[str, str], max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode one image.

    Args:
        root: Folder that names are relative to.
        name: The image's.
        known: sha256 by name; one whose name is not in it is not compared.
        max_pixels: Refuse a larger one, before it is decoded.

    Raises:
        InputError: It is not the file that was pinned.
        DataError: It cannot be read or decoded.
    """
    path = root / name
    if name not in known:
        return read_picture(path, max_pixels=max_pixels)
    if not known[name]:
        raise DataError(f"{path} cannot be read", hint="check the path and its permissions")
    check_size(path, max_pixels)
    return decode_picture(pinned_bytes(path, known[name]), path.name, max_pixels=max_pixels)


def hold_answers(spec: DataSpec, store: LocalStore, name: str) -> Artifact | None:
    """Copy the annotations, a file or a folder of them, into the store; None without any.

    Raises:
        DataError: They do not exist.
    """
    if spec.annotations is None:
        return None
    inside = _answer_files(spec)
    return store.hold(
        inside, kind="answers", name=name, entry=next(iter(inside)),
        provenance=Provenance(stage="pin"),
    )  # fmt: skip


def _answer_files(spec: DataSpec) -> dict[str, Path]:
    """The annotations, by their path inside the artifact."""
    if spec.annotations is None:
        return {}
    place = PurePosixPath(FOLDER, Path(spec.annotations).name)
    return {str(place / inside): file for inside, file in answer_files(spec).items()}


@contextlib.contextmanager
def settled(spec: DataSpec, answers: Artifact | None, store: LocalStore) -> Iterator[DataSpec]:
    """The data with the store's copy of the annotations in the place of the user's.

    What goes wrong inside is told of the user's file.

    Raises:
        ArtifactError: The copy is gone or damaged.
    """
    original = spec.annotations
    if answers is None or original is None:
        yield spec
        return
    copy = store.open(answers) / FOLDER / Path(original).name
    with told_as(copy, original):
        yield dataclasses.replace(spec, annotations=str(copy))
