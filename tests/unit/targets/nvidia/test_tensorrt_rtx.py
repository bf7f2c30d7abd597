"""NVIDIA's real parser and builder, which need no GPU: what they take, refuse and say."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engineworks import hosts, targets
from engineworks.errors import BuildError
from engineworks.facts.host import Gpu
from engineworks.qdq.pairs import Scheme
from engineworks.targets._base import BuildInput
from tests import builders

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'engineworks[tensorrt-rtx]'")

RTX = targets.load("tensorrt-rtx")
HOST = hosts.probe()
SIGNED = targets.int8_rules("tensorrt-rtx", HOST).scheme


@pytest.fixture
def make(tmp_path):
    """Build a graph with the real builder."""

    def build(path, precision="fp32", **options):
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        request = BuildInput(
            onnx=Path(path), inputs=(), outputs=(), precision=precision, options=options,
            host=HOST, work=work, largest_batch=4,
        )  # fmt: skip
        return RTX.build(request)

    return build


@pytest.fixture(scope="module")
def yolox_int8(yolox_onnx, tmp_path_factory):
    """YOLOX-Nano in integers, calibrated on noise: enough for a builder, not for boxes."""
    noise = builders.samples(2, (416, 416)) * 255
    folder = tmp_path_factory.mktemp("qdq")
    return builders.quantized(yolox_onnx, folder / "yolox.onnx", SIGNED, noise)


@pytest.fixture(scope="module")
def resnet_onnx(tmp_path_factory):
    """The example's trained ResNet-20."""
    import torch

    folder = builders.EXAMPLES / "resnet20_cifar10"
    spec = importlib.util.spec_from_file_location("resnet20_example", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build().eval()
    model.load_state_dict(torch.load(folder / "resnet20_cifar10.pt", weights_only=True))
    path = tmp_path_factory.mktemp("resnet") / "resnet.onnx"
    torch.onnx.export(
        model, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False, input_names=["images"],
        output_names=["logits"], opset_version=17,
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip
    return path


def one_node(path, operator, *, shape=("batch", 4), domain="", **attributes):
    """A graph of one operator on one float input."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(operator, ["x"], ["y"], f"my_{operator}", domain=domain, **attributes)
    graph = helper.make_graph([node], "one", [given], [wanted])
    opsets = [helper.make_opsetid("", 17)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


class TestExamples:
    def test_yolox_at_every_precision(self, make, yolox_onnx, yolox_int8):
        sizes = {}
        given = {"fp32": yolox_onnx, "fp16": yolox_onnx, "bf16": yolox_onnx, "int8": yolox_int8}
        for precision, path in given.items():
            made = make(path, precision)
            truth = made.delivered_precision
            assert (truth.holds, truth.delivered) == (True, precision)
            assert truth.computed_nodes[precision] == sum(truth.computed_nodes.values()) == 113
            assert truth.stored_bytes[precision] > 0.9 * sum(
                size for word, size in truth.stored_bytes.items() if word != "int64"
            )
            assert "the builder reports" in truth.note
            sizes[precision] = truth.stored_bytes[precision]
        assert sizes["fp32"] == pytest.approx(2 * sizes["fp16"], rel=0.01)
        assert sizes["bf16"] == sizes["fp16"]
        assert sizes["fp32"] == pytest.approx(4 * sizes["int8"], rel=0.02)

    def test_resnet_at_every_precision(self, make, resnet_onnx, tmp_path):
        rows = builders.samples(4, (32, 32))
        int8 = builders.quantized(resnet_onnx, tmp_path / "int8.onnx", SIGNED, rows)
        for precision, path in [("fp32", resnet_onnx), ("fp16", resnet_onnx), ("int8", int8)]:
            truth = make(path, precision).delivered_precision
            assert (truth.holds, truth.delivered) == (True, precision), truth


class TestTruth:
    def test_a_graph_that_is_half_already_is_not_fp32(self, make, tiny_onnx, tmp_path):
        from engineworks.targets import _half

        half = _half.convert(tiny_onnx, tmp_path / "half.onnx")
        truth = make(half, "fp32").delivered_precision
        assert not truth.holds
        assert truth.delivered == "fp16"

    def test_layers_left_in_float_are_counted(self, make, tmp_path):
        path = builders.conv_net(tmp_path / "net.onnx")
        from engineworks.calibrate import collect, derive
        from engineworks.qdq import pairs
        from engineworks.qdq.graph import Graph

        graph = Graph(path)
        statistics = collect.collect(graph, [builders.samples(1)], threads=1)
        bounds = derive.derive(graph, statistics, "minmax", SIGNED)
        onnx.save(pairs.emit(graph, bounds, ["left", "deep"], SIGNED), str(path))
        truth = make(path, "int8").delivered_precision
        assert truth.holds
        assert truth.computed_nodes == {"int8": 2, "fp32": 3}
        assert "2 of 5 layers" in truth.note


class TestProfile:
    def test_it_reaches_the_largest_batch_of_the_recipe(self, make, tiny_onnx):
        made = make(tiny_onnx)
        assert made.details["profile"] == {
            "images": ((1, 3, 16, 16), (1, 3, 16, 16), (4, 3, 16, 16))
        }

    def test_options_decide(self, make, tiny_onnx):
        made = make(tiny_onnx, batch=[1, 3, 7])
        assert [shape[0] for shape in made.details["profile"]["images"]] == [1, 3, 7]

    def test_a_graph_without_open_dimensions_needs_none(self, make, tmp_path):
        made = make(one_node(tmp_path / "relu.onnx", "Relu", shape=(1, 4)))
        assert made.details["profile"] == {}

    def test_other_open_dimensions_must_be_bounded(self, make, tmp_path):
        path = one_node(tmp_path / "relu.onnx", "Relu", shape=("batch", "length"))
        with pytest.raises(BuildError, match=r"'x' has open dimensions .*\[-1, -1\]") as caught:
            make(path)
        assert "shapes: {x:" in caught.value.hint
        made = make(path, shapes={"x": [[1, 2], [1, 4], [2, 8]]})
        assert made.details["profile"]["x"] == ((1, 2), (1, 4), (2, 8))

    def test_without_a_profile_the_builders_own_words_are_shown(self, tiny_onnx, tmp_path):
        from engineworks.targets._nvidia import builder, network, settings
        from engineworks.targets._nvidia.api import STRONG, Api
        from engineworks.targets._nvidia.log import BuildLog

        api, said = Api(trt), BuildLog(trt)
        vendor = trt.Builder(said.logger)
        parsed = network.parse(api, vendor, tiny_onnx, STRONG, said)
        config = builder.configure(api, vendor, settings.read({}, 1))
        with pytest.raises(BuildError, match="no optimization profile has been defined"):
            builder.serialize(vendor, parsed, config, said, tmp_path / "plan")
        assert not (tmp_path / "plan").exists()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"batch": [4, 2, 8]}, "does not rise"),
            ({"batch": [0, 1, 8]}, "does not rise"),
            ({"batch": 8}, r"\[min, opt, max\]"),
            ({"shapes": {"pixels": [[1], [1], [1]]}}, "no input 'pixels'"),
            ({"shapes": {"images": [[1, 3], [1, 3, 16, 16], [1]]}}, "one rank"),
            ({"shapes": {"images": [[1, 3, 8, 8]] * 3}}, r"\[1, 3, 8, 8\] does not fit"),
            ({"workspace_mib": 0}, "no number in 1"),
            ({"optimization_level": 9}, r"0\.\.5"),
            ({"tf32": "yes"}, "neither true nor false"),
            ({"gpus": ["9.0"]}, "RTX GPUs"),
            ({"gpus": "8.6"}, "RTX GPUs"),
        ],
    )
    def test_wrong_options_are_refused_by_name(self, make, tiny_onnx, options, says):
        with pytest.raises(BuildError, match=says) as caught:
            make(tiny_onnx, **options)
        assert caught.value.message.startswith(f"options.{next(iter(options))}")


class TestRefusals:
    def test_an_unknown_operator_is_named_with_its_node(self, make, tmp_path):
        path = one_node(tmp_path / "odd.onnx", "Frobnicate", domain="acme.ops")
        with pytest.raises(BuildError, match="Frobnicate 'my_Frobnicate'"):
            make(path)

    def test_what_the_parser_says_is_one_readable_line(self, make, tiny_onnx, tmp_path):
        """ONNX Runtime's usual Q/DQ, whose int32 biases NVIDIA's parser does not take."""
        usual = Scheme(activation="uint8", bias="int32", outputs=True)
        path = builders.quantized(tiny_onnx, tmp_path / "usual.onnx", usual, builders.samples())
        with pytest.raises(BuildError) as caught:
            make(path, "fp32")  # asked for as it is, so that the vendor sees it
        message = caught.value.message
        assert "DequantizeLinear '/conv/Conv_output_0__bias_DequantizeLinear'" in message
        assert "input has type Int32" in message
        assert "\n" not in message
        assert "cudaError" not in message
        assert "_src" not in message

    @pytest.mark.parametrize(
        ("scheme", "says"),
        [
            (Scheme(activation="int8", bias="int32", outputs=False), "int32 bias"),
            (Scheme(activation="uint8", bias="float", outputs=False), "UINT8"),
        ],
    )
    def test_a_wrong_qdq_graph_never_reaches_the_vendor(
        self, make, tiny_onnx, tmp_path, scheme, says, caplog
    ):
        path = builders.quantized(tiny_onnx, tmp_path / "q.onnx", scheme, builders.samples())
        with pytest.raises(BuildError, match=says):
            make(path, "int8")
        assert caplog.records == []

    def test_too_little_workspace_is_the_builders_own_refusal(self, make, yolox_onnx):
        with pytest.raises(BuildError, match="workspace limit") as caught:
            make(yolox_onnx, workspace_mib=1)
        assert "workspace_mib" in caught.value.hint

    def test_a_damaged_file_is_refused(self, make, tmp_path):
        path = tmp_path / "broken.onnx"
        path.write_bytes(b"\0\1\2 no model")
        with pytest.raises(BuildError, match="no outputs"):
            make(path)

    def test_a_gpu_that_cannot_compute_a_layer_is_refused_at_build_time(self, make, tiny_onnx):
        """Turing has no float32 matrix products in TensorRT-RTX."""
        with pytest.raises(BuildError, match=r"Gemm.*Turing"):
            make(tiny_onnx, gpus=["7.5"])


class TestLog:
    def test_phases_are_shown_while_it_builds(self, make, tiny_onnx, caplog):
        with caplog.at_level("INFO"):
            make(tiny_onnx)
        assert any("Building engine" in record.getMessage() for record in caplog.records)

    def test_every_build_has_its_own_log(self, make, tiny_onnx):
        """The vendor keeps the first logger of a process for ever."""
        first, second = (make(tiny_onnx).files["build.log"].read_text() for _ in range(2))
        assert first.count("Total Weights Memory") == second.count("Total Weights Memory") == 1

    def test_what_the_builder_said_stays_with_the_engine(self, make, tiny_onnx):
        made = make(tiny_onnx)
        text = made.files["build.log"].read_text()
        assert "Total Weights Memory" in text
        assert len(text) < 20_000


class TestWhere:
    def gpu(self, capability):
        return Gpu(name="a gpu", compute_capability=capability, memory_mib=1, driver="1")

    def test_only_a_machine_with_an_rtx_gpu_opens_its_engines(self):
        bare = dataclasses.replace(HOST, gpus=())
        assert "RTX GPU" in RTX.cannot_run(bare)
        assert RTX.cannot_run(dataclasses.replace(bare, gpus=(self.gpu("8.9"),))) == ""
        assert "RTX GPU" in RTX.cannot_run(dataclasses.replace(bare, gpus=(self.gpu("9.0"),)))

    def test_more_gpus_make_a_larger_engine(self, make, tiny_onnx):
        one = make(tiny_onnx, "fp16", gpus=["8.9"]).files["engine.plan"].stat().st_size
        two = make(tiny_onnx, "fp16", gpus=["7.5", "8.9"]).files["engine.plan"].stat().st_size
        assert two > one


def test_bfloat16_rounds_the_weights_themselves(tiny_onnx, tmp_path):
    """Not what is left of them in float16, whose range is smaller."""
    from engineworks.export.torch_onnx import signature
    from engineworks.targets import _half

    model = onnx.load(str(tiny_onnx))
    name = next(t.name for t in model.graph.initializer if t.name == "conv.weight")
    for tensor in model.graph.initializer:
        if tensor.name == name:
            large = numpy_helper.to_array(tensor) * np.float32(1e9)
            tensor.CopyFrom(numpy_helper.from_array(large, name))
    onnx.save(model, str(tmp_path / "large.onnx"))
    wide = _half.convert_wide(tmp_path / "large.onnx", tmp_path / "wide.onnx")
    assert signature(wide)[:2] == signature(tiny_onnx)[:2]
    found = {t.name: t for t in onnx.load(wide).graph.initializer}
    assert {t.data_type for t in found.values()} == {TensorProto.BFLOAT16}
    np.testing.assert_allclose(
        numpy_helper.to_array(found[name]).astype(np.float32), large, rtol=2**-8
    )


def test_half_keeps_inputs_outputs_and_answers(tiny_onnx, tmp_path):
    from engineworks.export.torch_onnx import runner, signature
    from engineworks.targets import _half

    half = _half.convert(tiny_onnx, tmp_path / "half.onnx")
    assert signature(half)[:2] == signature(tiny_onnx)[:2]
    x = builders.samples()
    wanted, found = runner(tiny_onnx)(x)["scores"], runner(half)(x)["scores"]
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert not np.array_equal(found, wanted)
    kinds = {numpy_helper.to_array(t).dtype.name for t in onnx.load(half).graph.initializer}
    assert kinds == {"float16"}
