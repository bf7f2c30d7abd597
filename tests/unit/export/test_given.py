"""An ONNX file is settled once, on entry, and answers as it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engineworks.errors import ExportError, ModelError
from engineworks.export import given
from engineworks.export.source import open_source
from engineworks.export.torch_onnx import export, runner, signature
from engineworks.specs import ExportSpec
from engineworks.store import LocalStore
from tests.builders import pinned, put_onnx, samples

X = samples(4)
RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
B = RNG.normal(size=(4,)).astype(np.float32)


def save(folder, nodes, *, opset=17, batch="batch", outputs=None, constants=(), functions=(),
         imports=()):  # fmt: skip
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 16, 16])
    outputs = outputs or [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 4])]
    graph = helper.make_graph(
        nodes, "g", [image], outputs, [numpy_helper.from_array(a, n) for n, a in constants]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), *imports], ir_version=8,
        functions=list(functions),
    )  # fmt: skip
    path = Path(folder, "m.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def pooled(shape=(-1, 4)):
    """Conv, global pool, reshape: written by hand, so that its answer is known."""
    return [
        helper.make_node("Conv", ["images", "w", "b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Reshape", ["p", "s"], ["out"]),
    ], [("w", W), ("b", B), ("s", np.array(shape, np.int64))]


def by_hand(x):
    """The same network by numpy: the mean of a valid convolution."""
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3)).mean((2, 3))
    return np.einsum("ncij,ocij->no", patches, W) + B


def kept(path, **spec):
    model = pinned(path.parent, path.name)
    source = open_source(model, X[:1])
    (path.parent / "out").mkdir()
    return export(source, model, ExportSpec(**spec), X, source.infer(X), path.parent / "out")


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_opset_is_raised_and_answers_the_same(opset, tmp_path):
    nodes, constants = pooled()
    found = kept(save(tmp_path, nodes, opset=opset, constants=constants))
    assert found.chosen == f"as given, opset {opset} raised to 13"
    assert signature(found.path)[2] == 13
    np.testing.assert_allclose(runner(found.path)(X)["out"], by_hand(X), atol=1e-5)


def test_an_opset_that_is_new_enough_stays(tmp_path):
    nodes, constants = pooled()
    found = kept(save(tmp_path, nodes, opset=13, constants=constants))
    assert (found.chosen, signature(found.path)[2]) == ("as given", 13)


def test_an_opset_that_cannot_be_raised_stays(tmp_path):
    """Squeeze's axes became an input at 13; this domain's operator nobody can convert."""
    nodes, constants = pooled()
    nodes[2] = helper.make_node("Reshape", ["p", "s"], ["r"])
    nodes.append(helper.make_node("FusedMatMul", ["r", "m"], ["out"], domain="com.microsoft"))
    constants.append(("m", np.eye(4, dtype=np.float32)))
    path = save(tmp_path, nodes, opset=11, constants=constants,
                imports=[helper.make_opsetid("com.microsoft", 1)])  # fmt: skip
    found = kept(path)
    np.testing.assert_allclose(runner(found.path)(X)["out"], by_hand(X), atol=1e-5)


def test_a_dimension_of_minus_1_is_open(tmp_path):
    nodes, constants = pooled()
    found = kept(save(tmp_path, nodes, batch=-1, constants=constants))
    inputs, outputs, _ = signature(found.path)
    assert inputs[0].shape == ("batch", 3, 16, 16)
    assert outputs[0].shape == ("batch", 4)
    np.testing.assert_allclose(runner(found.path)(X)["out"], by_hand(X), atol=1e-5)


def test_functions_are_written_out(tmp_path):
    """OpenVINO and the quantizer look at plain operators only."""
    body = [
        helper.make_node("Conv", ["a", "b", "c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
    ]
    pool = helper.make_function(
        "mine", "Block", ["a", "b", "c"], ["e"], body, [helper.make_opsetid("", 17)]
    )
    _, constants = pooled()
    nodes = [
        helper.make_node("Block", ["images", "w", "b"], ["p"], domain="mine"),
        helper.make_node("Reshape", ["p", "s"], ["out"]),
    ]
    path = save(tmp_path, nodes, constants=constants, functions=[pool],
                imports=[helper.make_opsetid("mine", 1)])  # fmt: skip
    found = kept(path)
    graph = onnx.load(str(found.path))
    assert [node.op_type for node in graph.graph.node] == ["Conv", "GlobalAveragePool", "Reshape"]
    assert not graph.functions
    np.testing.assert_allclose(runner(found.path)(X)["out"], by_hand(X), atol=1e-5)


class TestABatchThatIsOpenInNameOnly:
    def test_is_refused_with_an_option_that_helps(self, tmp_path):
        nodes, constants = pooled(shape=(1, 4))
        path = save(tmp_path, nodes, constants=constants)
        with pytest.raises(ExportError, match="answer a batch") as caught:
            kept(path)
        assert "export.dynamic_batch: false" in caught.value.hint
        assert "opset" not in caught.value.hint

    def test_and_that_option_helps(self, tmp_path):
        nodes, constants = pooled(shape=(1, 4))
        found = kept(save(tmp_path, nodes, constants=constants), dynamic_batch=False)
        inputs, outputs, _ = signature(found.path)
        assert (inputs[0].shape[0], outputs[0].shape[0]) == (1, 1)
        np.testing.assert_allclose(runner(found.path)(X[:1])["out"], by_hand(X[:1]), atol=1e-5)


def test_a_batch_that_is_not_first_is_named(tmp_path):
    nodes, constants = pooled()
    nodes[2] = helper.make_node("Reshape", ["p", "s"], ["r"])
    nodes.append(helper.make_node("Transpose", ["r"], ["out"], perm=[1, 0]))
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, [4, "batch"])
    with pytest.raises(ExportError, match="'out' gives 4 rows for one image") as caught:
        kept(save(tmp_path, nodes, constants=constants, outputs=[value]))
    assert caught.value.hint == "put the batch first in the outputs"


@pytest.mark.parametrize(("shape", "cause"), [
    ([4, 3, 16, 16], r"batch is fixed at 4"),
    ([3, "batch", 16, 16], r"first axis is the channels"),
    ([3, 1, 16, 16], r"first axis is the channels"),
])  # fmt: skip
def test_a_batch_that_no_single_image_fits_is_named(shape, cause, tmp_path):
    image, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "out")
    )
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["out"])], "g", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path(tmp_path, "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=cause) as caught:
        open_source(pinned(tmp_path, "m.onnx"), X[:1])
    assert "model.input" not in caught.value.hint


@pytest.mark.parametrize(("opset", "old"), [(11, True), (12, True), (13, False), (17, False)])
def test_int8_is_refused_below_opset_13_by_what_the_manifest_says(opset, old, tmp_path):
    nodes, constants = pooled()
    path = save(tmp_path, nodes, opset=opset, constants=constants)
    artifact = put_onnx(LocalStore(tmp_path / "store"), path)
    assert given.too_old(artifact) is old
