"""An ONNX graph as a MIL program, with the batch fixed at 1.

There is no ONNX front end in coremltools; this is one for vision models. Every program it writes
is proven by `replay`. Source of the builder:
https://apple.github.io/coremltools/docs-guides/source/model-intermediate-language.html
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.targets._coreml import operators, shaping  # noqa: F401 - they register
from engineworks.targets._coreml.node import OPERATORS, PACKING, Node, Packed

Array = np.ndarray[Any, Any]

#: Operators that are worked out while the program is written, never on the device.
FOLDED = {"Constant", "Shape", "Size", "ConstantOfShape", "Range", "NonZero"}

#: The oldest opset that is read: before it, operators of today's names meant other things.
OLDEST = 13


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators of a graph that have no words here and are not worked out beforehand."""
    import onnx as onnx_package

    graph = onnx_package.load(str(onnx), load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer} | {""}
    operator_names = set()
    for node in graph.node:
        standard = node.domain in ("", "ai.onnx")
        folded = standard and (node.op_type in FOLDED or constant.issuperset(node.input))
        if folded:
            constant.update(node.output)
        elif not standard or node.op_type not in OPERATORS:
            operator_names.add(node.op_type if standard else f"{node.domain}.{node.op_type}")
    return tuple(sorted(operator_names))


def feature_name(name: str) -> str:
    """A tensor's name as Core ML allows it."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return cleaned if cleaned[:1].isalpha() else f"_{cleaned}"


def program(onnx: Path) -> Any:
    """The MIL program of a graph: float32, one input named `x`, outputs by their own names.

    Raises:
        BuildError: An operator, or a form of it, has no counterpart; the message names the node.
    """
    import onnx as onnx_package
    from coremltools import target
    from coremltools.converters.mil import Builder

    model = onnx_package.load(str(onnx))
    unknown = unsupported_operators(onnx)
    if unknown:
        raise BuildError(
            f"coreml has no counterpart for {', '.join(unknown)}",
            hint="rewrite those operations in the model, or leave coreml out of targets",
        )
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if version < OLDEST:
        raise BuildError(
            f"the graph is of opset {version}, coreml is built from {OLDEST} and newer",
            hint="export the model again with a newer opset",
        )
    values: dict[str, Any] = {
        tensor.name: onnx_package.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
    }
    (image,) = (value for value in model.graph.input if value.name not in values)
    shape = [dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim]
    shape[0] = 1

    def write(x: Any) -> Any:
        values[image.name] = x
        for node in model.graph.node:
            given = [values[name] if name else None for name in node.input]
            for name, value in zip(
                node.output, _written(Builder, node, given, version), strict=False
            ):
                values[name] = value
        outputs = [
            Builder.identity(x=_as_value(values[o.name]), name=feature_name(o.name))
            for o in model.graph.output
        ]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return Builder.program(
        input_specs=[Builder.TensorSpec(shape=tuple(shape))], opset_version=target.iOS17
    )(write)


def _as_value(value: Any) -> Any:
    return value.dense() if isinstance(value, Packed) else value


def _written(mb: Any, node: Any, given: list[Any], opset: int) -> tuple[Any, ...]:
    """The outputs of one node: constants where everything it reads is constant."""
    if node.op_type == "Shape":
        return (_shape(node, given[0]),)
    if node.op_type not in PACKING:
        given = [_as_value(value) for value in given]
    constant = all(value is None or isinstance(value, np.ndarray) for value in given)
    if node.op_type in FOLDED or (constant and node.op_type != "DequantizeLinear"):
        return tuple(_folded(node, given, opset))
    try:
        written = OPERATORS[node.op_type](Node(mb, node), *given)
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(
            f"coremltools refused {node.op_type} {node.name or node.output[0]!r}: "
            f"{' '.join(str(error).split())[:300]}",
            hint="rewrite that operation in the model, or leave coreml out of targets",
        ) from error
    return written if isinstance(written, tuple) else (written,)


def _shape(node: Any, value: Any) -> Array:
    start = next((a.i for a in node.attribute if a.name == "start"), 0)
    end = next((a.i for a in node.attribute if a.name == "end"), None)
    return np.array(value.shape, np.int64)[start:end]


def _folded(node: Any, given: list[Any], opset: int) -> list[Array]:
    """A node's outputs, computed now by ONNX's own reference implementation."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if any(value is not None and not isinstance(value, np.ndarray) for value in given):
        raise BuildError(
            f"{node.op_type} {node.name or node.output[0]!r} depends on the image's values, "
            "which Core ML must know beforehand",
            hint="export the model with fixed sizes, or leave coreml out of targets",
        )
    names = [name for name in node.input if name]
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_tensor_value_info(name, 0, None) for name in dict.fromkeys(names)],
        [helper.make_tensor_value_info(name, 0, None) for name in node.output if name],
    )
    feeds = {name: value for name, value in zip(node.input, given, strict=True) if name}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
