"""Top-1 and top-5 accuracy over one output of class scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engineworks.errors import ModelError

Array = np.ndarray[Any, Any]


def answers(outputs: Mapping[str, Array], labels: int) -> Array:
    """The class scores (n, classes) among a model's outputs.

    Raises:
        ModelError: There is not exactly one output, or it does not fit the labels.
    """
    if len(outputs) != 1:
        raise ModelError(
            f"a classifier has one output, this model has {len(outputs)}: {sorted(outputs)}",
            hint="use task.kind: none, or a model with one output of class scores",
        )
    (scores,) = outputs.values()
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] != labels:
        raise ModelError(
            f"the model scores {scores.shape[1]} classes, task.labels names {labels}",
            hint="give one label per class, in the model's order",
        )
    return scores


def score(scores: Array, truth: Array) -> dict[str, float]:
    """Share of images whose true class is the best, or among the best five.

    Args:
        scores: (n, classes).
        truth: int (n,), true class indices.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = order == truth[:, None]
    return {
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits[:, :5].any(axis=1).mean()),
    }
