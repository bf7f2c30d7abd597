"""Writes a graph with Q/DQ pairs: the form in which integers reach every runtime.

Which nodes, which ranges and which scheme are decided elsewhere. Source of the operators:
https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html and onnx__DequantizeLinear.html
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engineworks.qdq.graph import Graph, passes
from engineworks.qdq.ranges import Ranges

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What a runtime reads as integers; each target states its own."""

    activation: Literal["uint8", "int8", "either", "float"]
    """uint8 with a zero point; int8 around 0; or without zero points: uint8 for what is never
    negative, else int8; float: only weights are integers."""
    bias: Literal["int32", "float"]
    """int32 with the product of both scales (ONNX Runtime), or left as it is (TensorRT)."""
    outputs: bool
    """Whether integer kernels need their output quantized at once (ONNX Runtime fuses
    DQ-node-Q), or requantize by themselves (OpenVINO, TensorRT: DQ-node)."""
    weight_bits: Literal[7, 8] = 8
    """7 where 8-bit products saturate: x86 without VNNI."""
    passing: bool = False
    """Whether integers pass through operators that only move or join values without being
    quantized behind them again (OpenVINO)."""
    depthwise_channels: bool = False
    """Whether every channel that a depthwise convolution reads may have a scale of its own: such
    a layer never adds values of two channels, so a runtime can fold the scales into its weights."""

    @property
    def symmetric(self) -> bool:
        """Whether ranges of activations lie around 0."""
        return self.activation != "uint8"


@dataclass(frozen=True)
class Step:
    """Scales and zero points of one tensor: value = (integer - zero) * scale.

    Attributes:
        scale: float64, () or (channels,).
        zero: int8 or uint8, of the same shape.
    """

    scale: Array
    zero: Array


def step(low: Array | float, high: Array | float, scheme: Scheme) -> Step:
    """Scales and zero points of ranges, each of which holds 0."""
    lows, highs = np.asarray(low, np.float64), np.asarray(high, np.float64)
    unsigned = scheme.activation == "uint8" or (scheme.activation == "either" and not lows.any())
    if scheme.symmetric:
        scale = np.maximum(np.maximum(-lows, highs), 1e-12) / (255 if unsigned else 127)
        return Step(scale, np.zeros(scale.shape, np.uint8 if unsigned else np.int8))
    scale = np.maximum(highs - lows, 1e-12) / 255
    return Step(scale, np.clip(np.round(-lows / scale), 0, 255).astype(np.uint8))


def quantize_weight(weight: Array, axis: int | None, bits: int = 8) -> tuple[Array, Array]:
    """Symmetric integers of a weight.

    Args:
        weight: float32.
        axis: Dimension of output channels, each with its own scale; None: one scale for all.
        bits: 8: -127..127; 7: -63..63.

    Returns:
        (int8 like weight, float32 scales: (channels,) or ()).
    """
    others = tuple(n for n in range(weight.ndim) if n != axis) if axis is not None else None
    bound = np.abs(weight).max(axis=others)
    limit = 2 ** (bits - 1) - 1
    scale = np.where(bound > 0, bound / limit, 1.0 / limit).astype(np.float32)
    wide = scale if axis is None else np.expand_dims(scale, others or ())
    return np.clip(np.round(weight / wide), -limit, limit).astype(np.int8), scale


def channel_axis(graph: Graph, node: str) -> int:
    """Dimension of a weight that counts output channels."""
    operator = graph.nodes[node]
    if operator.op_type == "Conv":
        return 0
    if operator.op_type == "Gemm":
        flipped = any(a.name == "transB" and a.i for a in operator.attribute)
        return 0 if flipped else 1
    return len(graph.constants[graph.weight(node) or ""].dims) - 1


class _Writer:
    def __init__(self, graph: Graph, ranges: Ranges, chosen: set[str], scheme: Scheme) -> None:
        import onnx

        self.helper, self.numpy_helper = onnx.helper, onnx.numpy_helper
        self.graph, self.ranges, self.scheme = graph, ranges, scheme
        self.model = onnx.ModelProto()
        self.model.CopyFrom(graph.model)
        del self.model.graph.node[:]
        del self.model.graph.value_info[:]
        self.extra: list[Any] = []
        self.chosen = chosen
        self.bounds = dict(ranges.tensors)
        self.joined: dict[str, str] = {}
        self._join()

    def _join(self) -> None:
        """Give tensors that a chosen Concat joins one range, so that joining is copying."""
        for name in self.chosen:
            if self.graph.nodes[name].op_type != "Concat":
                continue
            parts = [*self.graph.activations(name), name]
            members = {self._head(self.graph.source(tensor)) for tensor in parts}
            members = {tensor for tensor in members if tensor in self.bounds}
            head, *others = sorted(members)
            for other in others:
                self.joined[other] = head
                low, high = self.bounds[other]
                self.bounds[head] = min(self.bounds[head][0], low), max(self.bounds[head][1], high)
        self.joined = {tensor: self._head(tensor) for tensor in self.joined}

    def _head(self, tensor: str) -> str:
        while tensor in self.joined:
            tensor = self.joined[tensor]
        return tensor

    def passed(self, tensor: str) -> bool:
        """Whether a tensor arrives in integers from an operator that only moved or joined them."""
        producer = self.graph.producer.get(tensor, "")
        return (
            self.scheme.passing and producer in self.chosen and passes(self.graph.nodes[producer])
        )

    def step_of(self, tensor: str) -> Step:
        source = self.graph.source(tensor)
        producer = self.graph.nodes.get(self.graph.producer.get(source, ""))
        if producer is not None and producer.op_type == "Sigmoid":
            return step(0.0, 255 / 256 if self.scheme.activation == "uint8" else 1.0, self.scheme)
        return step(*self.bounds[self.joined.get(source, source)], self.scheme)

    def constant(self, name: str, value: Array) -> str:
        # ascontiguousarray() makes a scalar a row, which is no scale of a whole tensor.
        whole = np.ascontiguousarray(value).reshape(value.shape)
        self.extra.append(self.numpy_helper.from_array(whole, name))
        return name

    def pair(self, source: str, target: str, scaling: Step) -> list[Any]:
        """Nodes Q and DQ from one float tensor to another."""
        base = f"{target}__qdq"
        parameters = [
            self.constant(f"{base}_scale", scaling.scale.astype(np.float32)),
            self.constant(f"{base}_zero", scaling.zero),
        ]
        axis = {"axis": 1} if scaling.scale.ndim else {}
        return [
            self.helper.make_node(
                "QuantizeLinear", [source, *parameters], [f"{base}_q"],
                f"{base}_QuantizeLinear", **axis,
            ),
            self.helper.make_node(
                "DequantizeLinear", [f"{base}_q", *parameters], [target],
                f"{base}_DequantizeLinear", **axis,
            ),
        ]  # fmt: skip

    def by_channel(self, tensor: str) -> bool:
        """Whether all integer readers of a tensor take a scale for every channel.

        Two pairs on one tensor would cost more time than they gain in accuracy.
        """
        readers = self.chosen.intersection(self.graph.readers.get(tensor, ()))
        return (
            self.scheme.depthwise_channels
            and tensor in self.ranges.channels
            and all(self.graph.depthwise(node) for node in readers)
        )

    def weights(self, node: str, proto: Any) -> list[Any]:
        """Integer weights (and bias) of an arithmetic node; changes its inputs."""
        axis = channel_axis(self.graph, node)
        name = self.graph.weight(node) or ""
        values = np.asarray(self.graph.constant(name), np.float32)
        bias_name = proto.input[2] if len(proto.input) > 2 and proto.op_type != "MatMul" else ""
        bias = self.graph.constant(bias_name) if bias_name else None
        integers, scales = quantize_weight(values, axis, self.scheme.weight_bits)
        as_int32 = self.scheme.bias == "int32" and bias is not None and bias.ndim == 1
        if as_int32 and bias is not None:
            input_scale = float(self.step_of(self.graph.nodes[node].input[0]).scale)
            # A bias of nearly dead channels must still fit into 32 bits: widen their weights.
            least = np.abs(bias).astype(np.float64) / (input_scale * (2**31 - 1))
            if (scales < least).any():
                scales = np.maximum(scales, least * 1.01).astype(np.float32)
                shape = [-1 if n == axis else 1 for n in range(values.ndim)]
                integers = np.round(values / scales.reshape(shape)).astype(np.int8)
        nodes = [self._dequantize(f"{node}__weight", integers, scales, axis)]
        proto.input[1] = nodes[0].output[0]
        if as_int32 and bias is not None:
            product = (input_scale * scales).astype(np.float32)
            whole = np.round(bias / product).astype(np.int32)
            nodes.append(self._dequantize(f"{node}__bias", whole, product, 0))
            proto.input[2] = nodes[1].output[0]
        return nodes

    def _dequantize(self, base: str, integers: Array, scales: Array, axis: int) -> Any:
        zeros = np.zeros(scales.shape, integers.dtype)
        inputs = [
            self.constant(f"{base}_q", integers),
            self.constant(f"{base}_scale", scales),
            self.constant(f"{base}_zero", zeros),
        ]
        return self.helper.make_node(
            "DequantizeLinear", inputs, [f"{base}_dq"], f"{base}_DequantizeLinear", axis=axis
        )


def emit(graph: Graph, ranges: Ranges, nodes: Collection[str], scheme: Scheme) -> Any:
    """The model with the given nodes in integers.

    Args:
        graph: The float graph.
        ranges: Of every tensor that the nodes touch.
        nodes: Nodes that shall compute in integers, by their first output.
        scheme: What the runtime reads.

    Returns:
        onnx.ModelProto. Inputs, outputs and their names are those of the float graph.
    """
    chosen = set(nodes)
    writer = _Writer(graph, ranges, chosen, scheme)
    paired: dict[str, str] = {}
    written = writer.model.graph.node
    for tensor in graph.inputs:
        written.extend(_pair_for_readers(writer, tensor, paired))
    for name, original in graph.nodes.items():
        proto = type(original)()
        proto.CopyFrom(original)
        if name in chosen:
            for position, tensor in enumerate(proto.input):
                if tensor in paired:
                    proto.input[position] = paired[tensor]
            if graph.weight(name) is not None:
                written.extend(writer.weights(name, proto))
        pairs: list[Any] = []
        for position, output in enumerate(original.output):
            if name in chosen and scheme.outputs and graph.is_float(output):
                # Its kernel needs a quantized output: that takes the name, for all readers.
                proto.output[position] = f"{output}__float"
                pairs.extend(writer.pair(f"{output}__float", output, writer.step_of(output)))
            else:
                pairs.extend(_pair_for_readers(writer, output, paired))
        written.append(proto)
        written.extend(pairs)
    _finish(writer)
    return writer.model


def _pair_for_readers(writer: _Writer, tensor: str, paired: dict[str, str]) -> list[Any]:
    """One shared pair in front of all integer readers; float readers keep the float tensor."""
    readers = writer.graph.readers.get(tensor, ())
    if not writer.graph.is_float(tensor) or not writer.chosen.intersection(readers):
        return []
    if writer.passed(tensor) or writer.scheme.activation == "float":
        return []
    paired[tensor] = f"{tensor}__int"
    if writer.by_channel(tensor):
        scaling = step(*writer.ranges.channels[tensor], writer.scheme)
    else:
        scaling = writer.step_of(tensor)
    return writer.pair(tensor, paired[tensor], scaling)


def _finish(writer: _Writer) -> None:
    """Drop constants that nothing reads any more, add the new ones."""
    graph = writer.model.graph
    read = {tensor for node in graph.node for tensor in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(writer.extra)
