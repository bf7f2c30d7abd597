"""Which files beside an ONNX file hold tensors of it, wherever in the graph they stand.

Weights may lie outside in initialisers, in attributes (Constant nodes), in subgraphs of If, Loop
and Scan, and in functions. Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from engineworks.errors import ModelError


def files(path: Path) -> dict[str, Path]:
    """The files that an ONNX file keeps tensors in: location as written -> file.

    Empty for what is no ONNX: whoever opens it says what is wrong with it.

    Raises:
        ModelError: One of them does not exist, or lies outside the ONNX file's folder.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:
        return {}
    beside_files = {}
    for tensor in tensors(model):
        _refuse_two_places(path, tensor)
    for location in sorted({location_of(tensor) for tensor in tensors(model)} - {""}):
        place = PurePosixPath(location)
        strange = "\\" in location or "\0" in location
        if place.is_absolute() or ".." in place.parts or strange:
            raise ModelError(
                f"model.source: {path.name} keeps its weights in {location!r}, which lies outside "
                f"{path.parent}",
                hint="save the model again with its weights beside it, or in one file",
            )
        beside = path.parent / location
        if not _together(path, beside):
            raise ModelError(
                f"model.source: {path.name} keeps its weights in {location!r}, which leads to "
                f"{beside.resolve()}, outside of its folder",
                hint="copy that file beside the ONNX file",
            )
        if not beside.is_file():
            raise ModelError(
                f"model.source: {path.name} keeps its weights in {location}, which is not "
                f"in {path.parent}",
                hint="copy that file beside the ONNX file",
            )
        beside_files[location] = beside
    return beside_files


def _refuse_two_places(path: Path, tensor: Any) -> None:
    """One reader takes the first of two places and another the last: only one would be hashed."""
    places = {entry.value for entry in tensor.external_data if entry.key == "location"}
    if len(places) > 1:
        raise ModelError(
            f"model.source: {path.name} keeps the weight {tensor.name!r} in two files at once: "
            f"{', '.join(map(repr, sorted(places)))}",
            hint="do not use it: no exporter writes such a file; save the model again",
        )


def _together(path: Path, beside: Path) -> bool:
    """Whether a file, through whatever links, stays in its model's folder.

    Or both lead to one folder, as caches do.
    """
    real = beside.resolve()
    return real.is_relative_to(path.parent.resolve()) or real.parent == path.resolve().parent


def location_of(tensor: Any) -> str:
    """The file that holds a tensor's bytes; empty when it holds them itself."""
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return ""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model: of its graph, of all graphs inside that, and of its functions."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)
        yield from _of_attributes(function.attribute_proto)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Any) -> Iterator[Any]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for tensor in (*sparse, *attribute.sparse_tensors):
            yield from (tensor.values, tensor.indices)
        graphs = [attribute.g] if attribute.HasField("g") else []
        for graph in (*graphs, *attribute.graphs):
            yield from _of_graph(graph)
