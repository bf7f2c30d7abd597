"""What a runtime would misread in a Q/DQ graph is found in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from engineworks.calibrate.collect import collect
from engineworks.calibrate.derive import derive
from engineworks.qdq.accept import integer_layers, is_quantized, load, refusals
from engineworks.qdq.graph import Graph
from engineworks.qdq.pairs import Scheme, emit
from tests.builders import conv_net, samples

UNSIGNED = Scheme(activation="uint8", bias="int32", outputs=True)
SIGNED = Scheme(activation="int8", bias="float", outputs=False)  # as TensorRT reads it


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(graph, function that writes it by a scheme)."""
    graph = Graph(conv_net(tmp_path_factory.mktemp("accept") / "net.onnx"))
    statistics = collect(graph, [row[None] for row in samples(2)])

    def write(scheme, nodes=None):
        bounds = derive(graph, statistics, "minmax", scheme)
        return emit(graph, bounds, graph.computing if nodes is None else nodes, scheme)

    return graph, write


def pair(zero, *, scale=0.1, typed=None):
    """A graph of one Q/DQ pair with this zero point (None: left out)."""
    tensors = [onnx.numpy_helper.from_array(np.float32(scale), "scale")]
    inputs = ["scale"]
    if zero is not None:
        tensors.append(onnx.numpy_helper.from_array(np.asarray(zero), "zero"))
        inputs.append("zero")
    attributes = {} if typed is None else {"output_dtype": typed}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", *inputs], ["q"], "quantize", **attributes),
        onnx.helper.make_node("DequantizeLinear", ["q", *inputs], ["y"], "dequantize"),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "xy"]
    graph = onnx.helper.make_graph(nodes, "pair", ends[:1], ends[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED], ids=["unsigned", "signed"])
def test_what_we_write_for_a_runtime_it_reads(made, scheme):
    graph, write = made
    assert refusals(write(scheme), scheme) == ()
    assert refusals(write(scheme, (*graph.computing, *graph.between)), scheme) == ()
    assert refusals(write(scheme, ()), scheme) == ()


def test_what_we_write_for_onnx_runtime_tensorrt_would_misread(made):
    _, write = made
    found = refusals(write(UNSIGNED), SIGNED)
    assert len(found) == 2
    assert any("dequantizes an int32 bias" in reason for reason in found)
    assert any("UINT8, which would be read as INT8" in reason for reason in found)


def test_onnx_runtime_reads_signed_graphs_too(made):
    _, write = made
    assert refusals(write(SIGNED), UNSIGNED) == ()


REFUSED = {
    "unsigned": (pair(np.uint8(0)), "UINT8"),
    "unsigned with a zero point": (pair(np.uint8(128)), "UINT8"),
    "no zero point, which means unsigned": (pair(None), "UINT8"),
    "a zero point": (pair(np.int8(3)), "zero point other than 0"),
    "a zero point of one channel": (pair(np.int8([0, -1])), "zero point other than 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pair_that_is_not_symmetric_is_refused_and_named(name):
    model, says = REFUSED[name]
    (reason,) = refusals(model, SIGNED)
    assert says in reason
    assert "quantize" in reason
    assert refusals(model, UNSIGNED) == ()


@pytest.mark.parametrize(
    "model", [pair(np.int8(0)), pair(None, typed=onnx.TensorProto.INT8)], ids=["zero", "typed"]
)
def test_a_symmetric_pair_is_read(model):
    assert refusals(model, SIGNED) == ()


def test_an_int32_bias_is_refused_where_biases_are_float():
    model = pair(np.int8(0))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int32([1, 2]), "whole"))
    bias = onnx.helper.make_node("DequantizeLinear", ["whole", "scale"], ["b"], "the_bias")
    model.graph.node.append(bias)
    (reason,) = refusals(model, SIGNED)
    assert reason == "the_bias dequantizes an int32 bias"
    assert refusals(model, UNSIGNED) == ()


def test_only_layers_with_integer_weights_and_input_are_integer_layers(made):
    graph, write = made
    assert integer_layers(graph.model) == 0
    for nodes in ((), ("stem",), ("left", "scores"), graph.computing):
        assert integer_layers(write(SIGNED, nodes)) == len(nodes)
    model = write(SIGNED)
    stem = next(node for node in model.graph.node if node.output[0] == "stem")
    stem.input[0] = "images"  # weights alone: the products are float
    assert integer_layers(model) == len(graph.computing) - 1


def test_a_quantized_file_is_told_from_a_float_one(made, tmp_path):
    graph, write = made
    path = tmp_path / "qdq.onnx"
    onnx.save(write(SIGNED), str(path))
    assert is_quantized(load(path))
    assert not is_quantized(load(graph.path))


def test_an_activation_in_integers_is_refused_where_only_weights_may_be(made):
    _, write = made
    (words,) = refusals(write(SIGNED), Scheme(activation="float", bias="float", outputs=False))
    assert "quantizes an activation" in words
