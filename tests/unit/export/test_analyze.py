"""Parameters and FLOPs are those that a hand computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engineworks.export.analyze import analyze

SIZE = (8, 10)


def weight(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def save(path, nodes, weights, inputs=("batch", 4, *SIZE), outputs=None):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        weights,
    )
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


NETS = {
    # 8x10 -> 6x8: each of 6*8*5 values sums 4*3*3
    "conv": ([("Conv", "x w b", {})], [("w", 5, 4, 3, 3), ("b", 5)], 185, 6 * 8 * 5 * 36),
    "strided": (
        [("Conv", "x w", {"strides": [2, 2], "pads": [1, 1, 1, 1]})],
        [("w", 5, 4, 3, 3)], 180, 4 * 5 * 5 * 36,
    ),
    "grouped": ([("Conv", "x w", {"group": 2})], [("w", 6, 2, 3, 3)], 108, 6 * 8 * 6 * 18),
    "depthwise": ([("Conv", "x w", {"group": 4})], [("w", 4, 1, 3, 3)], 36, 6 * 8 * 4 * 9),
    "transposed": (
        [("ConvTranspose", "x w", {"strides": [2, 2]})],
        [("w", 4, 5, 2, 2)], 80, 8 * 10 * 4 * 5 * 4,
    ),
    "matmul": ([("MatMul", "x w", {})], [("w", 10, 7)], 70, 4 * 8 * 10 * 7),
    "linear": (
        [("Flatten", "x", {}), ("Gemm", "h0 w b", {"transB": 1})],
        [("w", 9, 320), ("b", 9)], 2889, 9 * 320,
    ),
    "turned linear": (  # (1, 320) turned to (320, 1), times (1, 9)
        [("Flatten", "x", {}), ("Gemm", "h0 w", {"transA": 1})],
        [("w", 1, 9)], 9, 320 * 9,
    ),
    "shared weight": (
        [("Conv", "x w", {}), ("Conv", "x w", {}), ("Add", "h0 h1", {})],
        [("w", 5, 4, 3, 3)], 180, 2 * 6 * 8 * 5 * 36,
    ),
    "element-wise": ([("Relu", "x", {})], [], 0, 0),
}  # fmt: skip


def make(path, steps, weights):
    nodes = [
        helper.make_node(
            operator,
            inputs.split(),
            ["y" if number == len(steps) - 1 else f"h{number}"],
            **attributes,
        )
        for number, (operator, inputs, attributes) in enumerate(steps)
    ]
    return save(path, nodes, [weight(*entry) for entry in weights])


@pytest.mark.parametrize("name", NETS)
def test_the_counts_are_those_of_a_hand(tmp_path, name):
    steps, weights, parameters, macs = NETS[name]
    found = analyze(make(tmp_path / "m.onnx", steps, weights), SIZE, {})
    assert found.parameters == parameters
    assert found.flops == 2 * macs
    assert found.nodes == len(steps)
    assert found.weight_bytes == {
        "fp32": 4 * parameters,
        "fp16": 2 * parameters,
        "int8": parameters,
    }


def test_an_open_height_and_width_get_the_models_size(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [weight("w", 5, 4, 3, 3)], ("b", 4, "h", "w"))
    assert analyze(path, SIZE, {}).flops == 2 * 6 * 8 * 5 * 36


def test_shapes_and_axes_are_no_parameters(tmp_path):
    """A reshape's target is a constant of the graph, and no weight of the model."""
    target = numpy_helper.from_array(np.array([-1, 320], np.int64), "target")
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [target, weight("w", 320, 9)])
    assert analyze(path, SIZE, {}).parameters == 2880


def test_weights_in_constant_nodes_are_parameters(tmp_path):
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight("", 5, 4, 3, 3)),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    found = analyze(save(tmp_path / "m.onnx", nodes, []), SIZE, {})
    assert found.flops == 2 * 6 * 8 * 5 * 36
    assert found.parameters == 180


def test_operators_are_counted_with_their_domain(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["h1"]),
        helper.make_node("Frob", ["h1"], ["y"], domain="my.domain"),
    ]
    unsupported_operators = {"openvino": ("my.domain.Frob",)}
    found = analyze(save(tmp_path / "m.onnx", nodes, []), SIZE, unsupported_operators)
    assert found.operators == {"Relu": 2, "my.domain.Frob": 1}
    assert found.unsupported_operators == unsupported_operators


def test_the_largest_layer_comes_first(tmp_path):
    steps = [("Conv", "x w", {}), ("Conv", "h0 v", {})]
    path = make(tmp_path / "m.onnx", steps, [("w", 2, 4, 3, 3), ("v", 64, 2, 3, 3)])
    first, second = analyze(path, SIZE, {}).largest
    assert (first.parameters, second.parameters) == (64 * 18, 72)
    assert first.macs > second.macs


def test_the_tiny_net_made_by_torch(tiny_onnx):
    """Conv 3->8 (pad 1), conv 8->8 in 4 groups, linear 8->5, on 16x16."""
    found = analyze(tiny_onnx, (16, 16), {})
    assert found.parameters == (8 * 27 + 8) + (8 * 18 + 8) + (5 * 8 + 5)
    assert found.flops == 2 * (256 * 8 * 27 + 196 * 8 * 18 + 40)


def test_a_dimension_of_minus_1_counts_once(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [weight("w", 5, 4, 3, 3)], (-1, 4, -1, -1))
    assert analyze(path, SIZE, {}).flops == 2 * 6 * 8 * 5 * 36


def test_what_has_no_known_shape_is_named(tmp_path):
    """The inner domain's operator tells no shape, so the product's work is not known."""
    nodes = [
        helper.make_node("Frob", ["x"], ["h0"], domain="my.domain"),
        helper.make_node("MatMul", ["h0", "h0"], ["h1"]),
        helper.make_node("Einsum", ["x", "x"], ["h2"], equation="abcd,abcd->a"),
        helper.make_node("Add", ["h1", "h2"], ["y"]),
    ]
    found = analyze(save(tmp_path / "m.onnx", nodes, []), SIZE, {})
    assert (found.flops, found.uncounted) == (0, ("MatMul", "Einsum"))


def test_work_inside_functions_is_counted(tmp_path):
    block = helper.make_function(
        "my.domain", "Block", ["a", "b"], ["c"],
        [helper.make_node("Conv", ["a", "b"], ["c"])], [helper.make_opsetid("", 17)],
    )  # fmt: skip
    nodes = [helper.make_node("Block", ["x", "w"], ["y"], domain="my.domain")]
    path = save(tmp_path / "m.onnx", nodes, [weight("w", 5, 4, 3, 3)])
    model = onnx.load(str(path))
    model.functions.append(block)
    onnx.save(model, str(path))
    found = analyze(path, SIZE, {})
    assert found.flops == 2 * 6 * 8 * 5 * 36
    assert found.operators == {"my.domain.Block": 1}
    assert found.largest[0].operator == "Conv"


def test_fused_operators_are_counted_as_what_they_do(tmp_path):
    """ONNX Runtime's optimised graphs: 8x10 -> 6x8 by a fused Conv, then 5 -> 7 channels."""
    micro = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("FusedConv", ["x", "w", "b"], ["h0"], activation="Relu", **micro),
        helper.make_node("QuickGelu", ["h0"], ["h1"], alpha=1.0, **micro),
        helper.make_node("Conv", ["h1", "v"], ["y"]),
    ]
    weights = [weight("w", 5, 4, 3, 3), weight("b", 5), weight("v", 7, 5, 1, 1)]
    found = analyze(save(tmp_path / "m.onnx", nodes, weights), SIZE, {})
    assert found.flops == 2 * (6 * 8 * 5 * 36 + 6 * 8 * 7 * 5)
    assert found.largest[0].operator == "com.microsoft.FusedConv"
    assert found.uncounted == ()


def test_layers_are_listed_by_parameters_too(tmp_path):
    """A convolution over many pixels does more work than a large matrix, which holds more."""
    nodes = [
        onnx.helper.make_node("Conv", ["images", "small"], ["wide"], name="busy", pads=[1] * 4),
        onnx.helper.make_node("GlobalAveragePool", ["wide"], ["mean"]),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "large"], ["out"], name="heavy"),
    ]
    weights = {"small": np.zeros((8, 3, 3, 3), np.float32), "large": np.zeros((8, 900), np.float32)}
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 64, 64])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 900])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    found = analyze(tmp_path / "m.onnx", (64, 64), {})
    assert found.largest[0].name == "busy"
    assert [(one.name, one.parameters) for one in found.heaviest] == [
        ("heavy", 7200),
        ("busy", 216),
    ]
