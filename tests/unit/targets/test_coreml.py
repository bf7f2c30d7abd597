"""Core ML packages, built for real and run operator by operator without Core ML."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engineworks import hosts
from engineworks.errors import ArtifactError, BuildError
from engineworks.evaluate import parity
from engineworks.export.torch_onnx import runner, signature
from engineworks.targets._base import BuildInput
from tests import builders

ct = pytest.importorskip("coremltools")

from engineworks.targets import coreml  # noqa: E402
from engineworks.targets._coreml import mil, replay  # noqa: E402

HOST = hosts.probe()
RNG = np.random.default_rng(0)


def values(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def graph(path, nodes, constants, shape=(1, 6, 8, 8), opset=18, output="y"):
    """Write nodes from `x` to `y`; constants by name."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, reads, makes, **given) for kind, reads, makes, given in nodes],
            "case",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape[1:]])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=9,
    )  # fmt: skip
    onnx.save(model, str(path))
    return path


def build(path, folder, precision="fp32", **options):
    inputs, outputs, _ = signature(path)
    folder.mkdir()
    return coreml.build(
        BuildInput(
            onnx=path, inputs=inputs, outputs=outputs, precision=precision, options=options,
            host=HOST, work=folder,
        )
    )  # fmt: skip


def replayed(path, folder, precision="fp32"):
    """What runs a graph's package."""
    made = build(path, folder, precision)
    return made, runner(coreml.replayed(made.files[made.entry], folder / "replay.onnx"))


def one(kind, *constants, shape=(1, 6, 8, 8), opset=18, **given):
    """A case with one operator, whose further inputs are constants (None: left out)."""
    named = {f"c{n}": value for n, value in enumerate(constants) if value is not None}
    names = ["" if value is None else f"c{n}" for n, value in enumerate(constants)]
    return [(kind, ["x", *names], ["y"], given)], named, shape, opset


def ints(*numbers):
    return np.array(numbers, np.int64)


def floats(*numbers):
    return np.array(numbers, np.float32)


def positive(kind, *constants, **given):
    """`one` on values above 0."""
    nodes, named, shape, opset = one(kind, *constants, **given)
    (word, inputs, outputs, attributes) = nodes[0]
    front = [("Abs", ["x"], ["a"], {}), ("Add", ["a", "half"], ["p"], {})]
    return (
        [*front, (word, ["p", *inputs[1:]], outputs, attributes)],
        {**named, "half": floats(0.5)},
        shape,
        opset,
    )


CASES = {
    "conv": one("Conv", values(4, 6, 3, 3), values(4), pads=[1, 0, 2, 1], strides=[2, 1]),
    "conv groups": one("Conv", values(6, 2, 3, 3), group=3, dilations=[2, 1]),
    "conv same": one("Conv", values(4, 6, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": one("Conv", values(4, 6, 2, 2), auto_pad="SAME_LOWER"),
    "conv transpose": one("ConvTranspose", values(6, 2, 3, 3), values(4), group=2, strides=[2, 2],
                          pads=[1, 1, 0, 0]),
    "gemm": one("Gemm", values(5, 7), values(7), shape=(1, 5)),
    "gemm transposed": one("Gemm", values(7, 5), values(7), shape=(1, 5), transB=1),
    "gemm no bias": one("Gemm", values(5, 7), shape=(1, 5)),
    "matmul": one("MatMul", values(8, 5)),
    "batch norm": one("BatchNormalization", values(6), values(6), values(6), np.abs(values(6)) + 1),
    "instance norm": one("InstanceNormalization", values(6), values(6)),
    "layer norm": one("LayerNormalization", values(8), values(8), axis=-1),
    "layer norm wide": one("LayerNormalization", values(8, 8), axis=2),
    **{word: one(word) for word in (
        "Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Floor", "Ceil", "Erf", "Softplus", "Sign", "Sin",
        "Cos", "Neg", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish", "Mish", "Identity",
        "GlobalAveragePool", "GlobalMaxPool", "Softsign", "Atan", "Round",
    )},
    "Gelu": one("Gelu", opset=20),
    "Gelu tanh": one("Gelu", opset=20, approximate="tanh"),
    "Sqrt": positive("Sqrt"), "Log": positive("Log"), "Reciprocal": positive("Reciprocal"),
    "Pow": positive("Pow", floats(1.5)),
    "PRelu": one("PRelu", values(6, 1, 1)),
    "Add": one("Add", values(6, 1, 1)), "Sub": one("Sub", values(1, 6, 8, 8)),
    "Mul": one("Mul", values(8)), "Div": one("Div", values(6, 1, 1)),
    "Max": one("Max", floats(0.2), values(6, 1, 1)), "Min": one("Min", floats(0.2)),
    "Clip": one("Clip", np.float32(-0.5), np.float32(0.7)),
    "Clip below": one("Clip", np.float32(-0.5)), "Clip above": one("Clip", None, np.float32(0.5)),
    "Softmax": one("Softmax", axis=1), "LogSoftmax": one("LogSoftmax", axis=-1),
    "MaxPool": one("MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    "MaxPool ceil": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "AveragePool": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool padded": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                              count_include_pad=1),
    "ReduceMean": one("ReduceMean", ints(2, -1)),
    "ReduceMean attribute": one("ReduceMean", axes=[1], keepdims=0, opset=17),
    "ReduceSum": one("ReduceSum", ints(1), keepdims=0), "ReduceMax": one("ReduceMax", ints(3)),
    "ReduceMin": one("ReduceMin", ints(1)), "ReduceL2": one("ReduceL2", ints(1)),
    "ReduceSum all": one("ReduceSum"),
    "Concat": ([("Concat", ["x", "c", "x"], ["y"], {"axis": 1})], {"c": values(1, 2, 8, 8)},
               (1, 6, 8, 8), 18),
    "Split": ([("Split", ["x", "s"], ["a", "b"], {"axis": 1}), ("Relu", ["b"], ["y"], {})],
              {"s": ints(2, 4)}, (1, 6, 8, 8), 18),
    "Split even": ([("Split", ["x"], ["a", "b", "c"], {"axis": -3, "num_outputs": 3}),
                    ("Sub", ["c", "a"], ["y"], {})], {}, (1, 6, 8, 8), 18),
    "Slice": one("Slice", ints(1, -6), ints(5, 2**62), ints(1, 3), ints(2, 3)),
    "Slice back": one("Slice", ints(-1), ints(-(2**62)), ints(2), ints(-1)),
    "Slice back part": one("Slice", ints(6), ints(1), ints(3), ints(-2)),
    "Reshape": one("Reshape", ints(0, 2, -1, 8)), "Flatten": one("Flatten", axis=2),
    "Transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "Unsqueeze": one("Unsqueeze", ints(1, -1), shape=(1, 6, 8)),
    "Squeeze": one("Squeeze", ints(1), shape=(1, 1, 5, 5)),
    "Expand": one("Expand", ints(1, 3, 8, 8), shape=(1, 1, 8, 1)),
    "Tile": one("Tile", ints(1, 2, 1, 3)),
    "Gather": one("Gather", ints(5, -6, 2), axis=1),
    "Gather one": one("Gather", np.array(-1, np.int64), axis=1),
    "Pad": one("Pad", ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(1.5)),
    "Pad axes": one("Pad", ints(1, 2), None, ints(3)),
    "Pad edge": one("Pad", ints(0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
    "Pad reflect": one("Pad", ints(0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"),
    "DepthToSpace": one("DepthToSpace", blocksize=2, shape=(1, 8, 3, 5)),
    "DepthToSpace crd": one("DepthToSpace", blocksize=2, mode="CRD", shape=(1, 8, 3, 5)),
    "SpaceToDepth": one("SpaceToDepth", blocksize=2, shape=(1, 3, 4, 6)),
    **{f"Resize nearest {place} {rounding} {factor}": one(
        "Resize", None, floats(1, 1, factor, factor), mode="nearest", nearest_mode=rounding,
        coordinate_transformation_mode=place,
    ) for place, rounding in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"),
                              ("half_pixel", "round_prefer_ceil"), ("asymmetric", "ceil"))
      for factor in (2, 1.5, 0.5)},
    **{f"Resize linear {place} {factor}": one(
        "Resize", None, floats(1, 1, factor, factor), mode="linear",
        coordinate_transformation_mode=place,
    ) for place in ("half_pixel", "align_corners", "pytorch_half_pixel") for factor in (2, 1.5)},
    "Resize sizes": one("Resize", None, None, ints(1, 6, 12, 20), mode="linear"),
    "Where": ([("Greater", ["x", "c"], ["b"], {}), ("Where", ["b", "x", "c"], ["y"], {})],
              {"c": values(1, 6, 8, 8)}, (1, 6, 8, 8), 18),
    "Logic": ([("Less", ["x", "c"], ["b"], {}), ("GreaterOrEqual", ["x", "d"], ["e"], {}),
               ("And", ["b", "e"], ["f"], {}), ("Not", ["f"], ["g"], {}),
               ("Cast", ["g"], ["y"], {"to": 1})],
              {"c": floats(0.5), "d": floats(-0.5)}, (1, 6, 8, 8), 18),
    "ArgMax": ([("ArgMax", ["x"], ["i"], {"axis": 1}), ("Cast", ["i"], ["y"], {"to": 1})], {},
               (1, 6, 8, 8), 18),
    "silu": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["s", "x"], ["y"], {})], {},
             (1, 6, 8, 8), 18),
    "shapes worked out beforehand": (
        [("Shape", ["x"], ["s"], {}), ("Gather", ["s", "two"], ["h"], {}),
         ("Mul", ["h", "two"], ["d"], {}), ("Unsqueeze", ["d", "zero"], ["u"], {}),
         ("Concat", ["first", "u", "minus"], ["t"], {"axis": 0}),
         ("Reshape", ["x", "t"], ["y"], {})],
        {"two": np.array(2, np.int64), "zero": ints(0), "first": ints(1), "minus": ints(-1)},
        (1, 6, 8, 8), 18,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_means_the_same_in_the_package(name, tmp_path):
    nodes, constants, shape, opset = CASES[name]
    path = graph(tmp_path / "case.onnx", nodes, constants, shape, opset)
    _, run = replayed(path, tmp_path / "work")
    x = values(*shape)
    (want,), (got,) = runner(path)(x).values(), run(x).values()
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)


def test_every_operator_that_is_known_is_tried_here():
    tried = {kind for nodes, *_ in CASES.values() for kind, *_ in nodes}
    elsewhere = {"QuantizeLinear", "DequantizeLinear"}  # by the precisions below
    alike = {"Dropout", "Equal", "LessOrEqual", "Or", "ReduceProd", "ReduceSumSquare"}
    assert set(mil.OPERATORS) - tried == elsewhere | alike


class TestReplay:
    """Apple's own converter says what MIL means: its packages must replay as PyTorch answers."""

    @pytest.fixture(scope="class")
    def net(self):
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(3, 8, 3, 2, 1)
                self.norm = nn.BatchNorm2d(8)
                self.deep = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
                self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1)
                self.layer = nn.LayerNorm(16)
                self.slope = nn.PReLU(8)
                self.mix, self.head = nn.Linear(16, 16), nn.Linear(8, 5)

            def forward(self, x):
                f = nn.functional
                x = f.silu(self.norm(self.stem(x)))
                y = f.hardswish(self.deep(x)) + f.leaky_relu(x, 0.2)
                y = torch.cat([f.max_pool2d(y, 5, 1, 2), f.avg_pool2d(y, 3, 1, 1)], 1)
                a, b = y.split(8, 1)
                y = f.interpolate(a, scale_factor=2.0) * f.interpolate(
                    b, scale_factor=2.0, mode="bilinear"
                )
                y = y[..., ::2, 1::2] + self.slope(x) - f.gelu(x).clamp(-0.5, 0.5)
                y = f.pixel_shuffle(self.up(y), 2).flatten(2).reshape(1, 2, 64, 16)
                y = self.layer(self.mix(y)).softmax(-1).transpose(2, 3) @ torch.tanh(y)
                y = y.permute(0, 2, 1, 3).unsqueeze(1).squeeze(1)
                y = f.elu(y).mean((1, 3)) + y.amax((1, 3)) * y.exp().sum((1, 3)).sqrt()
                return self.head(torch.cat([y] * 4, 1).relu())

        torch.manual_seed(0)
        net = Net().eval()
        net.norm.running_mean.uniform_(-1, 1)
        net.norm.running_var.uniform_(0.5, 2)
        return net

    @pytest.mark.parametrize("way", ["trace", "export"])
    def test_it_answers_as_pytorch_does(self, net, tmp_path, way):
        import torch

        x = torch.from_numpy(values(1, 3, 16, 16))
        if way == "trace":
            model, given = torch.jit.trace(net, x), {"inputs": [ct.TensorType(shape=x.shape)]}
        else:
            model, given = torch.export.export(net, (x,)).run_decompositions({}), {}
        package = tmp_path / "apple.mlpackage"
        ct.convert(
            model, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32, skip_model_load=True, **given,
        ).save(str(package))  # fmt: skip
        (got,) = runner(replay.write(package, tmp_path / "replay.onnx"))(x.numpy()).values()
        with torch.inference_mode():
            want = net(x).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)

    def test_weights_that_apple_has_packed_are_unpacked(self, net, tmp_path):
        import coremltools.optimize.coreml as optimize
        import torch

        x = torch.from_numpy(values(1, 3, 16, 16))
        model = ct.convert(
            torch.jit.trace(net, x), inputs=[ct.TensorType(shape=x.shape)],
            convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )  # fmt: skip
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
        package = tmp_path / "packed.mlpackage"
        optimize.linear_quantize_weights(
            model, optimize.OptimizationConfig(global_config=config)
        ).save(str(package))
        (got,) = runner(replay.write(package, tmp_path / "replay.onnx"))(x.numpy()).values()
        with torch.inference_mode():
            want = net(x).numpy()
        assert 15 < parity.difference(got, want)[2] < 60  # 8 bits, and nothing worse


class TestPrecision:
    @pytest.fixture(scope="class")
    def net(self, tmp_path_factory):
        return builders.conv_net(tmp_path_factory.mktemp("net") / "net.onnx")

    def rounded(self, net, tmp_path, precision):
        scheme = coreml.int8(HOST).scheme
        if precision == "w8a16":
            scheme = dataclasses.replace(scheme, activation="float")
        rows = values(4, 3, 16, 16)
        return builders.quantized(net, tmp_path / "integers.onnx", scheme, rows)

    def test_fp16_rounds_every_value_and_not_only_the_weights(self, tmp_path):
        nodes = [("Exp", ["x"], ["e"], {}), ("Sqrt", ["e"], ["y"], {})]
        path = graph(tmp_path / "case.onnx", nodes, {}, (1, 3, 4, 4))
        x = np.full((1, 3, 4, 4), 12, np.float32)
        _, run = replayed(path, tmp_path / "wide")
        np.testing.assert_allclose(run(x)["y"], np.exp(6), rtol=1e-4)
        _, run = replayed(path, tmp_path / "narrow", "fp16")
        assert np.isinf(run(x)["y"]).all()  # exp(12) is beyond fp16, as it would be on a phone

    @pytest.mark.parametrize(("precision", "snr_db"), [("fp16", 50), ("w8a16", 30), ("int8", 20)])
    def test_what_is_asked_is_what_the_package_holds(self, net, tmp_path, precision, snr_db):
        path = net if precision == "fp16" else self.rounded(net, tmp_path, precision)
        made, run = replayed(path, tmp_path / "work", precision)
        assert made.delivered_precision.holds
        assert made.delivered_precision.delivered == precision
        x = values(1, 3, 16, 16)
        assert parity.difference(run(x)["scores"], runner(net)(x)["scores"])[2] > snr_db
        words = {operation.op_type for operation in self.operations(made)}
        assert ("constexpr_affine_dequantize" in words) == (precision != "fp16")
        assert ("quantize" in words) == (precision == "int8")
        assert (made.delivered_precision.stored_bytes.get("int8", 0) > 0) == (precision != "fp16")

    def operations(self, made):
        return replay.load(made.files[made.entry].parent).functions["main"].operations

    def test_a_float_graph_is_never_passed_off_as_packed(self, net, tmp_path):
        truth = build(net, tmp_path / "work", "w8a16").delivered_precision
        assert not truth.holds
        assert truth.delivered == "w8a16 in 0 of 0 layers"

    def test_an_integer_graph_is_not_passed_off_as_fp16(self, net, tmp_path):
        path = self.rounded(net, tmp_path, "w8a16")
        assert not build(path, tmp_path / "work", "fp16").delivered_precision.holds

    def test_weights_alone_make_a_package_smaller(self, tmp_path):
        path = builders.export_yolox(tmp_path / "yolox.onnx")
        scheme = dataclasses.replace(coreml.int8(HOST).scheme, activation="float")
        from engineworks.qdq import pairs
        from engineworks.qdq.graph import Graph
        from engineworks.qdq.ranges import Ranges

        net = Graph(path)
        nothing = Ranges(tensors={}, channels={})
        onnx.save(pairs.emit(net, nothing, net.computing, scheme), str(tmp_path / "packed.onnx"))
        sizes = {}
        for precision, source in (("fp16", path), ("w8a16", tmp_path / "packed.onnx")):
            made = build(source, tmp_path / precision, precision)
            assert made.delivered_precision.holds, made.delivered_precision
            sizes[precision] = sum(file.stat().st_size for file in made.files.values())
        assert sizes["w8a16"] < 0.62 * sizes["fp16"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("case", "words"),
        [
            (one("Resize", None, floats(1, 1, 2, 2), mode="cubic"), "cubic"),
            (one("Gemm", values(5, 7), shape=(1, 5), alpha=2.0), "alpha"),
            (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), "dilations"),
            (one("Cast", to=TensorProto.UINT8), "type 2"),
            (one("Pad", ints(0, 0, -1, 0, 0, 0, 0, 0)), "negative"),
        ],
    )
    def test_a_form_without_a_counterpart_names_the_node(self, case, words, tmp_path):
        nodes, constants, shape, opset = case
        path = graph(tmp_path / "case.onnx", nodes, constants, shape, opset)
        with pytest.raises(BuildError, match=words) as caught:
            build(path, tmp_path / "work")
        assert nodes[0][0] in caught.value.message
        assert "'y'" in caught.value.message

    def test_an_unknown_operator_is_lacking(self, tmp_path):
        path = graph(tmp_path / "case.onnx", [("TopK", ["x", "k"], ["y", "i"], {})], {"k": ints(2)})
        assert coreml.unsupported_operators(path) == ("TopK",)
        with pytest.raises(BuildError, match="TopK"):
            build(path, tmp_path / "work")

    def test_a_shape_that_depends_on_the_image_is_refused(self, tmp_path):
        nodes = [
            ("NonZero", ["x"], ["n"], {}),
            ("Cast", ["n"], ["y"], {"to": 1}),
        ]
        path = graph(tmp_path / "case.onnx", nodes, {})
        with pytest.raises(BuildError, match="depends on the image's values"):
            build(path, tmp_path / "work")

    def test_an_old_opset_is_refused(self, tmp_path):
        path = graph(tmp_path / "case.onnx", [("Relu", ["x"], ["y"], {})], {}, opset=12)
        with pytest.raises(BuildError, match="opset 12"):
            build(path, tmp_path / "work")

    @pytest.mark.parametrize("units", ["ne", 3, None])
    def test_an_unknown_compute_unit_is_refused(self, units, tiny_onnx, tmp_path):
        with pytest.raises(BuildError, match="compute_units") as caught:
            build(tiny_onnx, tmp_path / "work", compute_units=units)
        assert "cpu_and_ne" in caught.value.hint


def test_names_that_core_ml_does_not_allow_are_changed_and_remembered(tmp_path):
    path = graph(tmp_path / "case.onnx", [("Relu", ["x"], ["out/0:y"], {})], {}, output="out/0:y")
    made = build(path, tmp_path / "work")
    assert made.details["features"] == {"x": "x", "out/0:y": "out_0_y"}
    program = replay.load(made.files[made.entry].parent).functions["main"]
    assert [variable.name for variable in program.outputs] == ["out_0_y"]
    assert mil.feature_name("0") == "_0"


def test_names_that_would_become_one_are_refused(tmp_path):
    path = graph(tmp_path / "case.onnx", [("Relu", ["x"], ["a.b"], {})], {}, output="a.b")
    inputs, outputs, _ = signature(path)
    twice = (*outputs, dataclasses.replace(outputs[0], name="a/b"))
    with pytest.raises(BuildError, match="one name in Core ML"):
        coreml.build(
            BuildInput(
                onnx=path, inputs=inputs, outputs=twice, precision="fp32", options={}, host=HOST,
                work=tmp_path,
            )
        )  # fmt: skip


def test_packed_weights_that_are_moved_first_are_unpacked(tmp_path):
    """As some quantizers write: the weight is dequantized, then transposed or reshaped."""
    weight = np.arange(-20, 20, dtype=np.int8).reshape(5, 8)
    nodes = [
        ("DequantizeLinear", ["w", "s", "z"], ["d"], {"axis": 0}),
        ("Transpose", ["d"], ["t"], {"perm": [1, 0]}),
        ("MatMul", ["x", "t"], ["y"], {}),
    ]
    constants = {"w": weight, "s": floats(0.1, 0.2, 0.3, 0.4, 0.5), "z": np.zeros(5, np.int8)}
    path = graph(tmp_path / "case.onnx", nodes, constants)
    _, run = replayed(path, tmp_path / "work")
    x = values(1, 6, 8, 8)
    np.testing.assert_allclose(run(x)["y"], runner(path)(x)["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("system", "runs"),
    [("Darwin 23.1.0", True), ("Darwin 25.0", True), ("Darwin 22.6", False), ("Linux 6.8", False)],
)
def test_only_a_recent_mac_opens_packages(system, runs):
    card = dataclasses.replace(HOST, os=system)
    assert (coreml.cannot_run(card) == "") == runs


class TestSession:
    """Written by Apple's documentation; no Mac has run it yet."""

    @pytest.fixture
    def engine(self, tiny_onnx, tmp_path):
        from engineworks.store import LocalStore

        made = build(tiny_onnx, tmp_path / "work", "fp16", compute_units="cpu_and_ne")
        inputs, outputs, _ = signature(tiny_onnx)
        return LocalStore(tmp_path / "store").put(
            made.files, kind="engine", name="tiny", entry=made.entry, inputs=inputs,
            outputs=outputs, target="coreml", precision="fp16", requires=made.requires,
            details=made.details, provenance=builders.MADE_HERE,
        )  # fmt: skip

    def test_elsewhere_it_says_where_it_opens(self, engine):
        from engineworks.runtime.session import open_engine

        with pytest.raises(ArtifactError, match="opens on macOS"):
            open_engine(engine.uri)

    def test_a_batch_is_a_list_of_inputs(self, engine, monkeypatch):
        from engineworks.runtime.session import open_engine

        opened = []

        class MLModel:
            def __init__(self, path, compute_units):
                opened.append((path, compute_units))

            def predict(self, data):
                assert all(list(item) == ["images"] for item in data)
                assert all(item["images"].shape == (1, 3, 16, 16) for item in data)
                return [{"scores": item["images"].mean((2, 3)) @ np.ones((3, 5))} for item in data]

        real = inspect.signature(ct.models.MLModel.predict).parameters
        assert list(real)[:2] == ["self", "data"]
        assert {"model", "compute_units"} <= set(inspect.signature(ct.models.MLModel).parameters)
        monkeypatch.setattr("engineworks.runtime.engines.coreml.platform.system", lambda: "Darwin")
        monkeypatch.setattr(ct.models, "MLModel", MLModel)
        x = values(3, 3, 16, 16)
        with open_engine(engine.uri) as session:
            answers = session.infer({"images": x})["scores"]
        assert opened[0][0].endswith("model.mlpackage")
        assert opened[0][1] == ct.ComputeUnit.CPU_AND_NE
        assert answers.dtype == np.float32
        np.testing.assert_allclose(
            answers, x.mean((2, 3)).sum(1, keepdims=True).repeat(5, 1), rtol=1e-5
        )
