"""Images with known answers: listed, checked one by one, and fixed by a digest.

Knows folders and lists of images and one-folder-per-class. Knows no model; what annotation files
hold, `annotations` reads.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate import pinned
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.annotations import turned
from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.facts.data import BadImage, PinnedData, Turned
from engineworks.files import read_text
from engineworks.manifest import Artifact
from engineworks.runtime.pictures import SUFFIXES, DepthCheck
from engineworks.specs import DataSpec, TaskSpec
from engineworks.store import pinned_bytes

#: Name of the boxes in the artifact that `screen` leaves.
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
    return _spread(files, spec.limit or len(files))


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
    found = folders.find(root, SUFFIXES)
    if not found.files:
        others = f"; hidden ones do not count: {found.left_out[0]}" if found.left_out else ""
        if found.others:
            others += f"; there are {folders.by_ending(found.others)}"
        raise DataError(
            f"data.images: {root} holds no image ({', '.join(SUFFIXES)}){others}",
            hint="put at least one labelled image there",
        )
    return list(found.files)


def _notes(spec: DataSpec, task: TaskSpec, labels: tuple[str, ...], files: list[str]) -> list[str]:
    """What somebody would want to know of the folder before believing its score."""
    notes = []
    root = Path(spec.images)
    if root.suffix.lower() != LIST:
        found = folders.find(root, SUFFIXES)
        if found.left_out:
            notes.append(
                f"left out {len(found.left_out)} hidden or system entries: {_some(found.left_out)}"
            )
        others = found.others
        if spec.annotations is not None:
            others = tuple(name for name in others if Path(name).suffix.lower() not in _ANSWERS)
        if others:
            notes.append(
                "left out, since no image that is read ends so: "
                f"{folders.by_ending(others)} ({_some(others)})"
            )
        if found.loops:
            notes.append(f"left out links that lead back upward: {_some(found.loops)}")
    if task.kind == "classification":
        seen = {_class_of(name, labels) for name in files}
        without = [label for index, label in enumerate(labels) if label and index not in seen]
        if without:
            notes.append(
                f"{len(without)} of {len(labels)} labels have no picture: {_some(without)}"
            )
    return notes


def _torn(digests: Mapping[str, str], labels: tuple[str, ...]) -> list[str]:
    """Images that lie in the folders of two classes, byte for byte the same."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(sha256, name), name) for name, sha256 in digests.items()]
    torn = [
        f"{one} = {other}"
        for one, other in pairs
        if one != other and _class_of(one, labels) != _class_of(other, labels)
    ]
    if not torn:
        return []
    return [
        f"{len(torn)} images lie in the folders of two classes, one of which any model gets wrong: "
        f"{_some(torn)}"
    ]


def _some(names: Sequence[str]) -> str:
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


def in_both(one: PinnedData, other: PinnedData | None) -> int:
    """How many images of one set are images of the other, also as copies under other names."""
    if other is None:
        return 0
    known = {other.digests[name] for name in other.files if name in other.digests}
    paths = {(root_of(other.spec) / name).resolve() for name in other.files}
    return sum(
        one.digests.get(name) in known or (root_of(one.spec) / name).resolve() in paths
        for name in one.files
    )


def _class_of(name: str, labels: tuple[str, ...]) -> int:
    folder = _spelled(name.partition("/")[0]) if "/" in name else ""
    number = _numbers(labels).get(folder)
    if number is None:
        raise DataError(
            f"data.images: {name} lies in folder {folder!r}, which is none of the "
            f"{len(labels)} labels",
            hint=f"one folder per class, named as in task.labels: {', '.join(labels[:5])}, ...",
        )
    return number


@functools.lru_cache(maxsize=8)
def _numbers(labels: tuple[str, ...]) -> dict[str, int]:
    return {_spelled(label): number for number, label in enumerate(labels) if label}


def _spelled(name: str) -> str:
    """A name as one sees it: macOS writes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def class_ids(data: PinnedData, labels: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """Class index of every image of a classification set, int64 (n,)."""
    return np.array([_class_of(name, labels) for name in data.files], np.int64)


def screen(
    spec: DataSpec,
    task: TaskSpec,
    labels: tuple[str, ...],
    keep: Callable[[CocoLabels], Artifact] | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    answers: Artifact | None = None,
) -> PinnedData:
    """Decode every image once and hold labels against images.

    Args:
        spec: Images and where their labels are.
        task: What the labels are for.
        labels: Class names in index order.
        keep: Puts the boxes, as they were understood, where later stages read them.
        digests: sha256 by name of the images that were listed; None: they are listed here.
        answers: The store's copy that `spec.annotations` leads to.

    Raises:
        InputError: An image is another one than was pinned.
        DataError: An unreadable image (policy `stop`), none usable, or labels that do not fit.
    """
    if digests is None:
        digests = pinned.digests(root_of(spec), list_images(spec))
    files = list(digests)
    truth: CocoLabels | None = None
    bad: list[BadImage] = []
    if task.kind == "detection":
        everything = list_images(dataclasses.replace(spec, limit=None))
        chosen = Path(spec.images).suffix.lower() == LIST
        truth, bad = truths.read(spec, labels, everything, chosen=chosen)
        files = [name for name in files if name in truth.image_id]
    elif task.kind == "classification":
        for name in files:
            _class_of(name, labels)
    named, usable = len(files) + len(bad), []
    depth = DepthCheck()
    with ThreadPoolExecutor(4) as pool:
        looks = dict(zip(files, pool.map(_look(spec, truth, digests, depth), files), strict=True))
    for name, look in looks.items():
        if look.reason:
            bad.append(BadImage(file=name, reason=look.reason))
        else:
            usable.append(name)
    if bad and (spec.on_bad_image == "stop" or not usable):
        raise DataError(
            f"{len(bad)} of {named} images cannot be used; the first: {bad[0].reason}",
            hint="their boxes were drawn on the pictures as they are stored: set "
            "data.frame: unturned, and they are turned upright with their pictures"
            if any(look.as_stored for look in looks.values())
            else "put it right, or go on without such images: data.on_bad_image: skip",
        )
    numbers = {name: looks[name].orientation for name in usable if looks[name].orientation > 1}
    if truth and spec.frame == "unturned":
        truth = turned.upright(truth, numbers)
    objects = _count_boxes(truth, usable) if truth else len(usable)
    if not objects:
        raise DataError(
            f"the {len(usable)} images have no box in {spec.annotations} that counts: there is "
            "nothing to find",
            hint="give the annotations that belong to these images, with boxes that are no crowd "
            "(iscrowd: 0)",
        )
    kept = {name: digests[name] for name in usable}
    return PinnedData(
        spec=spec,
        files=tuple(usable),
        digests=kept,
        sha256=pinned.bytes_sha256(kept, answers, spec),
        bad=tuple(bad),
        objects=objects,
        truth=keep(truth) if keep and truth else None,
        notes=(
            *(truth.notes if truth else ()),
            *_notes(spec, task, labels, usable),
            *(_torn(kept, labels) if task.kind == "classification" else ()),
            *filter(None, [depth.warning]),
        ),
        turned=tuple(Turned(file=name, orientation=n) for name, n in numbers.items()),
    )


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What decoding one image has shown."""

    reason: str = ""
    """Why it cannot be used."""
    as_stored: bool = False
    """Whether that is only because its boxes are of the picture before it was turned upright."""
    orientation: int = 1
    """EXIF's number, of an image with boxes that the decoder has turned."""


def _look(
    spec: DataSpec, truth: CocoLabels | None, digests: Mapping[str, str], depth: DepthCheck
) -> Callable[[str], _Look]:
    def look(name: str) -> _Look:
        try:
            picture = pinned.picture(root_of(spec), name, digests, spec.max_pixels)
            depth.see(picture)
            image = picture.image
            data = pinned_bytes(root_of(spec) / name, digests[name]) if truth else b""
        except DataError as error:
            return _Look(reason=error.message)
        if truth is None:
            return _Look()
        number = turned.orientation(data, image)
        height, width = image.shape[:2]
        reason, as_stored = turned.mismatch(
            name, truth.size[name], (height, width), number, spec.frame
        )
        return _Look(reason=reason, as_stored=as_stored, orientation=number)

    return look


def _count_boxes(truth: CocoLabels, files: list[str]) -> int:
    ids = {truth.image_id[name] for name in files}
    return sum(row["image_id"] in ids and not row["iscrowd"] for row in truth.raw["annotations"])


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


def spread(data: PinnedData, most: int) -> PinnedData:
    """The same data with at most so many images, spread evenly over the names."""
    return dataclasses.replace(data, files=tuple(_spread(data.files, most)))


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many names, evenly: the first ones of class folders are of one class."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]
