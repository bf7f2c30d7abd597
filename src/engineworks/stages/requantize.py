"""Stage `requantize`: the graph of another input size, quantized in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engineworks import targets
from engineworks.errors import BuildError
from engineworks.facts.host import HostCard
from engineworks.facts.int8 import Requantized
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.stages._integers import put_graph, read_statistics
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class RequantizeRequest:
    """The graph of another input size, quantized as a search has chosen."""

    shared: Shared
    onnx: Artifact
    calibration: Artifact | None
    target: str
    precision: str = "int8"
    method: str
    nodes: tuple[str, ...]
    host: HostCard


def requantize(request: RequantizeRequest) -> Requantized:
    """Stage `requantize`."""
    from engineworks.calibrate import derive
    from engineworks.qdq import pairs
    from engineworks.qdq.graph import Graph

    store = LocalStore(Path(request.shared.store))
    rules = targets.int8_rules(request.target, request.host, request.precision)
    weights_only = rules.scheme.activation == "float"
    if not request.nodes or (request.calibration is None and not weights_only):
        return Requantized(onnx=request.onnx)
    graph = Graph(store.entry(request.onnx))
    statistics = read_statistics(store, None if weights_only else request.calibration)
    missing = [name for name in request.nodes if name not in graph.nodes]
    unseen = not weights_only and not set(graph.observed) <= set(statistics.tensors)
    if missing or unseen:
        name = missing[0] if missing else "its activations"
        raise BuildError(
            f"the graph of this input size differs: {name!r} is not in both",
            hint="leave this size out of benchmark.sizes, or make a recipe of its own for it",
        )
    bounds = derive.derive(graph, statistics, request.method, rules.scheme)
    model = pairs.emit(graph, bounds, request.nodes, rules.scheme)
    if rules.rewrite is not None:
        rules.rewrite(model)
    details = {"method": request.method}
    artifact = put_graph(store, request, model, details)
    return Requantized(onnx=artifact)


STAGE = Stage("requantize", requantize, RequantizeRequest, Requantized, ("onnx",))
