"""Simplification is undone on any doubt."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from engineworks.export.simplify import doubt, node_count, simplify_file
from engineworks.export.torch_onnx import runner
from tests.builders import samples

X = samples()


@pytest.fixture(scope="module")
def wordy(tiny_onnx, tmp_path_factory):
    """The tiny graph with three useless nodes in front."""
    model = onnx.load(str(tiny_onnx))
    names = ["images", "same1", "same2", "same3"]
    for node in model.graph.node:
        node.input[:] = ["same3" if name == "images" else name for name in node.input]
    for position, (before, after) in enumerate(itertools.pairwise(names)):
        model.graph.node.insert(position, onnx.helper.make_node("Identity", [before], [after]))
    path = tmp_path_factory.mktemp("wordy") / "wordy.onnx"
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def wanted(wordy):
    return runner(wordy)(X)


def test_a_true_simplification_raises_no_doubt(wordy, wanted, tmp_path):
    after = tmp_path / "after.onnx"
    simplify_file(wordy, after)
    reason, largest = doubt(wordy, after, X, wanted, 1e-3)
    assert reason == ""
    assert largest <= 1e-5
    assert node_count(after) <= node_count(wordy) - 3


def scale_a_weight(model):
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.2)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def rename_the_output(model):
    model.graph.node[-1].output[0] = model.graph.output[0].name = "result"


def rename_the_input(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"


def fix_the_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def fix_the_batch_inside(model):
    """Input and output still say `batch`, but a reshape holds 1."""
    shape = onnx.numpy_helper.from_array(np.array([1, 5], np.int64), "one_row")
    model.graph.initializer.append(shape)
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.append(onnx.helper.make_node("Reshape", ["inner", "one_row"], ["scores"]))


def use_an_unknown_operator(model):
    model.graph.node[-1].op_type = "Frobnicate"


def cut_a_wire(model):
    model.graph.node[0].input[0] = "nothing"


CHANGES = {
    scale_a_weight: "off by",
    rename_the_output: "changed the outputs",
    rename_the_input: "changed the inputs",
    fix_the_batch: "changed the inputs",
    fix_the_batch_inside: "does not run|shape",
    use_an_unknown_operator: "not valid",
    cut_a_wire: "not valid",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_graph_is_refused(wordy, wanted, tmp_path, change):
    model = onnx.load(str(wordy))
    change(model)
    onnx.save(model, str(tmp_path / "after.onnx"))
    reason, _ = doubt(wordy, tmp_path / "after.onnx", X, wanted, 1e-3)
    assert reason
    assert any(words in reason for words in CHANGES[change].split("|"))


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_a_file_that_is_no_graph_is_refused(wordy, wanted, tmp_path, content):
    if content is not None:
        (tmp_path / "after.onnx").write_bytes(content)
    reason, largest = doubt(wordy, tmp_path / "after.onnx", X, wanted, 1e-3)
    assert "not valid" in reason
    assert largest is None
