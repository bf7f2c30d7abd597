"""The boxes of a data set, in one form whoever wrote them: COCO's, named as the files are.

Chooses the reader and applies what the recipe says; formats are in modules of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate.annotations.boxes import refuse_impossible
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.annotations.matching import match
from engineworks.evaluate.annotations.yolo import is_yolo, label_files, read_yolo
from engineworks.facts.data import BadImage
from engineworks.runtime.pictures import SUFFIXES
from engineworks.specs import DataSpec


def read(
    spec: DataSpec, labels: tuple[str, ...], files: Sequence[str], *, chosen: bool
) -> tuple[CocoLabels, list[BadImage]]:
    """Read the annotations and find the files of the pictures that they name.

    Args:
        spec: With annotations.
        labels: Class names in index order.
        files: All images, relative to the folder of `spec.images`.
        chosen: `files` are a list of the user's own: pictures beside it are not missed.

    Returns:
        (boxes of the pictures that are there, pictures that are named and not there).

    Raises:
        DataError: No annotations, none that can be read, or none for these pictures.
    """
    if spec.annotations is None:
        raise DataError(
            "data.annotations is missing: a detection task is scored with boxes",
            hint="give COCO JSON, or task.kind: none to check numeric parity only",
        )
    path = Path(spec.annotations)
    if is_yolo(path):
        found, orphans = read_yolo(spec, labels, files, folder_of(spec))
        found = refuse_impossible(found, path.name, accepted="impossible_boxes" in spec.accept)
        return found, [] if chosen else orphans
    others = () if chosen else folders.find(Path(spec.images), SUFFIXES).others
    matched = match(read_coco(path, labels), files, path.name, others=others)
    found = matched.labels
    if not found.image_id:
        first = next(iter(matched.missing.values()), "it names no image")
        raise DataError(
            f"none of the {len(files)} images in {spec.images} is in {spec.annotations}: {first}",
            hint=f"file names must agree, for example {files[0]!r}",
        )
    found = refuse_impossible(found, path.name, accepted="impossible_boxes" in spec.accept)
    missing = {} if chosen else matched.missing
    return found, [BadImage(file=name, reason=reason) for name, reason in missing.items()]


def folder_of(spec: DataSpec) -> Path:
    """The folder that names of images are relative to: `spec.images`, or that of a list file."""
    path = Path(spec.images)
    return path.parent if path.suffix.lower() == ".txt" else path


def answer_files(spec: DataSpec) -> dict[str, Path]:
    """Every file that the annotations consist of, by its place in a copy of them.

    A single file is its own place, empty; those of a folder are named below it.

    Raises:
        DataError: There is none.
    """
    if spec.annotations is None:
        return {}
    path = Path(spec.annotations)
    if not path.exists():
        raise DataError(
            f"data.annotations: {path} does not exist",
            hint="give the COCO JSON file of these images, or the folder or data.yaml of YOLO "
            "labels, relative to the recipe",
        )
    return label_files(spec) if is_yolo(path) else {"": path}


def write(labels: CocoLabels, path: Path) -> None:
    """Keep boxes as COCO JSON that `read_coco` reads back as it is."""
    path.write_text(json.dumps(labels.raw), encoding="utf-8")
