"""From what calibration saw to the ranges that a target's integers have to say.

Knows no runtime: the scheme tells what matters of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.calibrate import ranges
from engineworks.calibrate.collect import Statistics
from engineworks.qdq import pairs
from engineworks.qdq.graph import Graph
from engineworks.qdq.ranges import Ranges

Array = np.ndarray[Any, Any]


def derive(graph: Graph, statistics: Statistics, method: str, scheme: pairs.Scheme) -> Ranges:
    """Ranges of every observed tensor by one method.

    Where a runtime quantizes the input of x * sigmoid(x), `mse` minimises the error of that
    product: left of -5 there is nothing to be exact about. Channels that have a scale of their
    own are taken whole: one wide channel costs the others nothing.
    """
    choose = ranges.METHODS[method]
    tensors, channels = {}, {}
    for name, histogram in statistics.tensors.items():
        if method == "mse" and scheme.outputs and graph.silu(name) is not None:
            tensors[name] = ranges.mse(histogram, scheme.symmetric, through=silu)
        else:
            tensors[name] = choose(histogram, scheme.symmetric)
        if any(graph.depthwise(node) for node in graph.readers[name]):
            lows, highs, _ = statistics.channels[name]
            channels[name] = np.minimum(lows, 0.0), np.maximum(highs, 0.0)
    return Ranges(tensors=tensors, channels=channels)


def silu(values: Array) -> Array:
    """X * sigmoid(x) (arXiv:1702.03118)."""
    return np.asarray(values / (1.0 + np.exp(-np.clip(values, -80, 80))))
