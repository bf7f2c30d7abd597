"""Which parts of a graph there are to be left in float, and which layers integers pay for.

Parts are runs of neighbouring layers at one resolution: the loss of a detector often sits in one
early stage, where no single layer stands out. Pure functions over a graph.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from engineworks.calibrate.graph import MOVING, Graph

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
    found: list[tuple[str, ...]] = []
    for run in runs:
        pieces = -(-len(run) // LARGEST)
        size = -(-len(run) // pieces)
        found += [tuple(run[start : start + size]) for start in range(0, len(run), size)]
    return found


#: Operators that compute nothing anew: integers may pass through them as integers.
JOINING = MOVING | {"Concat", "Add"}


def carriers(graph: Graph, nodes: Collection[str]) -> tuple[str, ...]:
    """Operators that only join or move values on their way into integer nodes.

    Args:
        graph: The float graph.
        nodes: Nodes in integers.
    """
    found: list[str] = []
    wanted = set(nodes)
    for name in reversed(graph.between):
        readers = {r for output in graph.nodes[name].output for r in graph.readers.get(output, ())}
        if graph.nodes[name].op_type in JOINING and name not in wanted and readers & wanted:
            wanted.add(name)
            found.append(name)
    return tuple(reversed(found))


def by_intensity(graph: Graph) -> tuple[str, ...]:
    """Arithmetic nodes, those first that compute most per value moved.

    Integers make arithmetic cheaper and cost a pass over every value at the border, so a layer
    gains the more, the more multiply-accumulates it does per activation that it reads or writes.
    """

    def intensity(node: str) -> float:
        touched = sum(
            math.prod(n or 1 for n in graph.shape(tensor))
            for tensor in (graph.nodes[node].input[0], node)
        )
        return graph.macs[node] / max(1, touched)

    # sorted() is stable: among equals, graph order.
    return tuple(sorted(graph.computing, key=lambda node: -intensity(node)))
