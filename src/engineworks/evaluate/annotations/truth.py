"""The boxes of a data set, in one form whoever wrote them: COCO's, named as the files are.

Chooses the reader and applies what the recipe says; formats are in modules of their own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate.annotations import turned
from engineworks.evaluate.annotations.boxes import refuse_impossible
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.annotations.masks import is_masks, mask_files
from engineworks.evaluate.annotations.matching import match
from engineworks.evaluate.annotations.yolo import is_yolo, label_files, read_yolo
from engineworks.evaluate.tasks import Look, Truth
from engineworks.facts.data import BadImage, PinnedData
from engineworks.runtime.pictures import SUFFIXES
from engineworks.specs import DataSpec

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class BoxTruth:
    """Labelled boxes; see `engineworks.evaluate.tasks.Truth`."""

    labels: CocoLabels
    source: str
    """Where they come from, for messages."""
    kept: bool = True

    def names(self, file: str) -> bool:
        """Whether the annotations list this image, boxes or none."""
        return file in self.labels.image_id

    def look(self, file: str, image: Array, stored: bytes, frame: str | None) -> Look:
        """Hold the size that the annotations give against the picture."""
        number = turned.orientation(stored, image)
        size = self.labels.size[file]
        height, width = image.shape[:2]
        reason, as_stored = turned.mismatch(file, size, (height, width), number, frame)
        return Look(reason=reason, as_stored=as_stored, orientation=number)

    def turned(self, numbers: Mapping[str, int]) -> BoxTruth:
        """Boxes of stored pictures, upright."""
        return replace(self, labels=turned.upright(self.labels, numbers))

    def objects(self, files: Sequence[str]) -> int:
        """Boxes that are no crowd.

        Raises:
            DataError: There is none.
        """
        ids = {self.labels.image_id[name] for name in files}
        rows = self.labels.raw["annotations"]
        count = sum(row["image_id"] in ids and not row["iscrowd"] for row in rows)
        if not count:
            raise DataError(
                f"the {len(files)} images have no box in {self.source} that counts: there is "
                "nothing to find",
                hint="give the annotations that belong to these images, with boxes that are no "
                "crowd (iscrowd: 0)",
            )
        return count

    def notes(self, digests: Mapping[str, str]) -> tuple[str, ...]:
        """What was left out or merged."""
        return self.labels.notes

    def save(self, path: Path) -> None:
        """COCO JSON that `read_coco` reads back as it is."""
        path.write_text(json.dumps(self.labels.raw), encoding="utf-8")


def read_boxes(
    spec: DataSpec, labels: tuple[str, ...], files: Sequence[str], *, chosen: bool, points: int = 0
) -> tuple[BoxTruth, list[BadImage]]:
    """As `read`, as a `Truth`."""
    box_labels, bad = read(spec, labels, files, chosen=chosen, points=points)
    return BoxTruth(labels=box_labels, source=spec.annotations or ""), bad


def read(
    spec: DataSpec, labels: tuple[str, ...], files: Sequence[str], *, chosen: bool, points: int = 0
) -> tuple[CocoLabels, list[BadImage]]:
    """Read the annotations and find the files of the pictures that they name.

    Args:
        spec: With annotations.
        labels: Class names in index order.
        files: All images, relative to the folder of `spec.images`.
        chosen: `files` are a list of the user's own: pictures beside it are not missed.
        points: Keypoints of every object; COCO JSON alone has them.

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
    if points and is_yolo(path):
        raise DataError(
            f"data.annotations: {path} has no keypoints that are read here",
            hint="give COCO JSON with keypoints (https://cocodataset.org/#format-data)",
        )
    if is_yolo(path):
        truth, orphans = read_yolo(spec, labels, files, folder_of(spec))
        truth = refuse_impossible(truth, path.name, accepted="impossible_boxes" in spec.accept)
        return truth, [] if chosen else orphans
    others = () if chosen else folders.find(Path(spec.images), SUFFIXES).others
    matched = match(read_coco(path, labels, points=points), files, path.name, others=others)
    truth = matched.labels
    if not truth.image_id:
        first = next(iter(matched.missing.values()), "it names no image")
        raise DataError(
            f"none of the {len(files)} images in {spec.images} is in {spec.annotations}: {first}",
            hint=f"file names must agree, for example {files[0]!r}",
        )
    truth = refuse_impossible(truth, path.name, accepted="impossible_boxes" in spec.accept)
    missing = {} if chosen else matched.missing
    return truth, [BadImage(file=name, reason=reason) for name, reason in missing.items()]


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
    if not (path.is_file() or path.is_dir()):
        wrong = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise DataError(
            f"data.annotations: {path} {wrong}",
            hint="give the COCO JSON file of these images, the folder or data.yaml of YOLO "
            "labels, or the folder of masks, relative to the recipe",
        )
    if is_masks(path):
        return dict(mask_files(path))
    return label_files(spec) if is_yolo(path) else {"": path}


def count_boxes(data: PinnedData, labels: tuple[str, ...]) -> dict[str, int]:
    """Labelled boxes by class name, on images with COCO JSON."""
    coco = read_coco(Path(data.spec.annotations or ""), labels)
    names = {row["id"]: str(row["name"]) for row in coco.raw["categories"]}
    images = {coco.image_id[name] for name in data.files}
    rows = coco.raw["annotations"]
    counted = Counter(names[box["category_id"]] for box in rows if box["image_id"] in images)
    return {name: counted[name] for name in names.values()}


def write(truth: Truth, path: Path) -> None:
    """Keep known answers as later stages read them."""
    truth.save(path)
