"""An ONNX graph as quantization sees it: who makes a tensor, who reads it, what has integers.

A node is named by its first output, which is unique; names of nodes need not be. Knows no target.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Operators whose weights are constants and which integer kernels exist for: the arithmetic.
COMPUTE = frozenset({"Conv", "Gemm", "MatMul"})

#: Operators that only move or pick values: output and input share one range.
MOVING = frozenset(
    {"MaxPool", "Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Flatten",
     "Resize", "Gather", "DepthToSpace", "SpaceToDepth", "Identity", "Pad", "Expand"}
)  # fmt: skip

#: Operators between the arithmetic that integer kernels exist for in at least one runtime.
BETWEEN = frozenset(
    {"Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "Relu", "Clip", "GlobalAveragePool",
     "AveragePool"}
)  # fmt: skip

FLOAT = 1  # onnx.TensorProto.FLOAT


def passes(node: Any) -> bool:
    """Whether a node's outputs hold values of its inputs and no others: integers stay integers.

    Not of a Resize that interpolates: its range is that of its input, its values lie between.
    """
    if node.op_type == "Resize":
        return any(a.name == "mode" and a.s == b"nearest" for a in node.attribute) or not any(
            a.name == "mode" for a in node.attribute
        )
    return node.op_type in MOVING or node.op_type == "Concat"


class Graph:
    """A float ONNX model with its tensors resolved. Read only."""

    def __init__(self, path: Path) -> None:
        import onnx

        self.path = path
        self.model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
        graph = self.model.graph
        self.nodes = {node.output[0]: node for node in graph.node if node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in graph.output]
        self.opset = next(
            (i.version for i in self.model.opset_import if i.domain in ("", "ai.onnx")), 0
        )
        self.producer = {
            output: name for name, node in self.nodes.items() for output in node.output if output
        }
        self.readers: dict[str, list[str]] = defaultdict(list)
        for name, node in self.nodes.items():
            for tensor in node.input:
                if tensor:
                    self.readers[tensor].append(name)
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._shapes = {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }

    def constant(self, name: str) -> Array | None:
        """The value of a constant tensor, or None when it is computed."""
        import onnx

        if name in self.constants:
            return np.asarray(onnx.numpy_helper.to_array(self.constants[name]))
        node = self.nodes.get(self.producer.get(name, ""))
        if node is not None and node.op_type == "Constant" and node.attribute[0].HasField("t"):
            return np.asarray(onnx.numpy_helper.to_array(node.attribute[0].t))
        return None

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor is a float32 activation (not a constant, not of integers)."""
        return self._types.get(tensor) == FLOAT and self.constant(tensor) is None

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Its shape; 0 for open dimensions."""
        return self._shapes.get(tensor, ())

    def activations(self, node: str) -> list[str]:
        """Float tensors that a node reads, without its weights."""
        return [tensor for tensor in self.nodes[node].input if tensor and self.is_float(tensor)]

    def weight(self, node: str) -> str | None:
        """Name of the constant weights of an arithmetic node, or None."""
        operator = self.nodes[node]
        if operator.op_type not in COMPUTE or len(operator.input) < 2:
            return None
        name = str(operator.input[1])
        return name if name in self.constants and name not in self.inputs else None

    @cached_property
    def computing(self) -> tuple[str, ...]:
        """Arithmetic nodes with constant float weights, in graph order."""
        return tuple(
            name
            for name in self.nodes
            if self.weight(name) is not None
            and self.is_float(self.nodes[name].input[0])
            and self.is_float(name)
        )

    @cached_property
    def between(self) -> tuple[str, ...]:
        """Other nodes that integer kernels may exist for, in graph order."""
        return tuple(
            name
            for name, node in self.nodes.items()
            if node.op_type in BETWEEN | MOVING and self.activations(name) and self.is_float(name)
        )

    @cached_property
    def observed(self) -> tuple[str, ...]:
        """Tensors whose statistics all emitters together need, in graph order."""
        names = dict.fromkeys(self.inputs)
        for node in (*self.computing, *self.between):
            names.update(dict.fromkeys(self.activations(node)))
            names[node] = None
        return tuple(
            name
            for name in names
            if self.is_float(name) and self.source(name) == name and self._op(name) != "Sigmoid"
        )

    def source(self, tensor: str) -> str:
        """The tensor whose range this one has: itself, or what a moving operator moved."""
        while self._op(tensor) in MOVING and self.activations(self.producer[tensor]):
            tensor = self.activations(self.producer[tensor])[0]
        return tensor

    def _op(self, tensor: str) -> str:
        node = self.nodes.get(self.producer.get(tensor, ""))
        return node.op_type if node is not None else ""

    def silu(self, tensor: str) -> str | None:
        """The output of x * sigmoid(x) when that is all that reads `tensor`, else None."""
        readers = self.readers.get(tensor, [])
        if len(readers) != 2 or tensor in self.outputs:
            return None
        gate = next((n for n in readers if self.nodes[n].op_type == "Sigmoid"), None)
        product = next((n for n in readers if self.nodes[n].op_type == "Mul"), None)
        if gate is None or product is None or self.readers[gate] != [product]:
            return None
        return product if set(self.nodes[product].input) == {tensor, gate} else None

    def depthwise(self, node: str) -> bool:
        """Whether it is a convolution in which every channel is computed from one channel."""
        operator = self.nodes[node]
        if operator.op_type != "Conv" or self.weight(node) is None:
            return False
        groups = next((a.i for a in operator.attribute if a.name == "group"), 1)
        return bool(groups > 1 and self.constants[operator.input[1]].dims[1] == 1)

    @cached_property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of every arithmetic node at batch 1."""
        macs = {}
        for node in self.computing:
            weight = self.constants[self.weight(node) or ""]
            per_cell = math.prod(weight.dims)
            spatial = self.shape(node)[2:] if self.nodes[node].op_type == "Conv" else ()
            rows = self.shape(node)[1:-1] if self.nodes[node].op_type == "MatMul" else ()
            macs[node] = per_cell * math.prod(n or 1 for n in (*spatial, *rows))
        return macs
