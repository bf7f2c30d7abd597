"""`Detections` to what other tools read: COCO results, supervision.

Beside `Detections`, which knows none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engineworks.errors import MissingDependency
from engineworks.runtime.detections import Detections


def to_coco(
    detections: Detections, image_id: int, category_id: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Entries of a COCO results file (https://cocodataset.org/#format-results).

    Args:
        detections: Of one image.
        image_id: The image's id in the annotations.
        category_id: Class index -> category id; a class that it does not hold is left out. None:
            the class index itself.

    Returns:
        For each object `image_id`, `category_id`, `bbox` (left, top, width, height in pixels) and
        `score`.
    """
    entries = []
    for box, confidence, class_id in zip(
        detections.xyxy.tolist(),
        detections.confidence.tolist(),
        detections.class_id.tolist(),
        strict=True,
    ):
        if category_id is not None and class_id >= len(category_id):
            continue
        left, top, right, bottom = box
        entries.append(
            {
                "image_id": image_id,
                "category_id": class_id if category_id is None else category_id[class_id],
                "bbox": [left, top, right - left, bottom - top],
                "score": confidence,
            }
        )
    return entries


def to_supervision(detections: Detections, labels: Sequence[str] = ()) -> Any:
    """As `supervision.Detections`, with `data["class_name"]` where labels are given.

    Raises:
        MissingDependency: supervision is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "converting needs the package 'supervision'",
            hint="pip install 'engineworks[supervision]'",
        ) from error
    names = {}
    if labels:
        names["class_name"] = np.array([labels[number] for number in detections.class_id])
    return supervision.Detections(
        xyxy=detections.xyxy,
        confidence=detections.confidence,
        class_id=detections.class_id,
        tracker_id=detections.track_id,
        data=names,
    )
