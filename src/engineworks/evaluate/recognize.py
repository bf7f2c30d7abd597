"""Which detection layout a model's outputs have, told by their shapes and by what they answered.

For models whose recipe names no layout. Says how sure it is, and nothing at all where shapes and
values fit no layout that is known here. Knows arrays only: no task, no labels, no session.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engineworks.specs import Size

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]

Sure = Literal["given", "certain", "likely"]

#: Strides of detection heads with one row for every cell of their grids.
STRIDES = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64), (16, 32))

#: Anchors per cell.
ANCHORS = (1, 3)

#: Rows without cells of a grid are taken for candidates only when there are this many.
MANY = 50

#: Images whose answers are looked at.
LOOKED = 8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model's outputs are read as detections."""

    name: str
    """A word of `runtime.heads.HEADS`."""
    sure: Sure
    """given: the recipe names it; certain: shapes and values fit nothing else; likely: they fit."""
    why: str
    outputs: tuple[str, ...]
    """Names of the outputs that it reads."""
    arrange: Callable[[Outputs], dict[str, Array]]
    """Outputs of one image, without batch -> what the head of that name decodes."""


def recognize(outputs: Outputs, size: Size) -> Layout | None:
    """The layout of a model's outputs; None when they are no detections that can be told.

    Args:
        outputs: Name -> (n, ...) that the model answered to real inputs.
        size: Input (height, width).
    """
    seen = {
        name: np.asarray(array[:LOOKED], np.float64)
        for name, array in outputs.items()
        if array.ndim >= 2 and array.size and np.isfinite(array[:LOOKED]).all()
    }
    for attempt in (_finished, _lists, _queries, _cells):
        layout = attempt(seen, size)
        if layout is not None:
            return layout
    return None


# Finished boxes ------------------------------------------------------------------------------


def _finished(seen: Outputs, size: Size) -> Layout | None:
    """Rows of left, top, right, bottom, score, class; or of SSD's image, class, score, box."""
    for name, array in seen.items():
        rows = _plane(array)
        if rows is None:
            continue
        if rows.shape[2] == 6 and _is_row(rows, size):
            return Layout(
                name="end2end", sure="certain", outputs=(name,), arrange=_row_arranger(name),
                why="rows of corners, score and class",
            )  # fmt: skip
        order = [3, 4, 5, 6, 2, 1]
        if rows.shape[2] == 7 and _is_class(rows[..., 0]) and _is_row(rows[..., order], size):
            return Layout(
                name="end2end", sure="certain", outputs=(name,),
                arrange=_row_arranger(name, order, _extent(rows[..., 3:], size)),
                why="rows of image, class, score and corners",
            )  # fmt: skip
    return None


def _row_arranger(
    name: str, order: list[int] | None = None, extent: Array | None = None
) -> Callable[[Outputs], dict[str, Array]]:
    def arrange(outputs: Outputs) -> dict[str, Array]:
        rows = _flat(outputs[name])
        rows = rows if order is None else rows[:, order].astype(np.float32)
        if extent is not None:
            rows[:, :4] *= extent
        return {name: rows}

    return arrange


def _lists(seen: Outputs, size: Size) -> Layout | None:
    """Lists of boxes, scores and classes, as graphs with their own suppression end."""
    rows = {n: a for n, a in seen.items() if a.ndim == 3 and a.shape[2] in (4, 5)}
    flat = {n: a for n, a in seen.items() if a.ndim == 2 and a.shape[1] > 1}
    for name, boxes in rows.items():
        fit = {n: a for n, a in flat.items() if a.shape == boxes.shape[:2]}
        classes = [n for n, a in fit.items() if _is_class(a)]
        scores = [n for n in fit if n not in classes and _is_score(fit[n])]
        if not classes or not _is_box(boxes[..., :4], size):
            continue
        if boxes.shape[2] == 4 and not scores:
            continue
        read = (name, classes[0], *(scores[:1] if boxes.shape[2] == 4 else ()))
        return Layout(
            name="end2end", sure="certain", outputs=read,
            arrange=_list_arranger(read, _extent(boxes[..., :4], size)),
            why="lists of boxes, scores and classes",
        )  # fmt: skip
    return None


def _list_arranger(read: tuple[str, ...], extent: Array) -> Callable[[Outputs], dict[str, Array]]:
    def arrange(outputs: Outputs) -> dict[str, Array]:
        boxes = np.asarray(outputs[read[0]], np.float32)
        scores = boxes[:, 4] if len(read) == 2 else outputs[read[2]]
        columns = [boxes[:, :4] * extent, np.c_[scores], np.c_[outputs[read[1]]]]
        return {"rows": np.hstack(columns).astype(np.float32)}

    return arrange


# Candidates ----------------------------------------------------------------------------------


def _queries(seen: Outputs, size: Size) -> Layout | None:
    """Two outputs over the same queries or priors: boxes (n, q, 4) and classes (n, q, c)."""
    planes = {name: array for name, array in seen.items() if array.ndim == 3}
    boxes = [name for name, array in planes.items() if array.shape[2] == 4]
    if len(boxes) > 1:
        boxes = [name for name in boxes if "box" in name.lower()] or boxes
    for name in boxes:
        scores = [
            other for other, array in planes.items()
            if other != name and array.shape[1] == planes[name].shape[1]
        ]  # fmt: skip
        if scores and _placed(planes[name], size):
            return _with_scores(name, scores[0], planes, size)
    return None


def _with_scores(box: str, score: str, planes: Outputs, size: Size) -> Layout:
    boxes, scores = planes[box], planes[score]
    corners, extent = _has_corners(boxes), _extent(boxes, size)
    height, width = size
    flat = scores.reshape(-1, scores.shape[2])
    if _is_score(flat):
        keep = np.arange(flat.shape[1])
        if flat.shape[1] > 1 and np.mean(np.abs(flat.sum(axis=1) - 1) < 0.02) > 0.95:
            keep = np.delete(keep, int(flat.mean(axis=0).argmax()))  # the background

        def arrange(outputs: Outputs) -> dict[str, Array]:
            placed = _centres(np.asarray(outputs[box]) * extent, corners)
            return {"rows": np.hstack([placed, np.asarray(outputs[score])[:, keep]]).T}

        return Layout(
            name="yolov8", sure="certain", outputs=(box, score), arrange=arrange,
            why=f"boxes and {len(keep)} class scores of {flat.shape[0] // len(scores)} candidates",
        )  # fmt: skip

    def as_logits(outputs: Outputs) -> dict[str, Array]:
        placed = _centres(np.asarray(outputs[box]) * extent, corners)
        share = placed / np.array([width, height] * 2)
        return {"logits": np.asarray(outputs[score]), "boxes": share.astype(np.float32)}

    nothing = float(np.mean(flat.argmax(axis=1) == flat.shape[1] - 1))
    softmax = flat.shape[1] > 1 and nothing > 0.5
    strong = nothing > 0.8 if softmax else np.mean(flat < 0) > 0.9
    return Layout(
        name="detr" if softmax else "rtdetr",
        sure="certain" if strong else "likely",
        outputs=(box, score),
        arrange=as_logits,
        why="boxes and logits of queries, "
        + ("the last class is nothing" if softmax else "a sigmoid for every class"),
    )


def _cells(seen: Outputs, size: Size) -> Layout | None:
    """One row or column for every cell of a grid, or for every anchor of it."""
    for name, array in seen.items():
        plane = _plane(array)
        if plane is None:
            continue
        _, first, second = plane.shape
        known = [n for n in (first, second) if _grid(n, size) is not None]
        count = known[0] if known else max(first, second)
        turned = count != first
        rows = np.swapaxes(plane, 1, 2) if turned else plane
        if rows.shape[2] < 5 or (not known and count < MANY):
            continue
        layout = _of_rows(name, rows, size, turned=turned, grid=_grid(count, size))
        if layout is not None:
            return layout
    return None


def _of_rows(
    name: str, rows: Array, size: Size, *, turned: bool, grid: Array | None
) -> Layout | None:
    flat = rows.reshape(-1, rows.shape[2])
    classes = _leading_scores(flat[:, 4:])
    shares = np.abs(flat.sum(axis=1) - 1).max() < 0.02  # of words or letters, not boxes
    vague = grid is None and _is_score(flat)  # any map in 0..1 looks like that
    if not classes or shares or vague:
        return None
    scores = flat[:, 4 : 4 + classes]
    objectness = classes > 1 and _has_objectness(scores)
    if not _placed(rows[..., :4], size, grid):
        if grid is None or len(grid) != rows.shape[1] or not objectness:
            return None
        return Layout(
            name="yolox", sure="certain" if _raw(flat) else "likely", outputs=(name,),
            why=f"{len(grid)} cells, boxes relative to them, objectness and {classes - 1} classes",
            arrange=lambda outputs: {name: _rows_of(outputs[name], turned)[:, : 4 + classes]},
        )  # fmt: skip
    corners, extent = _has_corners(rows[..., :4]), _extent(rows[..., :4], size)

    def arrange(outputs: Outputs) -> dict[str, Array]:
        mine = _rows_of(outputs[name], turned)
        answers = mine[:, 4 : 4 + classes]
        if objectness:
            answers = answers[:, :1] * answers[:, 1:]
        return {name: np.hstack([_centres(mine[:, :4] * extent, corners), answers]).T}

    columns = f"{classes - objectness} classes" + " and objectness" * objectness
    rest = rows.shape[2] - 4 - classes
    return Layout(
        name="yolov8",
        sure="certain" if grid is not None and not rest else "likely",
        outputs=(name,),
        why=f"{rows.shape[1]} candidates of a box, {columns}"
        + (f"; {rest} further channels are not read" if rest else ""),
        arrange=arrange,
    )


def _rows_of(array: Array, turned: bool) -> Array:
    rows = _flat(array)
    return rows.T if turned else rows


def _leading_scores(columns: Array) -> int:
    """How many columns from the first on hold scores: masks' or keypoints' numbers may follow."""
    inside = (columns.min(axis=0) >= -0.01) & (columns.max(axis=0) <= 1.01)
    return int(len(inside) if inside.all() else inside.argmin())


def _has_objectness(scores: Array) -> bool:
    """Whether the first column multiplies the others: then both are high for an object.

    Where it is a class like the others, an object is high in one of them only.
    """
    first, others = scores[:, 0], scores[:, 1:].max(axis=1)
    both = float((first * others).max())
    return both >= 0.1 * float(np.maximum(first, others).max()) ** 2


def _raw(flat: Array) -> bool:
    """Whether boxes are offsets in cells and logarithms, not pixels."""
    return bool(np.percentile(np.abs(flat[:, :4]), 99) < 16)


# What values look like ------------------------------------------------------------------------


def _grid(count: int, size: Size) -> Array | None:
    """Centres (cells, 2) of the grid of so many cells (or a third of them), in pixels."""
    for strides in STRIDES:
        cells = [math.prod(side // stride for side in size) for stride in strides]
        if any(count == sum(cells) * anchors for anchors in ANCHORS):
            centres = []
            for stride in strides:
                y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
                centres.append((np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride)
            return np.concatenate(centres)
    return None


def _placed(boxes: Array, size: Size, grid: Array | None = None) -> bool:
    """Whether boxes (..., 4) lie in the image, in pixels or in 0..1."""
    flat = boxes.reshape(-1, 4)
    extent = 1 / _extent(flat, size) * np.array([size[1], size[0]] * 2)
    inside = (flat[:, :2] > -0.5 * extent[:2]) & (flat[:, :2] < 1.5 * extent[:2])
    sides = flat[:, 2:] - flat[:, :2] * _has_corners(flat)
    if inside.mean() < 0.95 or (sides >= 0).mean() < 0.95 or (sides > 2 * extent[2:]).mean() > 0.05:
        return False
    if grid is None or len(grid) != boxes.shape[-2]:
        return bool(flat[:, :2].std(axis=0).min() > 0.02 * extent[:2].min())
    # Raw offsets are positive numbers as well; only decoded boxes follow their cells.
    centres = boxes.reshape(-1, len(grid), 4).mean(axis=0)
    centres = _centres(centres, _has_corners(flat))
    with np.errstate(invalid="ignore", divide="ignore"):
        follows = [np.corrcoef(centres[:, axis], grid[:, axis])[0, 1] for axis in (0, 1)]
    return bool(np.nanmin([*follows, 1.0]) > 0.8)


def _is_row(rows: Array, size: Size) -> bool:
    """Whether rows are corners, score and class."""
    return _is_class(rows[..., 5]) and _is_score(rows[..., 4]) and _is_box(rows[..., :4], size)


def _is_box(boxes: Array, size: Size) -> bool:
    """Whether rows are corners, padding of zeros left out."""
    flat = boxes.reshape(-1, 4)
    flat = flat[np.abs(flat).sum(axis=1) > 0]
    if not len(flat):
        return False
    return _has_corners(flat) and bool(np.abs(flat).max() <= 4 * max(size))


def _has_corners(boxes: Array) -> bool:
    """Whether rows are left, top, right, bottom rather than centre and size."""
    flat = boxes.reshape(-1, 4)
    return bool((flat[:, 2:] >= flat[:, :2]).all(axis=1).mean() > 0.99)


def _centres(boxes: Array, corners: bool) -> Array:
    """Rows as centre x, centre y, width, height."""
    if not corners:
        return boxes
    return np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])


def _extent(boxes: Array, size: Size) -> Array:
    """What coordinates are multiplied with to be pixels: ones, or width and height."""
    height, width = size
    relative = float(np.percentile(np.abs(boxes), 99)) <= 2.0
    return np.array([width, height] * 2 if relative else [1] * 4, np.float32)


def _is_score(array: Array) -> bool:
    return bool(array.min() >= -0.01 and array.max() <= 1.01)


def _is_class(array: Array) -> bool:
    """Whole numbers from -1 (padding) on."""
    return bool((array == np.round(array)).all() and array.min() >= -1)


def _plane(array: Array) -> Array | None:
    """(n, rows, columns) of an output, axes of length 1 left out; None when it is none."""
    shape = [side for side in array.shape[1:] if side != 1]
    return array.reshape(len(array), *shape) if len(shape) == 2 else None


def _flat(array: Array) -> Array:
    """(rows, columns) of one image's output."""
    return array.reshape([side for side in array.shape if side != 1])
