"""The ranges of a graph's tensors, however they were found. Knows no histogram and no scheme."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: (low, high) of a tensor's values.
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What integers have to say of every tensor of a graph."""

    tensors: Mapping[str, Range]
    """Tensor -> (low, high)."""
    channels: Mapping[str, tuple[Array, Array]]
    """Tensor -> lows and highs of its channels, float64 (channels,) each; of those tensors that a
    depthwise convolution reads."""
