"""Mean intersection over union, from how often each class is taken for each.

Source: The Pascal VOC Challenge (Everingham et al., 2015), section 6; means are over the classes
that are labelled. Pure: maps of class numbers in, figures out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def count(answer: Array, truth: Array, classes: int) -> Array:
    """How many pixels of each known class are taken for each.

    Args:
        answer: int (height, width); below 0: no answer.
        truth: The same; below 0: does not count.
        classes: How many there are.

    Returns:
        int64 (classes, classes + 1): known class, answered one; the last column has no answer.
    """
    counts = truth >= 0
    known = truth[counts].astype(np.int64)
    given = answer[counts].astype(np.int64)
    given[(given < 0) | (given >= classes)] = classes
    table = np.bincount(known * (classes + 1) + given, minlength=classes * (classes + 1))
    return np.asarray(table.reshape(classes, classes + 1))


def ious(table: Array) -> Array:
    """IoU of each class, float64 (classes,); nan for one that is not labelled."""
    right = np.diag(table[:, :-1]).astype(np.float64)
    known, given = table.sum(axis=1), table[:, :-1].sum(axis=0)
    union = known + given - right
    return np.where(known > 0, right / np.maximum(union, 1), np.nan)


def mean_iou(table: Array) -> float:
    """Mean IoU over labelled classes; 0 without any."""
    each = ious(table)
    return float(np.nanmean(each)) if np.isfinite(each).any() else 0.0


def pixel_accuracy(table: Array) -> float:
    """Share of pixels that count whose class is right."""
    return float(np.diag(table[:, :-1]).sum() / max(1, table.sum()))
