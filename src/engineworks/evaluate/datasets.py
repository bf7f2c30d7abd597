"""Images with known answers: listed, checked one by one, and fixed by a digest.

Knows folders and lists of images. Knows no model; what the answers are, the task's own file reads.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate import pinned, tasks
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.tasks import Look, Truth
from engineworks.facts.data import BadImage, PinnedData, Turned
from engineworks.files import read_text
from engineworks.manifest import Artifact
from engineworks.runtime.pictures import SUFFIXES, DepthCheck
from engineworks.specs import DataSpec, SealedSpec, TaskSpec
from engineworks.store import pinned_bytes

#: Name of the boxes in the artifact that `validate` leaves.
ANNOTATIONS = "annotations.json"

#: Of a text file that lists images.
LIST = ".txt"

#: What annotations end in, which may lie among the images.
_ANSWERS = {".txt", ".json", ".yaml", ".yml"}


def root_of(spec: DataSpec) -> Path:
    """The folder that names of images are relative to: `spec.images`, or that of a list file."""
    path = Path(spec.images)
    return path.parent if path.suffix.lower() == LIST else path


def list_images(spec: DataSpec) -> list[str]:
    """Image files of `spec.images`, relative to its folder, at most `spec.limit`, spread evenly.

    Those of a folder are sorted by name; those of a list file keep its order.

    Raises:
        DataError: The folder or the list is missing or holds no image, or a listed file does
            not exist.
    """
    path = Path(spec.images)
    files = _listed(path) if path.suffix.lower() == LIST else _below(path)
    for name in files:
        if not name.isprintable() or name.encode(errors="replace") != os.fsencode(name):
            raise DataError(
                f"data.images: the file name {os.fsencode(name)!r} is not readable text",
                hint="rename it to plain UTF-8",
            )
    return _sample_evenly(files, spec.limit or len(files))


def look(spec: DataSpec) -> None:
    """Refuse data that is not there, without reading it.

    Raises:
        DataError: As `list_images`, or the annotations file does not exist.
    """
    list_images(spec)
    truths.answer_files(spec)


def _below(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(
            f"data.images: {root} is not a folder",
            hint="give the folder of your images, or a .txt file that lists them, relative to "
            "the recipe",
        )
    listing = folders.find(root, SUFFIXES)
    if not listing.files:
        others = f"; hidden ones do not count: {listing.left_out[0]}" if listing.left_out else ""
        if listing.others:
            others += f"; there are {folders.by_ending(listing.others)}"
        raise DataError(
            f"data.images: {root} holds no image ({', '.join(SUFFIXES)}){others}",
            hint="put at least one labelled image there",
        )
    return list(listing.files)


def _notes(spec: DataSpec) -> list[str]:
    """What somebody would want to know of the folder before believing its score."""
    notes = []
    root = Path(spec.images)
    if root.suffix.lower() != LIST:
        listing = folders.find(root, SUFFIXES)
        if listing.left_out:
            notes.append(
                f"left out {len(listing.left_out)} hidden or system entries: "
                f"{some(listing.left_out)}"
            )
        others = listing.others
        if spec.annotations is not None:
            others = tuple(name for name in others if Path(name).suffix.lower() not in _ANSWERS)
        if others:
            notes.append(
                "left out, since no image that is read ends so: "
                f"{folders.by_ending(others)} ({some(others)})"
            )
        if listing.loops:
            notes.append(f"left out links that lead back upward: {some(listing.loops)}")
    return notes


def some(names: Sequence[str]) -> str:
    """The first names of many, and how many there are."""
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


def _listed(path: Path) -> list[str]:
    try:
        lines = read_text(path, "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.images: the list {path} cannot be read "
            f"({getattr(error, 'strerror', None) or error})",
            hint="give a text file with one image a line, relative to that file",
        ) from error
    files = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for name in files:
        if not (path.parent / name).is_file():
            raise DataError(
                f"data.images: {path} lists {name!r}, which does not exist",
                hint="paths are relative to the list's own folder",
            )
    doubled = [name for name, count in Counter(map(os.path.normpath, files)).items() if count > 1]
    if doubled:
        both = [name for name in files if os.path.normpath(name) == doubled[0]]
        raise DataError(
            f"data.images: {path} lists {both[0]!r} twice"
            + (f", the second time as {both[1]!r}" if both[0] != both[1] else ""),
            hint="list every image once",
        )
    if not files:
        raise DataError(f"data.images: {path} lists no image", hint="write one path a line into it")
    return files


def photo_files(spec: SealedSpec | None) -> list[Path]:
    """The photos that a recipe lets leave the house: `spec.pictures` of them, spread evenly.

    Raises:
        DataError: The folder, the list or a file is not there.
    """
    if spec is None or spec.photos is None:
        return []
    if isinstance(spec.photos, str):
        listed = DataSpec(images=spec.photos, limit=spec.pictures)
        try:
            return [root_of(listed) / name for name in list_images(listed)]
        except DataError as error:
            message = error.message.replace("data.images", "sealed.photos", 1)
            raise DataError(message, hint=error.hint) from error
    missing = [name for name in spec.photos if not Path(name).is_file()]
    if missing:
        raise DataError(
            f"sealed.photos: {missing[0]} does not exist",
            hint="give files, a folder or a .txt list, relative to the recipe",
        )
    return [Path(name) for name in _sample_evenly(spec.photos, spec.pictures)]


def in_both(data: PinnedData, other: PinnedData | None) -> int:
    """How many images of one set are images of the other, also as copies under other names."""
    if other is None:
        return 0
    known = {other.digests[name] for name in other.files if name in other.digests}
    paths = {(root_of(other.spec) / name).resolve() for name in other.files}
    return sum(
        data.digests.get(name) in known or (root_of(data.spec) / name).resolve() in paths
        for name in data.files
    )


def validate(
    spec: DataSpec,
    task: TaskSpec,
    labels: tuple[str, ...],
    keep: Callable[[Truth], Artifact] | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    answers: Artifact | None = None,
) -> PinnedData:
    """Decode every image once and hold labels against images.

    Args:
        spec: Images and where their labels are.
        task: What the labels are for.
        labels: Class names in index order.
        keep: Puts the known answers, as they were understood, where later stages read them.
        digests: sha256 by name of the images that were listed; None: they are listed here.
        answers: The store's copy that `spec.annotations` leads to.

    Raises:
        InputError: An image is another one than was pinned.
        DataError: An unreadable image (policy `stop`), none usable, or labels that do not fit.
    """
    if digests is None:
        digests = pinned.digests(root_of(spec), list_images(spec))
    files = list(digests)
    truth: Truth | None = None
    bad: list[BadImage] = []
    if task.judged:
        chosen = Path(spec.images).suffix.lower() == LIST
        everything = list_images(dataclasses.replace(spec, limit=None))
        truth, bad = tasks.load(task.kind).truth(spec, task, labels, everything, chosen)
        files = [name for name in files if truth.names(name)]
    depth = DepthCheck()
    with ThreadPoolExecutor(4) as pool:
        looks = dict(zip(files, pool.map(_look(spec, truth, digests, depth), files), strict=True))
    bad += [BadImage(file=name, reason=look.reason) for name, look in looks.items() if look.reason]
    usable = [name for name, look in looks.items() if not look.reason]
    _refuse_bad(spec, bad, usable, looks)
    numbers = {name: looks[name].orientation for name in usable if looks[name].orientation > 1}
    if truth and spec.frame == "unturned":
        truth = truth.turned(numbers)
    objects = truth.objects(usable) if truth else len(usable)
    kept = {name: digests[name] for name in usable}
    return PinnedData(
        spec=spec,
        files=tuple(usable),
        digests=kept,
        sha256=pinned.bytes_sha256(kept, answers, spec),
        bad=tuple(bad),
        objects=objects,
        truth=keep(truth) if keep and truth and truth.kept else None,
        notes=(
            *(truth.notes(kept) if truth else ()),
            *_notes(spec),
            *filter(None, [depth.warning]),
        ),
        turned=tuple(Turned(file=name, orientation=n) for name, n in numbers.items()),
    )


def _refuse_bad(
    spec: DataSpec,
    bad: Sequence[BadImage],
    usable: Sequence[str],
    looks: Mapping[str, Look],
) -> None:
    """Stop at images that cannot be used, as the recipe says; always where no other is left."""
    if not bad or (spec.on_bad_image != "stop" and usable):
        return
    raise DataError(
        f"{len(bad)} of {len(usable) + len(bad)} images cannot be used; the first: {bad[0].reason}",
        hint="their boxes were drawn on the pictures as they are stored: set "
        "data.frame: unturned, and they are turned upright with their pictures"
        if any(look.as_stored for look in looks.values())
        else "put it right, or go on without such images: data.on_bad_image: skip",
    )


def _look(
    spec: DataSpec, truth: Truth | None, digests: Mapping[str, str], depth: DepthCheck
) -> Callable[[str], Look]:
    def look(name: str) -> Look:
        try:
            picture = pinned.picture(root_of(spec), name, digests, spec.max_pixels)
            depth.see(picture)
            if truth is None or not truth.kept:
                return Look()
            stored = pinned_bytes(root_of(spec) / name, digests[name])
            return truth.look(name, picture.image, stored, spec.frame)
        except DataError as error:
            return Look(reason=error.message)

    return look


def images(data: PinnedData) -> Iterator[np.ndarray[Any, Any]]:
    """Decode the images in order: uint8 BGR (height, width, 3).

    Raises:
        InputError: One is not the file that was pinned.
    """
    for name in data.files:
        yield read(data, name)


def read(data: PinnedData, name: str) -> np.ndarray[Any, Any]:
    """Decode one image: uint8 BGR (height, width, 3).

    Raises:
        InputError: It is not the file that was pinned.
        DataError: It cannot be decoded.
    """
    return pinned.picture(root_of(data.spec), name, data.digests, data.spec.max_pixels).image


def sample_evenly(data: PinnedData, most: int) -> PinnedData:
    """The same data with at most so many images, spread evenly over the names."""
    return dataclasses.replace(data, files=tuple(_sample_evenly(data.files, most)))


def _sample_evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many names, evenly: the first ones of class folders are of one class."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]
