"""COCO mean average precision by pycocotools, the reference implementation.

Source: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from engineworks.errors import MissingDependency
from engineworks.evaluate.annotations.coco import CocoLabels

#: Position in COCOeval.stats -> name here.
STATS = {0: "AP", 1: "AP50", 2: "AP75", 3: "AP_small", 4: "AP_medium", 5: "AP_large"}


def score(
    results: list[dict[str, Any]], labels: CocoLabels, image_ids: list[int]
) -> dict[str, float]:
    """AP over IoU .50:.95 and its companions, each in 0..1; -1 where nothing is labelled.

    Args:
        results: COCO result entries of all images.
        labels: Ground truth.
        image_ids: The images that were run.

    Raises:
        MissingDependency: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "COCO mAP needs the package 'pycocotools'", hint="pip install 'engineworks[export]'"
        ) from error
    if not results:
        return dict.fromkeys(STATS.values(), 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _with_defaults(labels.raw)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(evaluation.stats[position]) for position, name in STATS.items()}


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Annotations with the fields that COCOeval reads and that simple exporters leave out."""
    annotations = []
    for position, annotation in enumerate(raw["annotations"], start=1):
        width, height = annotation["bbox"][2:]
        # Ids are counted anew: COCOeval takes id 0 for "unmatched", and equal ids for one box.
        defaults = {"iscrowd": 0, "area": width * height}
        annotations.append({**defaults, **annotation, "id": position})
    return {"info": {}, **raw, "annotations": annotations}
