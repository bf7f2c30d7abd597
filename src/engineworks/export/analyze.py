"""What a graph consists of: weights, work, operators. Reads ONNX, runs nothing.

FLOPs are counted for convolutions and matrix products (2 per multiply-accumulate), which is how
model cards count them, also inside functions and fused operators; element-wise work is left out.
What cannot be counted is named: statistics never cost an engine.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

from engineworks import precisions
from engineworks.errors import said
from engineworks.export import given
from engineworks.facts.model import Analysis, LayerCost
from engineworks.specs import Size

log = logging.getLogger(__name__)

#: Bytes of one weight by precision.
WEIGHT_BYTES = {row.name: row.stored_bits // 8 for row in precisions.by_width().values()}

#: Position of the weight in a convolution's inputs.
CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}

#: Position of the second factor in a product's inputs.
PRODUCTS = {
    "MatMul": 1, "FusedMatMul": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3, "Gemm": 1, "FusedGemm": 1, "QGemm": 3,
}  # fmt: skip

#: Operators with arithmetic inside that no rule here counts.
UNKNOWN = frozenset(
    {"Einsum", "LSTM", "GRU", "RNN", "DeformConv", "Attention", "MultiHeadAttention",
     "GroupQueryAttention", "QAttention", "MatMulNBits", "If", "Loop", "Scan", "SequenceMap",
     "DFT", "STFT"}
)  # fmt: skip

#: Fused operators of ONNX Runtime, as the operator that does their arithmetic.
FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}

#: Its operators that keep the shape of their first input and multiply no matrices.
SAME_SHAPE = frozenset(
    {"QuickGelu", "FastGelu", "BiasGelu", "Gelu", "SkipLayerNormalization", "BiasAdd",
     "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"}
)  # fmt: skip

Shape = tuple[int, ...]


def analyze(path: Path, size: Size, unsupported_operators: dict[str, tuple[str, ...]]) -> Analysis:
    """Count an ONNX graph at batch 1.

    Args:
        path: The graph.
        size: Input (height, width), for graphs that leave it open.
        unsupported_operators: What a planned target cannot run, by target; passed through.
    """
    import onnx

    given_model = onnx.load(str(path))
    model = _plain(given_model)
    named = [_operator(node) for node in model.graph.node]
    graph = _inferred(model, size).graph
    constants = _weights(graph)
    shapes = {**_shapes(graph), **constants}
    layers, uncounted = [], Counter[str]()
    for node, operator in zip(graph.node, named, strict=True):
        macs = _macs(node, shapes)
        if macs is None:
            uncounted[operator] += 1
        layers.append(
            LayerCost(
                name=node.name or (node.output[0] if node.output else ""),
                operator=operator,
                parameters=sum(math.prod(constants[n]) for n in node.input if n in constants),
                macs=macs or 0,
            )
        )
    # A tensor used by two nodes counts once.
    parameters = sum(math.prod(dims) for dims in constants.values())
    return Analysis(
        parameters=parameters,
        flops=2 * sum(layer.macs for layer in layers),
        nodes=len(given_model.graph.node),
        weight_bytes={name: parameters * size for name, size in WEIGHT_BYTES.items()},
        operators=dict(Counter(_operator(node) for node in given_model.graph.node).most_common()),
        largest=tuple(sorted(layers, key=lambda layer: -layer.macs)[:10]),
        heaviest=tuple(
            sorted(
                (layer for layer in layers if layer.parameters), key=lambda layer: -layer.parameters
            )[:10]
        ),
        unsupported_operators=unsupported_operators,
        uncounted=tuple(
            name if count == 1 else f"{count} x {name}" for name, count in uncounted.most_common()
        ),
    )


def nothing(reason: str, unsupported_operators: dict[str, tuple[str, ...]]) -> Analysis:
    """What is left when a graph cannot be counted."""
    return Analysis(
        parameters=0, flops=0, nodes=0, weight_bytes=dict.fromkeys(WEIGHT_BYTES, 0), operators={},
        largest=(), unsupported_operators=unsupported_operators, uncounted=(reason,),
    )  # fmt: skip


def _plain(model: Any) -> Any:
    """A copy with functions written out."""
    import onnx
    from onnx import inliner

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    try:
        return inliner.inline_local_functions(plain) if plain.functions else plain
    except Exception as error:
        log.info("functions were not written out: %s", said(error))
        return plain


def _inferred(model: Any, size: Size) -> Any:
    """The same nodes with every shape that can be known; fused operators count as plain ones."""
    import onnx

    for node in model.graph.node:
        if node.domain != "com.microsoft":
            continue
        if node.op_type in FUSED:
            node.op_type, node.domain = FUSED[node.op_type], ""
        elif node.op_type in SAME_SHAPE:
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.output[1:], node.attribute[:]
    try:
        given.open_dimensions(model)
        _fix_input(model, size)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        log.info("shapes were not inferred: %s", said(error))
        return model


def _weights(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point constants; integers are shapes and indices, not weights."""
    import onnx

    floating = {
        onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE, onnx.TensorProto.INT8, onnx.TensorProto.UINT8,
    }  # fmt: skip
    shapes = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type in floating}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value" and attribute.t.data_type in floating:
                shapes[node.output[0]] = tuple(attribute.t.dims)
    return shapes


def _operator(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _fix_input(model: Any, size: Size) -> None:
    for dim, value in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, None, *size), strict=False
    ):
        if value is not None and not dim.dim_value:
            dim.dim_value = value


def _shapes(graph: Any) -> dict[str, Shape]:
    """Static shapes of tensors that have one; an open dimension counts as 1 (it is the batch)."""
    return {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _macs(node: Any, shapes: dict[str, Shape]) -> int | None:
    """Multiply-accumulates of a node; None: it has some, and their number is not known."""
    kind = node.op_type
    if kind in UNKNOWN:
        return None
    weight_at = CONVOLUTIONS.get(kind, PRODUCTS.get(kind, 1 if kind == "ConvTranspose" else 0))
    if not weight_at:
        return 0
    if len(node.input) <= weight_at or not node.output:
        return None
    first, output = shapes.get(node.input[0]), shapes.get(node.output[0])
    weight = shapes.get(node.input[weight_at])
    if kind == "ConvTranspose":
        # Weight (in, out / groups, kernel...): each input value spreads over all but `in`.
        return None if first is None or not weight else math.prod(first) * math.prod(weight[1:])
    if output is None:
        return None
    if kind in CONVOLUTIONS:
        # Weight (out, in / groups, kernel...): each output value sums over all but `out`.
        return None if not weight else math.prod(output) * math.prod(weight[1:])
    summed = _summed(node, first, weight)
    return None if summed is None else math.prod(output) * summed


def _summed(node: Any, first: Shape | None, second: Shape | None) -> int | None:
    """Over how many products each value of a matrix product sums."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    if first:
        return first[-2 if flags.get("transA") and len(first) > 1 else -1]
    if second:
        return second[-1 if flags.get("transB") or len(second) == 1 else -2]
    return None
