"""Which parts of a graph there are to be left in float.

Parts are runs of neighbouring layers at one resolution: the loss of a detector often sits in one
early stage, where no single layer stands out. Pure functions over a graph.
"""

from __future__ import annotations

from engineworks.qdq.graph import Graph

#: A part with more layers is cut in two: what is found must be small enough to leave in float.
LARGEST = 12


def parts(graph: Graph, nodes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Split arithmetic nodes into runs of one resolution, in graph order.

    Args:
        graph: The float graph.
        nodes: The nodes to split, in graph order.
    """
    runs: list[list[str]] = []
    last: tuple[int, ...] | None = None
    for node in nodes:
        resolution = graph.shape(node)[2:]
        if not runs or resolution != last:
            runs.append([])
        runs[-1].append(node)
        last = resolution
    sections: list[tuple[str, ...]] = []
    for run in runs:
        pieces = -(-len(run) // LARGEST)
        size = -(-len(run) // pieces)
        sections += [tuple(run[start : start + size]) for start in range(0, len(run), size)]
    return sections
