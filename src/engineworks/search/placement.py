"""Which nodes of a graph may be integers together: layers, and what carries values to them.

Pure functions over a graph. Knows neither ranges nor how fast or accurate anything is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from engineworks.qdq.graph import MOVING, Graph, passes
from engineworks.search import sensitivity

#: Shares of the layers, those first that integers pay most for, that are timed.
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)

#: Operators that compute nothing anew: integers may pass through them as integers.
JOINING = MOVING | {"Concat", "Add"}


@dataclass(frozen=True, kw_only=True)
class Toggle:
    """Layers, or all carriers of some kinds, that go into integers or back into float."""

    label: str
    integers: bool
    layers: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    """Operator types."""


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


def first_layers(graph: Graph) -> list[tuple[str, ...]]:
    """Growing shares of the layers, those first that integers pay most for; last, all."""
    order = by_intensity(graph)
    counts = sorted({max(1, round(share * len(order))) for share in SHARES})
    return [order[:count] for count in counts]


def carriers(
    graph: Graph, nodes: Collection[str], kinds: Collection[str] = JOINING
) -> tuple[str, ...]:
    """Operators that only join or move values on their way into integer nodes.

    Args:
        graph: The float graph.
        nodes: Nodes in integers.
        kinds: Operator types that may be carriers.
    """
    names: list[str] = []
    wanted = set(nodes)
    for name in reversed(graph.between):
        readers = {r for output in graph.nodes[name].output for r in graph.readers.get(output, ())}
        node = graph.nodes[name]
        carries = node.op_type in kinds and (passes(node) or node.op_type == "Add")
        if carries and name not in wanted and readers & wanted:
            wanted.add(name)
            names.append(name)
    return tuple(reversed(names))


def with_carriers(graph: Graph, layers: Iterable[str], kinds: Collection[str]) -> frozenset[str]:
    """Layers and their carriers of these kinds."""
    chosen = frozenset(layers)
    return chosen | set(carriers(graph, chosen, kinds))


def kinds_of(graph: Graph, nodes: frozenset[str]) -> frozenset[str]:
    """Operator types of a placement's carriers."""
    return frozenset(graph.nodes[name].op_type for name in nodes - set(graph.computing))


def changes(graph: Graph, nodes: frozenset[str]) -> list[Toggle]:
    """Single steps from a placement: each part of the layers, each kind of carrier."""
    layers = nodes & set(graph.computing)
    used = kinds_of(graph, nodes)
    toggles = []
    for piece in map(frozenset, sensitivity.parts(graph, graph.computing)):
        if piece != layers:
            inside = piece <= layers
            label = f"{name_of(graph, piece)} in {'float' if inside else 'integers'}"
            toggles.append(Toggle(label=label, layers=piece, integers=not inside))
    for kind in sorted({graph.nodes[name].op_type for name in carriers(graph, layers)}):
        label = f"{kind} in {'float' if kind in used else 'integers'}"
        toggles.append(Toggle(label=label, kinds=frozenset({kind}), integers=kind not in used))
    return toggles


def changed(graph: Graph, nodes: frozenset[str], steps: Iterable[Toggle]) -> frozenset[str]:
    """A placement after some steps; carriers follow the layers that they serve."""
    layers, kinds = nodes & set(graph.computing), kinds_of(graph, nodes)
    for step in steps:
        layers = layers | step.layers if step.integers else layers - step.layers
        kinds = kinds | step.kinds if step.integers else kinds - step.kinds
    return with_carriers(graph, layers, kinds)


def name_of(graph: Graph, piece: Collection[str]) -> str:
    """A part in words: its first node in graph order, and how many more."""
    first = next(node for node in graph.nodes if node in piece)
    return first if len(piece) == 1 else f"{first} and {len(piece) - 1} more"
