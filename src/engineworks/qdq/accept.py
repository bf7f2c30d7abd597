"""What a runtime would misread or refuse in a Q/DQ graph, found before it is asked.

Rules come from what the runtimes did with such graphs: TensorRT's parser fails on an int32
DequantizeLinear and takes UINT8 for INT8 with no more than a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engineworks.qdq.graph import COMPUTE, MOVING, passes
from engineworks.qdq.pairs import Scheme

QDQ = ("QuantizeLinear", "DequantizeLinear")


def is_quantized(model: Any) -> bool:
    """Whether a model holds Q/DQ nodes already."""
    return any(node.op_type in QDQ for node in model.graph.node)


def integer_layers(model: Any) -> int:
    """Arithmetic nodes whose weights and input both come from integers.

    Behind operators that only move or join integers, values still are integers.
    """
    producers = {output: node for node in model.graph.node for output in node.output}

    def integers(tensor: str) -> bool:
        node = producers.get(tensor)
        while node is not None and node.op_type in MOVING and passes(node):
            node = producers.get(node.input[0])
        if node is not None and node.op_type == "Concat":
            return all(integers(part) for part in node.input)
        return node is not None and node.op_type == "DequantizeLinear"

    return sum(
        node.op_type in COMPUTE and integers(node.input[0]) and integers(node.input[1])
        for node in model.graph.node
    )


def packed_weights(model: Any) -> int:
    """Arithmetic nodes whose weights, and not their input, come from integers."""
    dequantized = {
        output
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for output in node.output
    }
    return sum(
        node.op_type in COMPUTE
        and node.input[1] in dequantized
        and node.input[0] not in dequantized
        for node in model.graph.node
    )


def load(path: Path) -> Any:
    """Read an ONNX model without its external data."""
    import onnx

    return onnx.load(str(path), load_external_data=False)


def refusals(model: Any, scheme: Scheme) -> tuple[str, ...]:
    """Why a runtime of this scheme must not get this graph; empty when it may.

    Args:
        model: onnx.ModelProto with Q/DQ nodes.
        scheme: What the runtime reads.
    """
    import onnx

    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    names = onnx.TensorProto.DataType.Name
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in QDQ:
            continue
        zero = types.get(node.input[2]) if len(node.input) > 2 else None
        data = types.get(node.input[0])
        if scheme.activation == "float" and node.op_type == "QuantizeLinear":
            reasons["activation"] = (
                f"{node.name or node.output[0]} quantizes an activation, only weights may be"
            )
        if scheme.bias == "float" and data == onnx.TensorProto.INT32:
            reasons["bias"] = f"{node.name or node.output[0]} dequantizes an int32 bias"
        if scheme.activation == "int8":
            # Without a zero point the default type of QuantizeLinear is UINT8.
            unsigned = zero == onnx.TensorProto.UINT8 or (
                zero is None and node.op_type == "QuantizeLinear" and not _typed(node)
            )
            if unsigned:
                reasons["uint8"] = (
                    f"{node.name or node.output[0]} uses UINT8, which would be read as INT8"
                )
            elif zero is not None and len(node.input) > 2 and _nonzero(model, node.input[2]):
                reasons["zero"] = (
                    f"{node.name or node.output[0]} has a zero point other than 0 "
                    f"({names(zero)}); only symmetric ranges are read"
                )
    return tuple(reasons.values())


def _typed(node: Any) -> bool:
    return any(attribute.name == "output_dtype" and attribute.i for attribute in node.attribute)


def _nonzero(model: Any, name: str) -> bool:
    import onnx

    for tensor in model.graph.initializer:
        if tensor.name == name:
            return bool(onnx.numpy_helper.to_array(tensor).any())
    return False
