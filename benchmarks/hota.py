"""HOTA (arXiv:2009.07736), the tracking score that weighs detection and association alike.

Knows no tracker and no file format. Compared with TrackEval 1.3: equal to six decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

#: Frame -> (ids (n,), boxes (n, 4) as left, top, right, bottom in pixels).
Tracks = Mapping[int, tuple[Any, Any]]

ALPHAS = np.arange(0.05, 0.99, 0.05)


def overlap(first: Any, second: Any) -> Any:
    """IoU (n, m) of boxes (n, 4) and (m, 4)."""
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=2)
    area = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (first, second)]
    return shared / np.maximum(area[0][:, None] + area[1][None] - shared, 1e-12)


def hota(truth: Tracks, found: Tracks) -> float:
    """HOTA in percent, the mean over the overlap thresholds 0.05 to 0.95."""
    gt_index, gt_count = _count(truth)
    our_index, our_count = _count(found)
    frames = []
    potential = np.zeros((len(gt_index), len(our_index)))
    for frame in sorted(set(truth) | set(found)):
        empty = (np.zeros(0, int), np.zeros((0, 4)))
        ids, boxes = truth.get(frame, empty)
        our_ids, our_boxes = found.get(frame, empty)
        rows = np.array([gt_index[i] for i in ids], int)
        columns = np.array([our_index[i] for i in our_ids], int)
        iou = overlap(boxes, our_boxes)
        union = iou.sum(axis=0)[None] + iou.sum(axis=1)[:, None] - iou
        potential[np.ix_(rows, columns)] += np.where(
            union > 1e-12, iou / np.maximum(union, 1e-12), 0
        )
        frames.append((rows, columns, iou))
    union = gt_count[:, None] + our_count[None] - potential
    alignment = potential / np.maximum(union, 1e-12)
    matched = np.zeros((len(ALPHAS), *potential.shape))
    for rows, columns, iou in frames:
        chosen = linear_sum_assignment(-alignment[np.ix_(rows, columns)] * iou)
        for level, alpha in enumerate(ALPHAS):
            good = iou[chosen] >= alpha - 1e-12
            np.add.at(matched[level], (rows[chosen[0][good]], columns[chosen[1][good]]), 1)
    hits = matched.sum(axis=(1, 2))
    detection = hits / np.maximum(gt_count.sum() + our_count.sum() - hits, 1)
    pairs = gt_count[None, :, None] + our_count[None, None] - matched
    association = (matched * matched / np.maximum(pairs, 1)).sum(axis=(1, 2)) / np.maximum(hits, 1)
    return float(100 * np.sqrt(detection * association).mean())


def _count(tracks: Tracks) -> tuple[dict[int, int], Any]:
    ids = np.concatenate([ids for ids, _ in tracks.values()] or [np.zeros(0, int)])
    names, counts = np.unique(ids, return_counts=True)
    return {int(name): index for index, name in enumerate(names)}, counts.astype(float)
