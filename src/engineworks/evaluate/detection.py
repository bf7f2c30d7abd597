"""COCO mean average precision by pycocotools, the reference implementation.

Source: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from engineworks.errors import DataError, MissingDependency
from engineworks.evaluate.annotations.coco import CocoLabels

#: Position in COCOeval.stats -> name here.
STATS = {0: "AP", 1: "AP50", 2: "AP75", 3: "AP_small", 4: "AP_medium", 5: "AP_large"}


def score(
    results: list[dict[str, Any]], labels: CocoLabels, image_ids: list[int]
) -> dict[str, float]:
    """AP over IoU .50:.95 and its companions, each in 0..1; without those of unlabelled sizes.

    Args:
        results: COCO result entries of all images.
        labels: Ground truth.
        image_ids: The images that were run.

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
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = {name: float(evaluation.stats[position]) for position, name in STATS.items()}
    if scores["AP"] < 0:
        raise DataError(
            f"none of the {len(image_ids)} images has a box that counts: there is nothing to find",
            hint="give annotations with at least one box that is no crowd (iscrowd: 0)",
        )
    return {name: value for name, value in scores.items() if value >= 0}
