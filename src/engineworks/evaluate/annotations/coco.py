"""COCO JSON, read and held against the model's classes.

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CocoLabels:
    """A COCO annotation file, checked (https://cocodataset.org/#format-data)."""

    raw: dict[str, Any]
    image_id: dict[str, int]
    """File name -> image id."""
    size: dict[str, tuple[int, int]]
    """File name -> (height, width)."""
    category_id: tuple[int, ...]
    """Model class index -> category id in the file."""


def read_coco(path: Path, labels: tuple[str, ...]) -> CocoLabels:
    """Read COCO JSON and match its categories with the model's classes.

    Classes are matched by name; without `labels`, in order of category id.

    Raises:
        DataError: Not COCO JSON, or categories and labels do not fit.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        images = {image["file_name"]: image for image in raw["images"]}
        categories = {category["name"]: category["id"] for category in raw["categories"]}
        sizes = {name: (int(i["height"]), int(i["width"])) for name, i in images.items()}
        ids = {name: int(image["id"]) for name, image in images.items()}
        known_ids, known_categories = set(ids.values()), set(categories.values())
        for annotation in raw["annotations"]:
            left, top, width, height = map(float, annotation["bbox"])
            if annotation["category_id"] not in known_categories:
                raise ValueError(f"a box has the unknown category_id {annotation['category_id']}")
            if annotation["image_id"] not in known_ids:
                raise ValueError(f"a box has the unknown image_id {annotation['image_id']}")
            if not math.isfinite(left + top + width + height) or width < 0 or height < 0:
                raise ValueError(f"a box has the bbox {annotation['bbox']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"data.annotations: {path} is not COCO JSON ({type(error).__name__}: {error})",
            hint="it needs images, annotations and categories: "
            "https://cocodataset.org/#format-data",
        ) from error
    if labels:
        missing = [name for name in categories if name not in labels]
        if missing:
            raise DataError(
                f"data.annotations: category {missing[0]!r} is not among the model's "
                f"{len(labels)} labels",
                hint="use the names of the annotation file in task.labels, in the model's order",
            )
        # A class without a category cannot be in this data: -1 never matches a box.
        classes = tuple(categories.get(name, -1) for name in labels)
    else:
        classes = tuple(sorted(categories.values()))
    return CocoLabels(
        raw=raw,
        image_id=ids,
        size=sizes,
        category_id=classes,
    )
