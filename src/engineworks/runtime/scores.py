"""From a classifier's output to confidences, by the one word that says what its scores are.

The word is settled once for a model, on its source, and travels in the manifest (`task.scores`).
Knows no labels and no images, and never guesses from the values of one picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.specs import ScoreKind

Array = np.ndarray[Any, Any]

#: What an engine's scores are taken for where its manifest does not say.
ASSUMED: ScoreKind = "logits"


def confidences(scores: Array, kind: ScoreKind) -> Array:
    """Confidences of every class.

    Args:
        scores: (..., classes), a model's own output.
        kind: What the scores are; `auto` is taken for `ASSUMED`.

    Returns:
        float32 of the same shape.
    """
    values = np.asarray(scores, np.float32)
    kind = ASSUMED if kind == "auto" else kind
    if kind == "logits":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    if kind == "independent_logits":
        # By tanh, which overflows nowhere.
        return np.asarray((np.tanh(values / 2) + 1) / 2)
    return values
