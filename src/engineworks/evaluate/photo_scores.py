"""A metric on any part of the photos, of answers that were given to all of them.

What two versions are held against each other by, photo for photo. Pure: knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.evaluate.precision import average, matches, sides

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class PhotoScores:
    """How good answers are on some of the photos."""

    metric: str
    photos: int
    on: Callable[[Sequence[int]], float]
    """The metric on the photos of these places, 0 to `photos` - 1."""
    right: Array | None = None
    """bool (photos,), where each is right or wrong by itself and the metric is the share."""


def of_objects(
    results: Sequence[dict[str, Any]],
    labels: CocoLabels,
    ids: list[int],
    sigmas: Sequence[float] | None = None,
) -> PhotoScores:
    """AP of found objects; photos without a labelled one count, too.

    Args:
        results: COCO results on these images.
        labels: Their objects; crowds are left aside.
        ids: The images that were run.
        sigmas: Spread of each point, where objects overlap by their points.
    """
    answers, truths = sides(results, labels, ids, sigmas, every=True)
    held = matches(answers, truths)
    return PhotoScores(
        metric="AP", photos=len(held), on=lambda places: average([held[place] for place in places])
    )


def of_classes(answers: Array, truths: Array) -> PhotoScores:
    """Top-1 of answered classes: int (photos,) each."""
    right = answers == truths
    return PhotoScores(
        metric="top1", photos=len(right), right=right,
        on=lambda places: float(right[np.array(places, int)].mean()) if len(places) else 0.0,
    )  # fmt: skip
