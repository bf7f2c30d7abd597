"""How each target wants its integers, and what it changes in a graph at the end."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from engineworks import hosts
from engineworks.calibrate.collect import collect
from engineworks.calibrate.derive import derive
from engineworks.evaluate import parity
from engineworks.qdq import accept, pairs
from engineworks.qdq.graph import Graph
from engineworks.search import placement
from engineworks.targets import _base, onnxruntime_cpu, openvino
from tests.builders import conv_net, samples

HOST = hosts.probe()
ROWS = samples(3)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(conv_net(tmp_path_factory.mktemp("rules") / "net.onnx"))


def integers(graph, nodes):
    rules = onnxruntime_cpu.int8(HOST)
    statistics = collect(graph, [row[None] for row in ROWS])
    return pairs.emit(graph, derive(graph, statistics, "minmax", rules.scheme), nodes, rules.scheme)


def answers(model):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": ROWS})[0]


@pytest.mark.parametrize(
    ("arch", "flags", "bits"),
    [
        ("x86_64", (), 7),
        ("AMD64", ("avx2", "avx512f"), 7),
        ("x86_64", ("avx512_vnni",), 8),
        ("x86_64", ("avx_vnni",), 8),
        ("aarch64", (), 8),
        ("arm64", (), 8),
    ],
)
def test_onnx_runtime_takes_7_bits_where_8_saturate(arch, flags, bits):
    host = dataclasses.replace(HOST, arch=arch, cpu_flags=flags)
    assert onnxruntime_cpu.int8(host).scheme.weight_bits == bits


class TestFusedSilu:
    def test_it_replaces_both_nodes_and_answers_the_same(self, graph):
        model = integers(graph, graph.computing)
        before = answers(model)
        onnxruntime_cpu.int8(HOST).rewrite(model)
        operators = [node.op_type for node in model.graph.node]
        assert operators.count("QuickGelu") == 1
        assert {"Sigmoid", "Mul"} & set(operators) == set()
        assert accept.integer_layers(model) == len(graph.computing)
        np.testing.assert_allclose(answers(model), before, rtol=1e-4, atol=1e-5)
        assert parity.difference(answers(model), answers(graph.model))[2] > 20

    def test_it_leaves_one_in_integers_alone(self, graph):
        model = integers(graph, (*graph.computing, *graph.between))
        before = model.SerializeToString()
        onnxruntime_cpu.int8(HOST).rewrite(model)
        assert model.SerializeToString() == before

    def test_a_gate_that_is_read_elsewhere_stays(self, graph):
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        (add,) = (node for node in model.graph.node if node.op_type == "Add")
        add.input[1] = "gate"
        before = answers(model)
        onnxruntime_cpu.int8(HOST).rewrite(model)
        assert "Sigmoid" in {node.op_type for node in model.graph.node}
        np.testing.assert_array_equal(answers(model), before)


class TestTruth:
    @pytest.fixture
    def asked(self, graph, tmp_path):
        """A graph that asks for two integer layers."""
        path = tmp_path / "asked.onnx"
        onnx.save(integers(graph, ("stem", "deep")), str(path))
        return path

    @pytest.mark.parametrize(
        ("delivered", "holds", "words"),
        [(2, True, "int8"), (3, True, "int8"), (1, False, "int8 in 1 of 2 layers")],
    )
    def test_it_holds_when_every_layer_asked_for_is_there(self, asked, delivered, holds, words):
        found = _base.int8_precision(asked, delivered, 5, {"int8": 7})
        assert (found.asked, found.holds, found.delivered) == ("int8", holds, words)
        assert found.computed_nodes == {"int8": delivered, "fp32": 5 - delivered}
        assert f"{delivered} of 5 layers compute in integers" in found.note

    def test_nothing_has_to_be_said_when_all_are_integers(self, asked):
        assert _base.int8_precision(asked, 5, 5, {}).note == ""

    def test_a_float_graph_never_holds(self, graph):
        assert not _base.int8_precision(graph.path, 5, 5, {}).holds


@pytest.mark.parametrize(("mode", "carried"), [("nearest", True), ("linear", False)])
def test_openvino_computes_behind_a_resize_in_integers(tmp_path, mode, carried):
    """Integers pass a Resize that copies; one that interpolates is quantized behind again."""
    pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.standard_normal((8, 3, 3, 3)), "v": rng.standard_normal((8, 8, 3, 3)),
        "scales": np.array([1, 1, 2, 2]),
    }  # fmt: skip
    copying = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes = [
        onnx.helper.make_node("Conv", ["images", "w"], ["first"], pads=[1] * 4),
        onnx.helper.make_node("Relu", ["first"], ["act"]),
        onnx.helper.make_node(
            "Resize", ["act", "", "scales"], ["larger"], mode=mode, **(copying if carried else {})
        ),
        onnx.helper.make_node("Conv", ["larger", "v"], ["second"], pads=[1] * 4),
    ]
    given = onnx.helper.make_tensor_value_info("images", 1, ["batch", 3, 16, 16])
    wanted = onnx.helper.make_tensor_value_info("second", 1, ["batch", 8, 32, 32])
    weights = [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in tensors.items()]
    opsets = [onnx.helper.make_opsetid("", 17)]
    made = onnx.helper.make_graph(nodes, "net", [given], [wanted], weights)
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=opsets, ir_version=9), str(path))

    graph, scheme = Graph(path), openvino.int8(HOST).scheme
    chosen = placement.with_carriers(graph, graph.computing, placement.JOINING)
    assert ("larger" in chosen) is carried
    statistics = collect(graph, [row[None] for row in ROWS])
    model = pairs.emit(graph, derive(graph, statistics, "minmax", scheme), chosen, scheme)
    onnx.save(model, str(tmp_path / "q.onnx"))
    (tmp_path / "work").mkdir()
    built = openvino.build(
        _base.BuildInput(
            onnx=tmp_path / "q.onnx", inputs=(), outputs=(), precision="int8", options={},
            host=HOST, work=tmp_path / "work",
        )
    )  # fmt: skip
    assert accept.integer_layers(model) == 2
    assert built.delivered_precision.holds, built.delivered_precision
