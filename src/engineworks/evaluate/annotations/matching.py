"""Which file is meant by a name in an annotation file that another system wrote.

Names only: no file is opened. Pure.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from engineworks.errors import DataError
from engineworks.evaluate.annotations.coco import CocoLabels


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Annotations whose names are those of files."""

    labels: CocoLabels
    """Of the files that are there."""
    missing: dict[str, str]
    """Name in the annotations -> why no file is meant by it."""


def match(
    labels: CocoLabels, files: Sequence[str], source: str, *, others: Sequence[str] = ()
) -> Matched:
    """Rename pictures to their files, where it is beyond doubt which is meant.

    Names that are equal come first. Others may differ in letter case, in separators and in the
    way in which Unicode writes an accent, if only one name and only one file are left for it.

    Args:
        labels: As read.
        files: Relative to the folder of images, separated by `/`.
        source: Name of the annotations, for messages.
        others: Files there that are left out since no image ends so.

    Raises:
        DataError: Two names mean one file.
    """
    there = set(files)
    exact = {name for name in labels.image_id if name in there}
    free = _by_key(name for name in files if name not in exact)
    asked = _by_key(name for name in labels.image_id if name not in exact)
    renamed: dict[str, str] = {}
    missing: dict[str, str] = {}
    taken = {_path(name): name for name in exact}
    unread = _by_key(others)
    for name in labels.image_id:
        if name not in exact and _path(name) in taken:
            raise _both(taken[_path(name)], name, source, taken[_path(name)])
    for key, names in asked.items():
        candidates = free.get(key, [])
        if len(names) == len(candidates) == 1:
            renamed[names[0]] = candidates[0]
            continue
        if len(candidates) == 1:
            raise _both(names[0], names[1], source, candidates[0])
        for name in names:
            missing[name] = (
                f"{name} could be {candidates[0]} or {candidates[1]}"
                if candidates
                else f"{name} is named in {source}, but " + _why(name, files, unread)
            )
    notes = []
    if renamed:
        name, file = next(iter(renamed.items()))
        notes.append(
            f"{len(renamed)} of {len(labels.image_id)} names in {source} differ from the files "
            f"in case, separators or accents (the first: {name!r} is {file!r})"
        )
    unnamed = len(files) - len(exact) - len(renamed)
    if unnamed:
        notes.append(f"{unnamed} of {len(files)} images are not named in {source}: left out")
    return Matched(labels=_rename(labels, renamed, missing, notes), missing=missing)


def _rename(
    labels: CocoLabels, renamed: dict[str, str], missing: dict[str, str], notes: list[str]
) -> CocoLabels:
    images = [
        {**row, "file_name": renamed.get(row["file_name"], row["file_name"])}
        for row in labels.raw["images"]
        if row["file_name"] not in missing
    ]
    ids = {row["id"] for row in images}
    return dataclasses.replace(
        labels,
        raw={
            **labels.raw,
            "images": images,
            "annotations": [row for row in labels.raw["annotations"] if row["image_id"] in ids],
        },
        image_id={row["file_name"]: row["id"] for row in images},
        size={row["file_name"]: (row["height"], row["width"]) for row in images},
        notes=(*labels.notes, *notes),
    )


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_key[_key(name)].append(name)
    return by_key


def _path(name: str) -> str:
    """A path as this system writes it."""
    return "/".join(PurePosixPath(name.replace("\\", "/")).parts)


def _key(name: str) -> str:
    """What two spellings of one path have in common."""
    return unicodedata.normalize("NFC", _path(name)).casefold()


def _both(name: str, other: str, source: str, file: str) -> DataError:
    return DataError(
        f"data.annotations: {name!r} and {other!r} in {source} both mean {file!r}",
        hint="list every picture once",
    )


def _why(name: str, files: Sequence[str], unread: Collection[str]) -> str:
    """Why no file is read for a name, whose key may be that of one that is left out."""
    if _key(name) in unread:
        return (
            "no image that is read ends so: the file is there; convert it, or give it the ending "
            "of its format"
        )
    return "there is no such file" + _elsewhere(name, files)


def _elsewhere(name: str, files: Sequence[str]) -> str:
    """Where a file of that bare name is, for the one who set the wrong folder."""
    bare = _key(name).rpartition("/")[2]
    twin = next((file for file in files if _key(file).rpartition("/")[2] == bare), None)
    return f" (there is {twin}: is data.images the folder that the names begin in?)" if (
        twin is not None
    ) else ""  # fmt: skip
