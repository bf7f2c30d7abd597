"""How sure a model is of one image, without labels.

Knows the outputs that the runtime itself can read; of no task and of a user's own decoder nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engineworks.evaluate.classification import answers
from engineworks.runtime.heads import HEADS
from engineworks.runtime.postprocess import DetectionPostprocessor
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.scores import confidences
from engineworks.specs import Preprocess, Size, TaskSpec

Array = np.ndarray[Any, Any]

#: Detections below this confidence do not count.
SEEN = 0.3


def sureness(
    infer: Callable[[Array], Mapping[str, Array]],
    task: TaskSpec,
    labels: int,
    preprocess: Preprocess,
    size: Size,
) -> Callable[[Array], float] | None:
    """A function from an image to how sure the model is; None when its outputs say nothing.

    Args:
        infer: (1, channels, height, width) float32 -> outputs by name, batch dimension first.
        task: What the outputs mean.
        labels: Number of classes.
        preprocess: How images become input.
        size: Input (height, width).

    Returns:
        uint8 BGR (height, width, 3) -> the summed confidence of what is detected, or the
        probability of the best class.
    """
    prepare = Preprocessor(preprocess, size)
    if task.kind == "detection" and task.layout in HEADS:
        finish = DetectionPostprocessor(task, size, None)

        def detected(image: Array) -> float:
            row, placement = prepare(image)
            outputs = {name: value[0] for name, value in infer(row[None]).items()}
            confidence = finish(outputs, placement).confidence
            return float(confidence[confidence > SEEN].sum())

        return detected
    if task.kind == "classification":

        def classified(image: Array) -> float:
            scores = answers(infer(prepare(image)[0][None]), labels)[0]
            return float(confidences(scores, task.scores).max())

        return classified
    return None
