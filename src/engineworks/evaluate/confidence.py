"""How sure a model is of one image, without labels.

Knows the outputs that the runtime itself can read; of no task and of a user's own decoder nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engineworks.evaluate import tasks
from engineworks.runtime import heads
from engineworks.runtime.preprocess import Preprocessor
from engineworks.specs import Preprocess, Size, TaskSpec

Array = np.ndarray[Any, Any]


def mean_confidence(
    infer: Callable[[Array], Mapping[str, Array]],
    task: TaskSpec,
    preprocess: Preprocess,
    size: Size,
) -> Callable[[Array], float] | None:
    """A function from an image to how sure the model is; None when its outputs say nothing.

    Args:
        infer: (1, channels, height, width) float32 -> outputs by name, batch dimension first.
        task: What the outputs mean.
        preprocess: How images become input.
        size: Input (height, width).

    Returns:
        uint8 BGR (height, width, 3) -> what the task's `certainty` says of the answer.
    """
    if not task.judged or tasks.own_layout(task):
        return None
    certainty = tasks.load(task.kind).certainty
    if certainty is None:
        return None
    prepare = Preprocessor(preprocess, size)
    finish = heads.load(task.kind).open(task, size, None)

    def sure(image: Array) -> float:
        row, placement = prepare(image)
        outputs = {name: value[0] for name, value in infer(row[None]).items()}
        return certainty(finish(outputs, placement))

    return sure
