"""COCO mean average precision by pycocotools, the reference implementation.

Of boxes by their overlap, of keypoints by OKS. Source: https://cocodataset.org/#detection-eval,
https://cocodataset.org/#keypoints-eval
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from engineworks.errors import DataError, MissingDependency
from engineworks.evaluate.annotations.coco import CocoLabels

#: Name -> (IoU, or None for the mean over .50:.95; COCOeval's name for the objects' size).
STATS: dict[str, tuple[float | None, str]] = {
    "AP": (None, "all"),
    "AP50": (0.5, "all"),
    "AP75": (0.75, "all"),
    "AP_small": (None, "small"),
    "AP_medium": (None, "medium"),
    "AP_large": (None, "large"),
}


def score(
    results: list[dict[str, Any]],
    labels: CocoLabels,
    image_ids: list[int],
    most: int = 100,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """AP over IoU .50:.95 and its companions, each in 0..1; without those of unlabelled sizes.

    Args:
        results: COCO result entries of all images.
        labels: Ground truth.
        image_ids: The images that were run.
        most: The strongest of each image that count: the task's `max_detections`. COCO's own
            summary has 100 whatever was asked for.
        sigmas: Spread of each point: objects are held against each other by OKS of their
            `keypoints`, not by their boxes.

    Raises:
        MissingDependency: pycocotools is not installed.
        DataError: Nothing is labelled on these images.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "COCO mAP needs the package 'pycocotools'", hint="pip install 'engineworks[export]'"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        # COCOeval writes into its rows.
        rows = [dict(row) for row in labels.raw["annotations"]]
        truth.dataset = {"info": {}, **labels.raw, "annotations": rows}
        truth.createIndex()
        if sigmas is not None:  # with boxes, pycocotools takes their areas for the objects'
            keys = ("image_id", "category_id", "keypoints", "score")
            results = [{key: row[key] for key in keys} for row in results]
        loaded = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, loaded, "bbox" if sigmas is None else "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas, np.float64)
        evaluation.params.imgIds = image_ids
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    known = set(evaluation.params.areaRngLbl)  # of keypoints there are no small ones
    stats = {name: which for name, which in STATS.items() if which[1] in known}
    scores = {name: _mean(evaluation, *which) for name, which in stats.items()}
    if scores["AP"] < 0:
        raise DataError(
            f"none of the {len(image_ids)} images has {'a box' if sigmas is None else 'an object'} "
            "that counts: there is nothing to find",
            hint="give annotations with at least one box that is no crowd (iscrowd: 0)"
            + ("" if sigmas is None else ", and a labelled point"),
        )
    return {name: value for name, value in scores.items() if value >= 0}


def _mean(evaluation: Any, iou: float | None, area: str) -> float:
    """Mean precision, as COCOeval.summarize takes it of (IoU, recall, class, area, limit)."""
    precision = evaluation.eval["precision"][..., evaluation.params.areaRngLbl.index(area), 0]
    if iou is not None:
        precision = precision[np.isclose(evaluation.params.iouThrs, iou)]
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0
