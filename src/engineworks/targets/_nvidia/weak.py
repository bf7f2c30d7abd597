"""The weak route: a float32 graph, and leave for the builder to choose narrower types.

TensorRT 8 has no other, and DLA before TensorRT 11 takes its integer ranges this way: one range
per tensor beside the graph, through a calibrator or on the tensors, instead of Q/DQ in it. Both
are made from the Q/DQ graph that the search has chosen, so that the ranges are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.qdq.graph import COMPUTE
from engineworks.targets._nvidia import cache_file
from engineworks.targets._nvidia.api import Api

#: Option `calibrator` -> class of the module, and the name in its cache's first line.
CALIBRATORS = {
    "entropy2": ("IInt8EntropyCalibrator2", "EntropyCalibration2"),
    "minmax": ("IInt8MinMaxCalibrator", "MinMaxCalibration"),
}


@dataclass(frozen=True, kw_only=True)
class GraphScales:
    """A Q/DQ graph taken apart: the float graph, and its ranges beside it."""

    onnx: Path
    scales: dict[str, float]
    """Tensor -> size of one of 127 steps."""
    floats: frozenset[str]
    """Names of the layers that compute in float."""


def take_apart(qdq: Path, path: Path) -> GraphScales:
    """Write the graph without its Q/DQ nodes to `path`, weights rounded as they were.

    Args:
        qdq: A graph with symmetric INT8 pairs in front of its arithmetic, as
            `qdq.pairs.emit` writes it for TensorRT.
        path: Where the float graph goes.
    """
    import onnx

    model = onnx.load(str(qdq))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    quantizers = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
    scales: dict[str, float] = {}
    renamed: dict[str, str] = {}
    weights = []
    kept = []
    integers = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scales[node.input[0]] = float(constants[node.input[1]])
        elif node.op_type != "DequantizeLinear":
            if node.op_type in COMPUTE and node.input[0] in renamed:
                integers.add(node.name or node.output[0])
            for position, name in enumerate(node.input):
                node.input[position] = renamed.get(name, name)
            kept.append(node)
        elif node.input[0] in quantizers:
            renamed[node.output[0]] = quantizers[node.input[0]].input[0]
        else:
            value = _dequantize(node, constants)
            weights.append(onnx.numpy_helper.from_array(value, node.output[0]))
    floats = {
        node.name or node.output[0] for node in kept if node.op_type in COMPUTE
    } - integers  # fmt: skip
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    rest = [t for t in model.graph.initializer if t.name in read]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in (*rest, *weights)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    onnx.save(model, str(path))
    return GraphScales(onnx=path, scales=scales, floats=frozenset(floats))


def _dequantize(node: Any, constants: dict[str, Any]) -> np.ndarray[Any, Any]:
    integers, scale = constants[node.input[0]], constants[node.input[1]]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.ndim == 1:
        scale = scale.reshape([-1 if n == axis else 1 for n in range(integers.ndim)])
    return np.asarray(integers * scale, np.float32)


def cache_version(version: str) -> str:
    """TensorRT's version as a calibration cache has it: 8.6.1 -> 8601, 10.3.0 -> 100300."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return f"{major}{minor}{patch:02}" if major < 10 else f"{major}{minor:02}{patch:02}"


def calibration_cache(ranges: GraphScales, version: str, algorithm: str) -> str:
    """Text of the calibration cache that holds these ranges."""
    bounds = {name: (-127 * scale, 127 * scale) for name, scale in ranges.scales.items()}
    return cache_file.write(bounds, cache_version(version), algorithm)


def calibrator(trt: Any, kind: str, cache: str) -> Any:
    """A calibrator of the vendor's class that answers from a cache and needs no images."""

    class FromCache(getattr(trt, CALIBRATORS[kind][0])):  # type: ignore[misc]
        """Gives no batch: all it has is in the cache."""

        def __init__(self) -> None:
            super().__init__()

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache.encode()

        def write_calibration_cache(self, cache: Any) -> None:
            return None

    return FromCache()


def allow(api: Api, config: Any, precision: str) -> None:
    """Let the builder use a precision, and those above it that help it.

    Raises:
        BuildError: This TensorRT or this GPU does not have it.
    """
    names = {"fp32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16")}
    for name in names[precision]:
        api.set_flag(config, name, precision)


def keep_in_float(api: Api, network: Any, config: Any, ranges: GraphScales) -> None:
    """Hold the layers in float that the search has left there.

    Raises:
        BuildError: This TensorRT cannot be held to a layer's precision.
    """
    if not ranges.floats:
        return
    api.set_flag(config, "OBEY_PRECISION_CONSTRAINTS", "layers left in float")
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.name in ranges.floats:
            layer.precision = api.trt.DataType.FLOAT


def through_calibrator(api: Api, config: Any, ranges: GraphScales, kind: str) -> tuple[Any, str]:
    """Give the builder its integer ranges through a calibrator.

    Returns:
        (the calibrator, which must outlive the build; the text of its cache).
    """
    text = calibration_cache(ranges, api.version, CALIBRATORS[kind][1])
    int8_calibrator = calibrator(api.trt, kind, text)
    config.int8_calibrator = int8_calibrator
    return int8_calibrator, text


def on_tensors(network: Any, ranges: GraphScales) -> None:
    """Give the builder its integer ranges on the tensors themselves; the others stay in float.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/ "Setting Per-Tensor Dynamic Range"

    Raises:
        BuildError: A tensor of the graph is not in the network, or its range is refused.
    """
    tensors = [network.get_input(n) for n in range(network.num_inputs)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        tensors += [layer.get_output(n) for n in range(layer.num_outputs)]
    known = {tensor.name: tensor for tensor in tensors}
    for name, scale in ranges.scales.items():
        if name not in known or not known[name].set_dynamic_range(-127 * scale, 127 * scale):
            raise BuildError(
                f"TensorRT takes no range for the tensor {name!r}",
                hint="give the ranges by options.ranges: cache",
            )
