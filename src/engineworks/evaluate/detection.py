"""COCO mean average precision by pycocotools, the reference implementation.

Source: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

import contextlib
import io
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
    results: list[dict[str, Any]], labels: CocoLabels, image_ids: list[int], most: int = 100
) -> dict[str, float]:
    """AP over IoU .50:.95 and its companions, each in 0..1; without those of unlabelled sizes.

    Args:
        results: COCO result entries of all images.
        labels: Ground truth.
        image_ids: The images that were run.
        most: The strongest of each image that count: the task's `max_detections`. COCO's own
            summary has 100 whatever was asked for.

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
        found = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.imgIds = image_ids
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    scores = {name: _mean(evaluation, *which) for name, which in STATS.items()}
    if scores["AP"] < 0:
        raise DataError(
            f"none of the {len(image_ids)} images has a box that counts: there is nothing to find",
            hint="give annotations with at least one box that is no crowd (iscrowd: 0)",
        )
    return {name: value for name, value in scores.items() if value >= 0}


def _mean(evaluation: Any, iou: float | None, area: str) -> float:
    """Mean precision, as COCOeval.summarize takes it of (IoU, recall, class, area, limit)."""
    precision = evaluation.eval["precision"][..., evaluation.params.areaRngLbl.index(area), 0]
    if iou is not None:
        precision = precision[np.isclose(evaluation.params.iouThrs, iou)]
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0
