"""Are red and blue where the model expects them? Asked of the model itself.

A model is surer of photos in the colours that it was trained with. Each image is shown both ways;
chance would prefer either equally often. Knows no outputs: its caller says how sure an answer is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Images that are shown both ways.
IMAGES = 64

#: How unlikely the preference must be by chance, and how much surer the model on the whole.
CHANCE = 0.01
SURER = 1.05


def warning(images: Iterable[Array], mean_confidence: Callable[[Array], float]) -> str:
    """Words when the model prefers the images with red and blue swapped, else "".

    Args:
        images: uint8 (height, width, 3) each.
        mean_confidence: An image -> how sure the model is of what it sees, 0 or more.
    """
    given, swapped = [], []
    for _, image in zip(range(IMAGES), images, strict=False):
        given.append(mean_confidence(image))
        swapped.append(mean_confidence(np.ascontiguousarray(image[:, :, ::-1])))
    wins = sum(b > a for a, b in zip(given, swapped, strict=True))
    losses = sum(b < a for a, b in zip(given, swapped, strict=True))
    if by_chance(wins, losses) > CHANCE or sum(swapped) < SURER * sum(given):
        return ""
    return (
        f"the model is surer of {wins} of {len(given)} images when red and blue are swapped "
        f"({losses} the other way): is preprocess.color right?"
    )


def by_chance(wins: int, losses: int) -> float:
    """One-sided sign test: the probability of at least so many wins if both were as likely."""
    total = wins + losses
    return float(sum(math.comb(total, k) for k in range(wins, total + 1)) / 2**total)
