"""The two models of the protocol suite: their arithmetic is exact on every machine.

`floats`: x FP32 [batch, 4] -> double FP32 [batch, 4], total FP32 [batch, 1].
`bytes`: x UINT8 [batch, 2] -> y UINT8 [batch, 2], each bit the other way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engineworks.specs import TaskSpec
from engineworks.store import LocalStore
from tests import builders


def engines(folder: Path) -> dict[str, Path]:
    """Name -> folder of an ONNX Runtime engine."""
    return {
        name: Path(
            builders.put_engine(
                LocalStore(folder / "store"), write(folder), name=name, task=TaskSpec()
            ).uri
        )
        for name, write in (("floats", floats_onnx), ("bytes", bytes_onnx))
    }


def floats_onnx(folder: Path) -> Path:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Add", ["x", "x"], ["double"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=1),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    float32 = TensorProto.FLOAT
    return _save(
        folder / "floats.onnx", nodes, [("x", float32, 4)],
        [("double", float32, 4), ("total", float32, 1)], [axes],
    )  # fmt: skip


def bytes_onnx(folder: Path) -> Path:
    from onnx import TensorProto, helper

    uint8 = TensorProto.UINT8
    nodes = [helper.make_node("BitwiseNot", ["x"], ["y"])]
    return _save(folder / "bytes.onnx", nodes, [("x", uint8, 2)], [("y", uint8, 2)], [])


def _save(path: Path, nodes: Any, inputs: Any, outputs: Any, weights: Any) -> Path:
    from onnx import helper, save

    def info(tensors: Any) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, dtype, ["batch", size])
            for name, dtype, size in tensors
        ]

    graph = helper.make_graph(nodes, "exact", info(inputs), info(outputs), weights)
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path
