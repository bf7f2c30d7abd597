"""What a classifier's scores are: settled once for a model, from its answers to many inputs.

Knows no engine and no label; the words are those of `task.scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engineworks.errors import ModelError
from engineworks.specs import ScoreKind

Array = np.ndarray[Any, Any]

#: How far the probabilities of one image may be from a sum of 1: fp16 and 8 bits add up worse.
SUM_TOLERANCE = 0.02

#: Inputs far outside of what cameras see drive logits out of 0..1; a sigmoid or softmax stays.
STRENGTHS = (-100.0, -10.0, 10.0, 100.0)


def probe(infer: Callable[[Array], Mapping[str, Array]], inputs: Array) -> Array:
    """A classifier's scores (n, classes) on its inputs, as they are and many times as strong.

    Args:
        infer: (1, ...) -> outputs by name, batch dimension first.
        inputs: (rows, ...), real ones. Integer inputs stay as they are.
    """
    rows = [inputs]
    if inputs.dtype.kind == "f":
        rows += [(inputs * strength).astype(inputs.dtype) for strength in STRENGTHS]
    probed = []
    for row in np.concatenate(rows):
        (scores,) = infer(row[None]).values()
        probed.append(np.asarray(scores, np.float64).reshape(-1))
    return np.stack(probed)


def settle(asked: ScoreKind, scores: Array) -> ScoreKind:
    """What the scores are, found out where the recipe leaves it open, else held against them.

    Args:
        asked: The recipe's word.
        scores: (n, classes) of many different inputs; rows that are not finite say nothing.

    Raises:
        ModelError: The scores are not what the recipe says.
    """
    rows = scores[np.isfinite(scores).all(axis=1)]
    if not len(rows):
        return "logits" if asked == "auto" else asked
    low, high = float(rows.min()), float(rows.max())
    inside = low >= -1e-6 and high <= 1 + SUM_TOLERANCE
    sums = rows.sum(axis=1)
    together = inside and bool((np.abs(sums - 1) <= SUM_TOLERANCE).all())
    if asked == "auto":
        return "probabilities" if together else "independent" if inside else "logits"
    seen = f"the source model's scores lie in {low:.4g}..{high:.4g} and sum to "
    seen += f"{sums.min():.4g}..{sums.max():.4g} over {len(rows)} inputs"
    if asked == "probabilities" and not together:
        raise ModelError(
            f"task.scores says probabilities, but {seen}",
            hint="leave task.scores out; or say logits, or independent when each class stands for "
            "itself",
        )
    if asked == "independent" and not inside:
        raise ModelError(
            f"task.scores says independent, each in 0..1, but {seen}",
            hint="say logits for a softmax over the classes, independent_logits for a sigmoid of "
            "each; or leave task.scores out",
        )
    if asked in ("logits", "independent_logits") and together and rows.shape[1] > 1:
        raise ModelError(
            f"task.scores says {asked}, but {seen}: the model ends with a softmax already",
            hint="leave task.scores out, or say probabilities",
        )
    return asked
