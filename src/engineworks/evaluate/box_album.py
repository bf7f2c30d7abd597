"""Answers with boxes (COCO results) as the report draws them: for tasks that find objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.evaluate import agreement, pictures
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.pictures import Differ, GalleryWords
from engineworks.facts.data import PinnedData

Array = np.ndarray[Any, Any]


class BoxAlbum:
    """See `pictures.Album`. Things are COCO results of at least `agreement.VISIBLE`."""

    words = GalleryWords(
        lead=f"Boxes with a score of at least {agreement.VISIBLE}. Two of one class that overlap "
        f"by {agreement.SAME} (IoU) are the same object.",
        columns=("boxes, source", "boxes, variant", "lost", "gained"),
        legend="A thin green box is found by both; a thick orange one by that side only. Labels "
        "that would cover another are left out.",
        things="boxes",
    )

    def __init__(self, data: PinnedData, labels: CocoLabels) -> None:
        self._ids = {name: labels.image_id[name] for name in data.files if name in labels.image_id}
        self._files = {image_id: name for name, image_id in self._ids.items()}
        self._known = Counter(entry["image_id"] for entry in labels.raw["annotations"])
        self.categories = {row["id"]: str(row["name"]) for row in labels.raw["categories"]}

    @classmethod
    def open(cls, data: PinnedData, truth: Path) -> BoxAlbum:
        """Read the annotations again.

        Raises:
            DataError: They cannot be read.
        """
        return cls(data, read_coco(truth, ()))

    @property
    def names(self) -> Mapping[str, str]:
        """See `Album`."""
        return {str(key): name for key, name in self.categories.items()}

    def file(self, image_id: int) -> str | None:
        """See `Album`."""
        return self._files.get(image_id)

    def known(self, file: str) -> int:
        """See `Album`."""
        return self._known.get(self._ids[file], 0)

    def split(self, predictions: Sequence[Any]) -> Mapping[str, list[Any]]:
        """See `Album`: best first."""
        by_file: dict[str, list[Any]] = {file: [] for file in self._ids}
        for entry in sorted(predictions, key=lambda entry: -entry["score"]):
            file = self._files.get(entry["image_id"])
            if file is not None and entry["score"] >= agreement.VISIBLE:
                by_file[file].append(entry)
        return by_file

    def differ(self, before: list[Any], after: list[Any]) -> Differ:
        """See `Album`."""
        return agreement.unmatched(before, after)

    def draw(self, image: Array, things: list[Any], alone: AbstractSet[int]) -> Array:
        """See `Album`."""
        return pictures.boxes(image, things, alone, self.categories)
