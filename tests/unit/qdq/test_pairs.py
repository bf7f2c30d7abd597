"""Q/DQ graphs are legal, say what was asked, and answer like the float graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engineworks.calibrate.collect import collect
from engineworks.calibrate.derive import derive
from engineworks.evaluate import parity
from engineworks.qdq import accept, pairs
from engineworks.qdq.graph import Graph
from engineworks.qdq.pairs import Scheme, emit, quantize_weight, step
from engineworks.qdq.ranges import Ranges
from tests.builders import conv_net, samples

SCHEMES = {
    "uint8, outputs": Scheme(activation="uint8", bias="int32", outputs=True),
    "uint8, 7 bits": Scheme(activation="uint8", bias="int32", outputs=True, weight_bits=7),
    "uint8, inputs": Scheme(activation="uint8", bias="float", outputs=False),
    "int8, inputs": Scheme(activation="int8", bias="float", outputs=False),
    "either, passing": Scheme(
        activation="either", bias="float", outputs=False, passing=True, depthwise_channels=True
    ),
}
EVERY = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
ROWS = samples(4)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(conv_net(tmp_path_factory.mktemp("qdq") / "net.onnx"))


@pytest.fixture(scope="module")
def statistics(graph):
    return collect(graph, [row[None] for row in ROWS])


def ranges(graph, statistics, scheme, method="minmax"):
    return derive(graph, statistics, method, scheme)


def answers(model, name="scores", feed=ROWS):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run([name], {session.get_inputs()[0].name: feed})[0]


def snr(model, graph, **feeds):
    return parity.difference(answers(model, **feeds), answers(graph.model, **feeds))[2]


def constants(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def node_of(model, output):
    return next(node for node in model.graph.node if output in node.output)


@EVERY
class TestEmit:
    @pytest.mark.parametrize("which", ["computing", "everything", "one", "none"])
    def test_it_is_legal_and_keeps_the_models_face(self, graph, statistics, scheme, which):
        chosen = {
            "computing": graph.computing,
            "everything": (*graph.computing, *graph.between),
            "one": ("deep",),
            "none": (),
        }[which]
        model = emit(graph, ranges(graph, statistics, scheme), chosen, scheme)
        onnx.checker.check_model(model, full_check=True)
        assert [value.name for value in model.graph.input] == ["images"]
        assert [value.name for value in model.graph.output] == ["scores"]
        assert answers(model).shape == (4, 5)
        wanted = sum(node in chosen for node in graph.computing)
        assert accept.integer_layers(model) == wanted
        assert snr(model, graph) > (15 if wanted else 190)

    def test_integers_of_all_arithmetic_stay_near_the_float_answers(
        self, graph, statistics, scheme
    ):
        model = emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
        assert snr(model, graph) > 20

    def test_nodes_that_were_not_chosen_stay_as_they_are(self, graph, statistics, scheme):
        model = emit(graph, ranges(graph, statistics, scheme), ("left",), scheme)
        assert node_of(model, "deep") == graph.nodes["deep"]
        assert node_of(model, "scores") == graph.nodes["scores"]
        stem = node_of(model, "stem")
        assert list(stem.input) == ["images", "stem_w", "stem_b"]
        np.testing.assert_array_equal(constants(model)["stem_w"], graph.constant("stem_w"))
        assert "left_w" not in constants(model)  # nothing reads the float weights any more

    def test_weights_have_a_scale_for_every_output_channel(self, graph, statistics, scheme):
        model = emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
        values = constants(model)
        limit = 2 ** (scheme.weight_bits - 1) - 1
        for name, channels, axis in (("stem", 8, 0), ("deep", 16, 0), ("mixed", 16, 1),
                                     ("scores", 5, 0)):  # fmt: skip
            integers = values[f"{name}__weight_q"]
            scales = values[f"{name}__weight_scale"]
            assert (integers.dtype, scales.shape) == (np.int8, (channels,)), name
            assert np.abs(integers.astype(int)).max() == limit
            assert not values[f"{name}__weight_zero"].any()
            weight = graph.constant(f"{name}_w")
            shape = [-1 if n == axis else 1 for n in range(weight.ndim)]
            wide = scales.reshape(shape)
            assert (np.abs(integers * wide - weight) <= wide / 2 * 1.001).all()
            dequantize = node_of(model, f"{name}__weight_dq")
            assert [a.i for a in dequantize.attribute if a.name == "axis"] == [axis]

    def test_biases_are_32_bits_in_the_product_of_both_scales_or_left_alone(
        self, graph, statistics, scheme
    ):
        model = emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
        values = constants(model)
        if scheme.bias == "float":
            np.testing.assert_array_equal(values["stem_b"], graph.constant("stem_b"))
            assert not [name for name in values if "__bias" in name]
            return
        for name in ("stem", "scores"):
            whole, scales = values[f"{name}__bias_q"], values[f"{name}__bias_scale"]
            assert whole.dtype == np.int32
            feeds = node_of(model, node_of(model, name + "__float").input[0])
            np.testing.assert_allclose(
                scales, values[feeds.input[1]] * values[f"{name}__weight_scale"], rtol=1e-6
            )
            assert (np.abs(whole * scales - graph.constant(f"{name}_b")) <= scales).all()

    def test_one_tensor_has_one_pair_for_all_its_readers(self, graph, statistics, scheme):
        chosen = (*graph.computing, *graph.between)
        model = emit(graph, ranges(graph, statistics, scheme), chosen, scheme)
        quantized = [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
        assert len(quantized) == len(set(quantized))
        names = [output for node in model.graph.node for output in node.output]
        assert len(names) == len(set(names))

    def test_what_moves_values_keeps_their_scale(self, graph, statistics, scheme):
        chosen = (*graph.computing, *graph.between)
        bounds = ranges(graph, statistics, scheme)
        model = emit(graph, bounds, chosen, scheme)
        values = constants(model)
        scales = {
            name.split("__")[0]: float(value)
            for name, value in values.items()
            if name.endswith("__qdq_scale")
        }
        if scheme.passing:  # nothing is quantized behind them at all
            assert not {"pool", "flat"} & set(scales)
            return
        assert scales["pool"] == pytest.approx(scales["sum"])
        assert scales["flat"] == pytest.approx(scales["mean"])

    def test_a_step_of_a_whole_tensor_is_a_scalar(self, graph, statistics, scheme):
        """A row of one value would mean one scale per channel."""
        chosen = (*graph.computing, *graph.between)
        model = emit(graph, ranges(graph, statistics, scheme), chosen, scheme)
        steps = {k: v.shape for k, v in constants(model).items() if "__qdq_" in k}
        assert set(steps.values()) == {()}

    def test_the_batch_stays_open(self, graph, statistics, scheme):
        model = emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
        assert answers(model, feed=ROWS[:1]).shape == (1, 5)
        assert answers(model, feed=np.repeat(ROWS, 3, 0)).shape == (12, 5)

    def test_the_float_graph_is_not_touched(self, graph, statistics, scheme):
        before = graph.model.SerializeToString()
        emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
        assert graph.model.SerializeToString() == before


def small(tmp_path, nodes, weights, shape=("b", 4), output="y", answer=("b", 3)):
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    wanted = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, answer)
    tensors = [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = onnx.helper.make_graph(nodes, "small", [given], [wanted], tensors)
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "small.onnx"
    onnx.save(model, str(path))
    return Graph(path)


RNG = np.random.default_rng(2)
FEED = RNG.standard_normal((6, 4)).astype(np.float32)
PRODUCTS = {
    "MatMul": ({}, {"w": RNG.standard_normal((4, 3))}, 1),
    "Gemm": ({}, {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3)}, 1),
    "Gemm transB": (
        {"transB": 1}, {"w": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(3)}, 0,
    ),
    "Gemm without bias": ({"transB": 1}, {"w": RNG.standard_normal((3, 4))}, 0),
    "Gemm with a bias for all": (
        {}, {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(1)}, 1,
    ),
    "Gemm with a row as bias": (
        {}, {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal((1, 3))}, 1,
    ),
    "Gemm with alpha and beta": (
        {"alpha": 0.5, "beta": 2.0},
        {"w": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3)}, 1,
    ),
}  # fmt: skip


@EVERY
@pytest.mark.parametrize("form", PRODUCTS)
def test_every_form_of_a_product_is_written_right(tmp_path, scheme, form):
    attributes, weights, axis = PRODUCTS[form]
    node = onnx.helper.make_node(form.split()[0], ["x", *weights], ["y"], **attributes)
    graph = small(tmp_path, [node], weights)
    statistics = collect(graph, [row[None] for row in FEED])
    model = emit(graph, ranges(graph, statistics, scheme), ("y",), scheme)
    onnx.checker.check_model(model, full_check=True)
    assert accept.integer_layers(model) == 1
    assert pairs.channel_axis(graph, "y") == axis
    assert snr(model, graph, name="y", feed=FEED) > 30


@EVERY
def test_two_layers_may_share_weights(tmp_path, scheme):
    w = RNG.standard_normal((4, 4))
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["one"]),
        onnx.helper.make_node("Relu", ["one"], ["middle"]),
        onnx.helper.make_node("MatMul", ["middle", "w"], ["y"]),
    ]
    graph = small(tmp_path, nodes, {"w": w}, answer=("b", 4))
    statistics = collect(graph, [row[None] for row in FEED])
    bounds = ranges(graph, statistics, scheme)
    for chosen in (("one", "y"), ("one",), ("y",)):
        model = emit(graph, bounds, chosen, scheme)
        onnx.checker.check_model(model, full_check=True)
        assert accept.integer_layers(model) == len(chosen)
        assert ("w" in constants(model)) is (len(chosen) == 1)
        assert snr(model, graph, name="y", feed=FEED) > 25


@EVERY
def test_an_output_that_is_read_inside_too_keeps_its_name(tmp_path, scheme):
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
        onnx.helper.make_node("MatMul", ["y", "v"], ["unused"]),
    ]
    weights = {"w": RNG.standard_normal((4, 3)), "v": RNG.standard_normal((3, 3))}
    graph = small(tmp_path, nodes, weights)
    statistics = collect(graph, [row[None] for row in FEED])
    model = emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["y"]
    assert snr(model, graph, name="y", feed=FEED) > 25


@EVERY
def test_every_output_of_a_split_can_be_read_as_integers(tmp_path, scheme):
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["whole"]),
        onnx.helper.make_node("Split", ["whole"], ["left", "right"], axis=1),
        onnx.helper.make_node("MatMul", ["right", "v"], ["product"]),
        onnx.helper.make_node("Concat", ["left", "product"], ["y"], axis=1),
    ]
    weights = {"w": RNG.standard_normal((4, 4)), "v": RNG.standard_normal((2, 2))}
    graph = small(tmp_path, nodes, weights, answer=("b", 4))
    statistics = collect(graph, [row[None] for row in FEED])
    bounds = ranges(graph, statistics, scheme)
    for chosen in (graph.computing, (*graph.computing, *graph.between)):
        model = emit(graph, bounds, chosen, scheme)
        onnx.checker.check_model(model, full_check=True)
        assert snr(model, graph, name="y", feed=FEED) > 25
    assert accept.integer_layers(emit(graph, bounds, graph.computing, scheme)) == 2


@EVERY
def test_a_constant_that_is_moved_into_a_layer_is_known(tmp_path, scheme):
    """The class token of a transformer: a parameter, expanded and joined to what was computed."""
    shape = onnx.numpy_helper.from_array(np.array([6, 4]), "shape")
    nodes = [
        onnx.helper.make_node("Constant", [], ["like"], value=shape),
        onnx.helper.make_node("Expand", ["token", "like"], ["tokens"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["made"]),
        onnx.helper.make_node("Concat", ["tokens", "made"], ["joined"], axis=1),
        onnx.helper.make_node("MatMul", ["joined", "v"], ["y"]),
    ]
    weights = {
        "token": RNG.standard_normal((1, 4)), "w": RNG.standard_normal((4, 4)),
        "v": RNG.standard_normal((8, 3)),
    }  # fmt: skip
    graph = small(tmp_path, nodes, weights, shape=(6, 4), answer=(6, 3))
    statistics = collect(graph, [FEED, -FEED])
    bounds = ranges(graph, statistics, scheme)
    model = emit(graph, bounds, (*graph.computing, *graph.between), scheme)
    onnx.checker.check_model(model, full_check=True)
    assert snr(model, graph, name="y", feed=FEED) > 20


@pytest.mark.parametrize("which", ["all", "one"])
def test_weights_alone_become_integers_and_no_range_is_asked_for(graph, which):
    chosen = graph.computing if which == "all" else graph.computing[:1]
    scheme = Scheme(activation="float", bias="float", outputs=False)
    model = emit(graph, Ranges(tensors={}, channels={}), chosen, scheme)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == 0
    assert accept.packed_weights(model) == len(chosen)
    assert accept.integer_layers(model) == 0
    assert accept.refusals(model, scheme) == ()
    assert snr(model, graph) > 30


@EVERY
def test_dead_channels_with_a_bias_stay_exact(tmp_path, scheme):
    """Weights of almost 0 make scales so small that the bias would not fit into 32 bits."""
    w = RNG.standard_normal((4, 3)) * np.array([1.0, 1e-12, 0.0])
    b = np.array([0.5, 7.0, -3.0])
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    graph = small(tmp_path, [node], {"w": w, "b": b})
    statistics = collect(graph, [row[None] for row in FEED])
    model = emit(graph, ranges(graph, statistics, scheme), ("y",), scheme)
    got = answers(model, "y", FEED)
    np.testing.assert_allclose(got, answers(graph.model, "y", FEED), atol=0.1)


def depthwise_net(tmp_path, readers=("deep",)):
    """x (b, 4, 8, 8) -> relu -> depthwise `deep` (and, when asked, the pointwise `other`) -> y."""
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["act"]),
        onnx.helper.make_node("Conv", ["act", "w"], ["deep"], group=4, pads=[1] * 4),
        onnx.helper.make_node("Conv", ["act", "v"], ["other"]),
        onnx.helper.make_node(
            "Add", ["deep", "other" if "other" in readers else "deep"], ["y"]
        ),
    ]  # fmt: skip
    weights = {"w": RNG.standard_normal((4, 1, 3, 3)), "v": RNG.standard_normal((4, 4, 1, 1))}
    if "other" not in readers:
        del nodes[2], weights["v"]
    return small(tmp_path, nodes, weights, ("b", 4, 8, 8), answer=("b", 4, 8, 8))


#: Channel 0 has values a thousand times those of channel 3.
WIDTHS = np.array([100.0, 10, 1, 0.1]).reshape(4, 1, 1)
UNEVEN = (RNG.standard_normal((3, 4, 8, 8)) * WIDTHS).astype(np.float32)


class TestDepthwise:
    def test_channels_of_their_own_keep_small_ones_exact(self, tmp_path):
        graph = depthwise_net(tmp_path)
        statistics = collect(graph, [row[None] for row in UNEVEN])
        found = {}
        for name in ("either, passing", "uint8, inputs"):
            scheme = SCHEMES[name]
            model = emit(graph, ranges(graph, statistics, scheme), ("deep",), scheme)
            onnx.checker.check_model(model, full_check=True)
            got, wanted = (answers(m, "y", UNEVEN)[:, 3] for m in (model, graph.model))
            found[name] = parity.difference(got, wanted)[2]
        assert found["either, passing"] > 30  # the smallest channel is said as well as the widest
        assert found["uint8, inputs"] < 5  # with one scale for all it drowns

    def test_one_that_never_is_negative_has_all_levels(self, tmp_path):
        graph = depthwise_net(tmp_path)
        statistics = collect(graph, [row[None] for row in UNEVEN])
        scheme = SCHEMES["either, passing"]
        values = constants(
            emit(graph, ranges(graph, statistics, scheme), ("deep",), scheme)
        )  # fmt: skip
        assert values["act__int__qdq_zero"].dtype == np.uint8
        highest = np.maximum(UNEVEN, 0).max(axis=(0, 2, 3))
        np.testing.assert_allclose(values["act__int__qdq_scale"], highest / 255, rtol=1e-5)

    def test_with_another_reader_all_share_one_pair(self, tmp_path):
        graph = depthwise_net(tmp_path, ("deep", "other"))
        statistics = collect(graph, [row[None] for row in UNEVEN])
        scheme = SCHEMES["either, passing"]
        bounds = ranges(graph, statistics, scheme)
        shared = constants(emit(graph, bounds, ("deep", "other"), scheme))
        assert shared["act__int__qdq_scale"].shape == ()
        alone = constants(emit(graph, bounds, ("deep",), scheme))
        assert alone["act__int__qdq_scale"].shape == (4,)


class TestJoining:
    @pytest.fixture
    def joined(self, tmp_path):
        nodes = [
            onnx.helper.make_node("MatMul", ["x", "w"], ["small"]),
            onnx.helper.make_node("MatMul", ["x", "big"], ["large"]),
            onnx.helper.make_node("Concat", ["small", "large"], ["both"], axis=1),
            onnx.helper.make_node("MatMul", ["both", "v"], ["y"]),
        ]
        weights = {
            "w": RNG.standard_normal((4, 4)), "big": RNG.standard_normal((4, 4)) * 5,
            "v": RNG.standard_normal((8, 3)),
        }  # fmt: skip
        return small(tmp_path, nodes, weights)

    @EVERY
    def test_what_is_joined_has_one_scale_so_that_joining_is_copying(self, joined, scheme):
        statistics = collect(joined, [row[None] for row in FEED])
        bounds = ranges(joined, statistics, scheme)
        values = constants(emit(joined, bounds, (*joined.computing, "both"), scheme))
        parts = {f"{name}{form}__qdq_scale" for name in ("small", "large", "both")
                 for form in ("", "__int")} & set(values)  # fmt: skip
        assert len(parts) == (2 if scheme.passing else 3)
        assert len({float(values[name]) for name in parts}) == 1
        if not scheme.outputs:
            return
        apart = constants(emit(joined, bounds, joined.computing, scheme))
        assert float(apart["small__qdq_scale"]) < float(apart["large__qdq_scale"])

    def test_integers_that_pass_are_not_quantized_again(self, joined):
        statistics = collect(joined, [row[None] for row in FEED])
        for name, wanted in (("either, passing", 0), ("uint8, inputs", 1)):
            scheme = SCHEMES[name]
            chosen = (*joined.computing, "both")
            model = emit(joined, ranges(joined, statistics, scheme), chosen, scheme)
            behind = [n for n in model.graph.node
                      if n.op_type == "QuantizeLinear" and n.input[0] == "both"]  # fmt: skip
            assert len(behind) == wanted, name


class TestStep:
    def test_an_unsigned_step_says_0_exactly_and_reaches_both_ends(self):
        for bounds, zero in (((-1.0, 1.55), 100), ((0.0, 2.55), 0), ((-2.55, 0.0), 255)):
            found = step(*bounds, SCHEMES["uint8, outputs"])
            assert float(found.scale) == pytest.approx(0.01)
            assert (int(found.zero), found.zero.dtype) == (zero, np.uint8)

    def test_a_signed_step_lies_around_0(self):
        found = step(-1.0, 0.5, SCHEMES["int8, inputs"])
        assert (float(found.scale), int(found.zero)) == (1 / 127, 0)
        assert found.zero.dtype == np.int8

    def test_without_zero_points_only_what_is_negative_is_signed(self):
        scheme = SCHEMES["either, passing"]
        assert step(-1.0, 0.5, scheme).zero.dtype == np.int8
        found = step(np.zeros(2), np.array([2.55, 5.1]), scheme)
        assert found.zero.dtype == np.uint8
        np.testing.assert_allclose(found.scale, [0.01, 0.02])

    @given(low=st.floats(-1e6, 0), high=st.floats(0, 1e6))
    def test_whatever_is_inside_is_off_by_at_most_one_step(self, low, high):
        for scheme in SCHEMES.values():
            found = step(low, high, scheme)
            limits = (0, 255) if found.zero.dtype == np.uint8 else (-128, 127)
            for value in (low, 0.0, high):
                whole = np.clip(np.round(value / found.scale) + found.zero, *limits)
                assert abs((whole - found.zero) * found.scale - value) <= found.scale * 1.001


class TestWeights:
    @given(
        weight=arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)),
        axis=st.sampled_from([0, 1, None]),
        bits=st.sampled_from([7, 8]),
    )
    @settings(max_examples=80)
    def test_are_inside_their_bits_and_near_the_real_ones(self, weight, axis, bits):
        integers, scales = quantize_weight(weight, axis, bits)
        limit = 2 ** (bits - 1) - 1
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() <= limit
        assert scales.shape == (() if axis is None else (weight.shape[axis],))
        assert (scales > 0).all()
        wide = scales if axis is None else np.expand_dims(scales, 1 - axis)
        tiny = np.abs(weight).max() * 1e-6 + 1e-38
        assert (np.abs(integers * wide.astype(np.float64) - weight) <= wide * 0.501 + tiny).all()

    def test_of_7_bits_stay_within_63(self, graph, statistics):
        scheme = SCHEMES["uint8, 7 bits"]
        model = emit(graph, ranges(graph, statistics, scheme), graph.computing, scheme)
        weights = [v for k, v in constants(model).items() if k.endswith("__weight_q")]
        assert len(weights) == 5
        assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 63
