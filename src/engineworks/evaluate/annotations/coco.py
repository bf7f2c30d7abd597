"""COCO JSON, read field by field and held against the model's classes.

Source: https://cocodataset.org/#format-data. Knows no pictures: `matching` finds their files.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.errors import DataError
from engineworks.evaluate.annotations.doubled import unique_boxes
from engineworks.evaluate.annotations.fields import flag, number, read_json, text, whole

#: Read from an annotation and its picture.
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CocoLabels:
    """Known boxes, checked, in COCO's form."""

    raw: dict[str, Any]
    """`images`, `annotations` and `categories` with the fields that are read, in their types:
    bbox is (left, top, width, height) in pixels, ids of annotations count from 1."""
    image_id: dict[str, int]
    """File name -> image id."""
    size: dict[str, tuple[int, int]]
    """File name -> (height, width)."""
    category_id: tuple[int, ...]
    """Model class index -> category id; -1: no box can be of that class."""
    notes: tuple[str, ...] = ()
    """What was left out or merged, in words."""


def read_coco(path: Path, labels: tuple[str, ...], *, points: int = 0) -> CocoLabels:
    """Read COCO JSON and match its categories with the model's classes.

    Classes are matched by name; without `labels`, in order of category id. With `points`, rows keep
    the `keypoints` of that many and `num_keypoints`, and categories the points' names.

    Raises:
        DataError: Not COCO JSON, something stands there twice, or categories and labels do not
            fit.
    """
    try:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise ValueError(f"it holds {type(raw).__name__}, not an object")
        images = [_image(row, place) for place, row in enumerate(_rows(raw, "images"))]
        categories = [_category(row, i) for i, row in enumerate(_rows(raw, "categories"))]
        annotations = [_annotation(row, i) for i, row in enumerate(_rows(raw, "annotations"))]
        if points:
            categories = [
                {**row, "keypoints": _names(raw["categories"][i], i)}
                for i, row in enumerate(categories)
            ]
            annotations = [
                {**row, **_points(raw["annotations"][i], i, points)}
                for i, row in enumerate(annotations)
            ]
        _refuse_strangers(images, categories, annotations)
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.annotations: {path} is not COCO JSON "
            f"({getattr(error, 'strerror', None) or error})",
            hint="it needs images, annotations and categories: "
            "https://cocodataset.org/#format-data",
        ) from error
    return fit(path, images, categories, annotations, labels)


def fit(
    path: Path,
    images: Sequence[Row],
    categories: Sequence[Row],
    annotations: Sequence[Row],
    labels: tuple[str, ...],
) -> CocoLabels:
    """Rows in their types, each thing once, with the model's classes.

    Raises:
        DataError: One id or name has two owners, or categories and labels do not fit.
    """
    once, notes = _unique_images(path, images)
    kept, told, merged = _unique_categories(path, categories, annotations, bool(labels))
    notes += told
    for row in annotations:
        row["category_id"] = merged.get(row["category_id"], row["category_id"])
    kept, told = _without_unused(path, kept, annotations, labels)
    notes += told
    boxes, told = unique_boxes(path.name, annotations)
    notes += told
    return CocoLabels(
        raw={
            "images": once,
            # Ids are counted anew: COCOeval takes id 0 for "unmatched", and equal ids for one box.
            "annotations": [{**row, "id": i} for i, row in enumerate(boxes, start=1)],
            "categories": kept,
        },
        image_id={row["file_name"]: row["id"] for row in once},
        size={row["file_name"]: (row["height"], row["width"]) for row in once},
        category_id=_classes(kept, labels),
        notes=tuple(notes),
    )


def _rows(raw: Row, key: str) -> list[Row]:
    rows = raw.get(key)
    if not isinstance(rows, list):
        raise ValueError(f"it has no list {key!r}")
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{key}[{place}] is {type(row).__name__}, not an object")
    return rows


def _image(row: Row, place: int) -> Row:
    at = f"images[{place}]"
    size = {side: whole(row.get(side), f"{at}.{side}") for side in ("height", "width")}
    if min(size.values()) <= 0:
        raise ValueError(f"{at} is {size['width']}x{size['height']} pixels")
    name = text(row.get("file_name"), f"{at}.file_name")
    return {"id": whole(row.get("id"), f"{at}.id"), "file_name": name, **size}


def _category(row: Row, place: int) -> Row:
    at = f"categories[{place}]"
    above = row.get("supercategory")
    return {
        "id": whole(row.get("id"), f"{at}.id"),
        "name": text(row.get("name"), f"{at}.name"),
        "supercategory": above if isinstance(above, str) else "",
    }


def _annotation(row: Row, place: int) -> Row:
    at = f"annotations[{place}]"
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"{at}.bbox is {str(box)[:60]}, not left, top, width and height")
    bbox = [number(value, f"{at}.bbox") for value in box]
    area = row.get("area")
    known = number(area, f"{at}.area") if area not in (None, "") else 0.0
    return {
        "image_id": whole(row.get("image_id"), f"{at}.image_id"),
        "category_id": whole(row.get("category_id"), f"{at}.category_id"),
        "bbox": bbox,
        # An object has an area: one that is missing, or 0, is that of its box.
        "area": known if known > 0 else bbox[2] * bbox[3],
        "iscrowd": flag(row.get("iscrowd"), f"{at}.iscrowd"),
    }


def _names(row: Row, place: int) -> list[str]:
    given = row.get("keypoints") or []
    if not isinstance(given, list):
        raise ValueError(f"categories[{place}].keypoints is {str(given)[:60]}, no list of names")
    return [text(name, f"categories[{place}].keypoints") for name in given]


def _points(row: Row, place: int, count: int) -> Row:
    """x, y and visibility (0: not labelled, 1: hidden, 2: visible) of each point."""
    at = f"annotations[{place}].keypoints"
    given = row.get("keypoints") or [0] * (3 * count)
    if not isinstance(given, list) or len(given) != 3 * count:
        size = len(given) if isinstance(given, list) else type(given).__name__
        raise ValueError(f"{at} has {size} numbers, {count} points need {3 * count}")
    values = [number(value, at) for value in given]
    return {"keypoints": values, "num_keypoints": sum(value > 0 for value in values[2::3])}


def _refuse_strangers(
    images: Sequence[Row], categories: Sequence[Row], annotations: Sequence[Row]
) -> None:
    known = {
        "image_id": {row["id"] for row in images},
        "category_id": {row["id"] for row in categories},
    }
    for place, row in enumerate(annotations):
        for key, ids in known.items():
            if row[key] not in ids:
                raise ValueError(f"annotations[{place}] has the unknown {key} {row[key]}")


def _unique_images(path: Path, images: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Each picture once. A row that only stands there again is dropped."""
    once: list[Row] = []
    by_id: dict[int, Row] = {}
    by_name: dict[str, Row] = {}
    for row in images:
        earlier = by_id.get(row["id"])
        if earlier == row:
            continue
        if earlier is not None:
            before, other = earlier["file_name"], row["file_name"]
            raise DataError(
                f"data.annotations: {path} gives the image id {row['id']} to {before!r} and to "
                f"{other!r}: whose boxes are whose is not known",
                hint="export the annotations anew, with an id of its own for every picture",
            )
        earlier = by_name.get(row["file_name"])
        if earlier is not None:
            raise DataError(
                f"data.annotations: {path} lists {row['file_name']!r} twice, as image ids "
                f"{earlier['id']} and {row['id']}",
                hint="give the boxes of one picture one image id, and list the picture once",
            )
        once.append(row)
        by_id[row["id"]] = by_name[row["file_name"]] = row
    dropped = len(images) - len(once)
    return once, [f"{dropped} images stand in {path.name} twice, the same"] if dropped else []


def _unique_categories(
    path: Path, categories: Sequence[Row], annotations: Sequence[Row], named: bool
) -> tuple[list[Row], list[str], dict[int, int]]:
    """Each id and each name once.

    Returns:
        (categories, what was done in words, id that is no more -> id that it belongs to).
    """
    owners: dict[int, Row] = {}
    for row in categories:
        earlier = owners.setdefault(row["id"], row)
        if earlier["name"] != row["name"]:
            raise DataError(
                f"data.annotations: {path} gives the category id {row['id']} to "
                f"{earlier['name']!r} and to {row['name']!r}",
                hint="export the annotations anew, with an id of its own for every category",
            )
    boxes = Counter(row["category_id"] for row in annotations)
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in owners.values():
        by_name[plain(row["name"])].append(row)
    merged: dict[int, int] = {}
    notes = []
    for same in by_name.values():
        ids = [row["id"] for row in same]
        used = [number for number in ids if boxes[number]]
        if len(used) > 1 and not named:
            raise DataError(
                f"data.annotations: {path} has {len(ids)} categories of the name "
                f"{same[0]['name']!r} (ids {_list(ids)}), all with boxes: which class of the "
                "model each is cannot be known",
                hint="name the model's classes in task.labels, then they are taken as one",
            )
        keep = (used or ids)[0]
        merged.update({number: keep for number in ids if number != keep})
        if len(ids) > 1:
            note = f"categories {_list(ids)} are all named {same[0]['name']!r}: taken as one"
            notes.append(note)
    kept = [row for row in owners.values() if row["id"] not in merged]
    return kept, notes, merged


def _without_unused(
    path: Path, categories: list[Row], annotations: Sequence[Row], labels: tuple[str, ...]
) -> tuple[list[Row], list[str]]:
    """Without categories that no box is of and that are no class of the model."""
    used = {row["category_id"] for row in annotations}
    if labels:
        known = {plain(name) for name in labels}
        foreign = [row for row in categories if plain(row["name"]) not in known]
        missing = next((row for row in foreign if row["id"] in used), None)
        if missing is not None:
            raise DataError(
                f"data.annotations: category {missing['name']!r} is not among the model's "
                f"{len(labels)} labels",
                hint="use the names of the annotation file in task.labels, in the model's order",
            )
    else:
        # A root that only groups the others is no class. Any other may be one that is rare.
        above = {row["supercategory"] for row in categories}
        foreign = [row for row in categories if row["id"] not in used and row["name"] in above]
    if not foreign:
        return categories, []
    names = _list([repr(row["name"]) for row in foreign])
    kept = [row for row in categories if row not in foreign]
    return kept, [f"categories of {path.name} without a box that are no class: {names}, left out"]


def _classes(categories: Sequence[Row], labels: tuple[str, ...]) -> tuple[int, ...]:
    if not labels:
        return tuple(sorted(row["id"] for row in categories))
    by_name = {plain(row["name"]): row["id"] for row in categories}
    # A class without a category cannot be in this data: -1 never matches a box.
    return tuple(by_name.get(plain(name), -1) for name in labels)


def plain(name: str) -> str:
    """A name in one of the two ways in which Unicode writes it."""
    return unicodedata.normalize("NFC", name)


def _list(items: Sequence[Any], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
