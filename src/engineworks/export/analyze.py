"""What a graph consists of: weights, work, operators. Reads ONNX, runs nothing.

FLOPs are counted for convolutions and matrix products (2 per multiply-accumulate), which is how
model cards count them; element-wise work is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from engineworks.specs import Size
from engineworks.values import Analysis, LayerCost

#: Bytes of one weight by precision.
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def analyze(path: Path, size: Size, lacking: dict[str, tuple[str, ...]]) -> Analysis:
    """Count an ONNX graph at batch 1.

    Args:
        path: The graph.
        size: Input (height, width), for graphs that leave it open.
        lacking: Operators that a planned target cannot run, by target; passed through.
    """
    import onnx

    model = onnx.load(str(path))
    _fix_input(model, size)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    constants = _weights(graph)
    shapes = {**_shapes(graph), **constants}
    layers = [_cost(node, shapes, constants) for node in graph.node]
    # A tensor used by two nodes counts once.
    parameters = sum(math.prod(dims) for dims in constants.values())
    return Analysis(
        parameters=parameters,
        flops=2 * sum(layer.macs for layer in layers),
        nodes=len(graph.node),
        weight_bytes={name: parameters * size for name, size in WEIGHT_BYTES.items()},
        operators=dict(Counter(_operator(node) for node in graph.node).most_common()),
        largest=tuple(sorted(layers, key=lambda layer: -layer.macs)[:10]),
        lacking=lacking,
    )


def _weights(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point constants; integers are shapes and indices, not weights."""
    import onnx

    floating = {
        onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE, onnx.TensorProto.INT8, onnx.TensorProto.UINT8,
    }  # fmt: skip
    found = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type in floating}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value" and attribute.t.data_type in floating:
                found[node.output[0]] = tuple(attribute.t.dims)
    return found


def _operator(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _fix_input(model: Any, size: Size) -> None:
    for dim, value in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, None, *size), strict=False
    ):
        if value is not None and not dim.dim_value:
            dim.dim_value = value


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Static shapes; an open dimension counts as 1 (it is the batch)."""
    return {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _cost(
    node: Any, shapes: dict[str, tuple[int, ...]], constants: dict[str, tuple[int, ...]]
) -> LayerCost:
    weights = sum(math.prod(constants[name]) for name in node.input if name in constants)
    output = math.prod(shapes.get(node.output[0], (0,)))
    macs = 0
    if node.op_type == "Conv":
        # Weight (out, in / groups, kernel...): each output value sums over all but `out`.
        macs = output * math.prod(shapes.get(node.input[1], (0, 0))[1:])
    elif node.op_type == "ConvTranspose":
        # Weight (in, out / groups, kernel...): each input value spreads over all but `in`.
        macs = math.prod(shapes.get(node.input[0], (0,))) * math.prod(
            shapes.get(node.input[1], (0, 0))[1:]
        )
    elif node.op_type == "MatMul":
        macs = output * shapes.get(node.input[0], (0,))[-1]
    elif node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        macs = output * shapes.get(node.input[0], (0, 0))[0 if transposed else -1]
    return LayerCost(
        name=node.name or node.output[0],
        operator=_operator(node),
        parameters=weights,
        macs=macs,
    )
