"""Boxes that cannot be: found, counted, and recognised for what they were meant as.

Pure: numbers in, words out. Knows no file format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from engineworks.errors import DataError
from engineworks.evaluate.annotations.coco import CocoLabels

Array = np.ndarray[Any, Any]

#: A box may pass the picture's edge by so many pixels, or by this share of its side.
SLACK_PX = 1.0
SLACK = 0.01

#: Above this share of impossible boxes they are no slips of a hand.
MOST = 0.2

#: So many boxes that one other reading explains without exception prove that reading.
PROOF = 10

#: Impossible boxes that are named.
NAMED = 3

#: Other ways to write four numbers, in words -> (left, top, width, height) of each.
READINGS: tuple[tuple[str, Callable[[Array, Array], Array]], ...] = (
    ("fractions of the picture's sides, not pixels", lambda box, size: box * np.hstack([size] * 2)),
    (
        "corners (left, top, right, bottom)",
        lambda box, size: np.hstack([box[:, :2], box[:, 2:] - box[:, :2]]),
    ),
    ("(top, left, height, width)", lambda box, size: box[:, [1, 0, 3, 2]]),
    (
        "centre and size (centre x, centre y, width, height)",
        lambda box, size: np.hstack([box[:, :2] - box[:, 2:] / 2, box[:, 2:]]),
    ),
)


def refuse_impossible(labels: CocoLabels, source: str, *, accepted: bool) -> CocoLabels:
    """Labels without boxes that have no area; others that cannot be stay, and are told.

    A box cannot be when it has no area, is smaller than a pixel, or leaves its picture.

    Args:
        labels: In source pixels.
        source: Name of the annotations, for messages.
        accepted: The user knows of them.

    Raises:
        DataError: They are too many, or all boxes make sense when read in another way.
    """
    rows = labels.raw["annotations"]
    if not rows:
        return labels
    by_id = {row["id"]: row for row in labels.raw["images"]}
    owners = [by_id[row["image_id"]] for row in rows]
    box = np.array([row["bbox"] for row in rows], np.float64)
    size = np.array([(row["width"], row["height"]) for row in owners], np.float64)
    wrong = ~possible(box, size)
    if not wrong.any():
        return labels
    count, share = int(wrong.sum()), float(wrong.mean())
    first = "; ".join(
        f"{[round(value, 4) for value in box[i].tolist()]} on {owners[i]['file_name']}, "
        f"{owners[i]['width']}x{owners[i]['height']} pixels"
        for i in np.flatnonzero(wrong)[:NAMED]
    )
    complaint = (
        f"{count} of {len(rows)} boxes in {source} cannot be (left, top, width, height): {first}"
    )
    meant, certain = looks_like(box, size)
    if not accepted and (share > MOST or certain):
        raise DataError(
            f"data.annotations: {complaint}. They look like {meant}",
            hint="write the boxes as left, top, width and height in pixels of the picture; if they "
            "are right as they are (objects that go on beyond the edge), set "
            "data.accept: [impossible_boxes]",
        )
    flat = {int(i) for i in np.flatnonzero((box[:, 2:] <= 0).any(axis=1))}
    dropped = f"; {len(flat)} without area are left out" if flat else ""
    kept = [row for i, row in enumerate(rows) if i not in flat]
    return dataclasses.replace(
        labels,
        raw={**labels.raw, "annotations": kept},
        notes=(*labels.notes, complaint + dropped),
    )


def possible(box: Array, size: Array) -> Array:
    """Whether each box can be one of its picture, bool (n,).

    Args:
        box: (n, 4) left, top, width, height in pixels.
        size: (n, 2) width, height of the pictures.
    """
    slack = np.maximum(SLACK_PX, SLACK * size)
    low, high = box[:, :2], box[:, :2] + box[:, 2:]
    inside = ((low >= -slack) & (high <= size + slack)).all(axis=1)
    has_area = (box[:, 2:] > 0).all(axis=1) & (box[:, 2:] >= 1).any(axis=1)
    return np.asarray(inside & has_area)


def looks_like(box: Array, size: Array) -> tuple[str, bool]:
    """What the boxes were meant as, in words, and whether that is certain.

    Certain is a reading under which each of many boxes is possible.
    """
    best, share = "", 0.0
    for meaning, read in READINGS:
        fits = float(possible(read(box, size), size).mean())
        if fits > share:
            best, share = meaning, fits
    exchanged = float(possible(box, size[:, ::-1]).mean())
    if exchanged > share:
        best, share = "boxes of pictures whose width and height are exchanged (EXIF)", exchanged
    if share >= 0.9:
        # Centres are near enough to corners to fit a few boxes at random.
        return best, share == 1.0 and len(box) >= PROOF and not best.startswith("centre")
    reach = float(((box[:, :2] + box[:, 2:]) / size).max())
    if reach > 1 + SLACK:
        return f"boxes of other or larger pictures: they reach to {reach:.2f} times the side", False
    return "slips of the tool that wrote them", False
