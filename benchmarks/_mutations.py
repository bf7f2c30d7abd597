"""Ways to make an engine worse, drawn beforehand from one seed, and how each is done to a graph.

A drawn mutation is a small value; what it does to accuracy nobody knows when it is drawn. Weights
are changed in the graph that the engine is built from, float or Q/DQ; preprocessing and names of
classes in its manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.manifest import Manifest

Array = np.ndarray[Any, Any]

SEED = 20_261_127


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One way to spoil an engine."""

    number: int
    kind: str
    seed: int
    strength: float
    """0..1: how much of it."""


#: Kind -> how often it is drawn.
SHARES = {"scaled": 0.34, "zeroed": 0.26, "exponent": 0.2, "permuted": 0.1, "preprocess": 0.1}


def draw(count: int) -> list[Mutation]:
    """The first `count` mutations of the seed."""
    generator = np.random.default_rng(SEED)
    kinds, shares = list(SHARES), list(SHARES.values())
    return [
        Mutation(
            number=number,
            kind=str(generator.choice(kinds, p=shares)),
            seed=int(generator.integers(2**31)),
            strength=float(generator.random()),
        )
        for number in range(count)
    ]


def manifest_of(mutation: Mutation, manifest: Manifest, seen: tuple[int, ...]) -> Manifest:
    """The manifest as the mutation leaves it.

    Args:
        mutation: What is done.
        manifest: The engine's.
        seen: Classes that occur in the photos: others could be swapped without anyone seeing it.
    """
    draws = np.random.default_rng(mutation.seed)
    if mutation.kind == "permuted" and mutation.seed % 2:
        assert manifest.task is not None and isinstance(manifest.task.labels, tuple)  # noqa: S101
        order = _order(draws, len(manifest.task.labels), mutation.strength, seen)
        labels = tuple(manifest.task.labels[place] for place in order)
        task = dataclasses.replace(manifest.task, labels=labels)
        return dataclasses.replace(manifest, task=task)
    if mutation.kind != "preprocess" or manifest.preprocess is None:
        return manifest
    spec, much = manifest.preprocess, mutation.strength
    changes: list[dict[str, Any]] = [
        {"color": "rgb"},
        {"scale": spec.scale * float(np.exp(draws.choice((-1, 1)) * 1.2 * much))},
        {"mean": tuple(float(x) for x in draws.uniform(-90, 90, 3) * much)},
        {"std": tuple(float(x) for x in np.exp(draws.uniform(-0.9, 0.9, 3) * much))},
        {"anchor": "center"},
        {"resize": "stretch"},
        {"pad": int(draws.integers(0, 256))},
    ]
    change = changes[int(draws.choice(len(changes), p=(0.1, 0.3, 0.25, 0.2, 0.05, 0.05, 0.05)))]
    return dataclasses.replace(manifest, preprocess=dataclasses.replace(spec, **change))


def _order(draws: Any, count: int, strength: float, seen: tuple[int, ...]) -> list[int]:
    """Places of classes, some of which have changed with each other."""
    order = list(range(count))
    for _ in range(1 + int(strength * 5)):
        one = int(draws.choice(seen))
        other = int(draws.integers(count))
        order[one], order[other] = order[other], order[one]
    return order


@dataclass
class Graph:
    """The weights of an ONNX graph, float or Q/DQ, by the convolution that reads them."""

    model: Any
    arrays: dict[str, Array]
    layers: list[tuple[str, str, str]]
    """(weight, its scale or "", bias or "") of every convolution."""


def read(path: Path) -> Graph:
    """Read a graph."""
    from onnx import load, numpy_helper

    model = load(str(path))
    arrays = {w.name: numpy_helper.to_array(w).copy() for w in model.graph.initializer}
    dequantized = {
        node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    layers = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        weight, scale = node.input[1], ""
        if weight in dequantized:
            weight, scale = dequantized[weight].input[:2]
        bias = node.input[2] if len(node.input) > 2 else ""
        if weight in arrays:
            layers.append((weight, scale, bias if bias in arrays else ""))
    return Graph(model=model, arrays=arrays, layers=layers)


def write(graph: Graph, path: Path) -> None:
    """Write it with its arrays as they are now."""
    from onnx import numpy_helper, save

    for place in graph.model.graph.initializer:
        if place.name in graph.arrays:
            place.CopyFrom(numpy_helper.from_array(graph.arrays[place.name], place.name))
    save(graph.model, str(path))


def change(mutation: Mutation, graph: Graph, seen: tuple[int, ...]) -> bool:
    """Do to the weights what the mutation says; False: it is not about them."""
    draws = np.random.default_rng(mutation.seed)
    if mutation.kind == "permuted" and mutation.seed % 2 == 0:
        return _permute(graph, draws, mutation.strength, seen)
    act = _ACTS.get(mutation.kind)
    if act is None:
        return False
    act(graph, draws, mutation.strength)
    return True


def _scale(graph: Graph, draws: Any, strength: float) -> None:
    weight, scale, _ = graph.layers[int(draws.integers(len(graph.layers)))]
    factor = np.exp(draws.choice((-1, 1)) * (0.02 + 0.5 * strength**1.5))
    name = scale or weight
    graph.arrays[name] = (graph.arrays[name] * factor).astype(graph.arrays[name].dtype)


def _zero(graph: Graph, draws: Any, strength: float) -> None:
    weight, _, bias = graph.layers[int(draws.integers(len(graph.layers)))]
    channels = len(graph.arrays[weight])
    gone = draws.permutation(channels)[: 1 + int(0.3 * channels * strength**2)]
    graph.arrays[weight][gone] = 0
    if bias:
        graph.arrays[bias][gone] = 0


def _exponent(graph: Graph, draws: Any, strength: float) -> None:
    for _ in range(1 + int(23 * strength**2)):
        weight, _, _ = graph.layers[int(draws.integers(len(graph.layers)))]
        flat = graph.arrays[weight].reshape(-1)
        place = int(draws.integers(flat.size))
        if flat.dtype == np.float32:
            flat.view(np.uint32)[place] ^= np.uint32(1 << int(draws.integers(23, 31)))
        else:  # of an integer the highest bits
            flat.view(np.uint8)[place] ^= np.uint8(1 << int(draws.integers(5, 8)))


def _permute(graph: Graph, draws: Any, strength: float, seen: tuple[int, ...]) -> bool:
    """Swap rows of every layer that has one for each class."""
    classes = [layer for layer in graph.layers if len(graph.arrays[layer[0]]) == 80]
    order = _order(draws, 80, strength, seen)
    for layer in classes:
        for name in filter(None, layer):
            if graph.arrays[name].ndim and len(graph.arrays[name]) == 80:
                graph.arrays[name] = np.ascontiguousarray(graph.arrays[name][order])
    return bool(classes)


_ACTS: dict[str, Callable[[Graph, Any, float], None]] = {
    "scaled": _scale, "zeroed": _zero, "exponent": _exponent,
}  # fmt: skip
