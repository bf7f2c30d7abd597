"""A graph is kept only if it answers as the model does, alone and in a batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from engineworks.errors import ExportError, ModelError
from engineworks.export.source import SourceModel
from engineworks.export.torch_onnx import export, runner, signature
from engineworks.specs import ExportSpec
from tests.builders import pinned, samples, tiny_module

X = samples()


class Bend(nn.Module):
    """Whatever a function does, as a module with a weight."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


def forget_the_batch(y):
    return y.view(1, -1)


def write_the_batch_down(y):
    return y.reshape(int(y.shape[0]), -1)


def use_an_unknown_operator(y):
    return torch.special.bessel_j0(y).flatten(1)


def source_of(module):
    def infer(batch):
        with torch.no_grad():
            rows = [module(torch.from_numpy(row[None].copy())).numpy() for row in batch]
        return {"y": np.concatenate(rows)}

    return SourceModel(infer, ("y",), module.eval())


def run(module, folder, *, wanted=None, **spec):
    source = source_of(module)
    return export(
        source, pinned(folder, "model:build"), ExportSpec(**spec), X,
        wanted or source.infer(X), folder,
    )  # fmt: skip


def passed(kept):
    return {attempt.exporter: attempt.passed for attempt in kept.attempts}


def test_both_exporters_pass_and_the_first_is_kept(tmp_path):
    module = tiny_module()
    kept = run(module, tmp_path)
    assert passed(kept) == {"dynamo": True, "legacy": True}
    assert kept.chosen == "dynamo"
    assert "both agree" in kept.reason
    batch = np.concatenate([X, X, X])
    np.testing.assert_allclose(
        runner(kept.path)(batch)["y"], source_of(module).infer(batch)["y"], atol=1e-5
    )
    inputs, outputs, _ = signature(kept.path)
    assert [(t.name, t.dtype, t.shape[1:]) for t in (*inputs, *outputs)] == [
        ("images", "float32", (3, 16, 16)), ("y", "float32", (5,)),
    ]  # fmt: skip
    assert all(isinstance(t.shape[0], str) for t in (*inputs, *outputs))
    assert not list(tmp_path.glob("*.data"))


def test_the_recipes_order_of_exporters_decides(tmp_path):
    assert run(tiny_module(), tmp_path, exporters=("legacy", "dynamo")).chosen == "legacy"


@pytest.mark.parametrize("opset", [17, 18])
def test_the_opset_asked_for_is_written(tmp_path, opset):
    kept = run(tiny_module(), tmp_path, exporters=("legacy",), opset=opset)
    assert signature(kept.path)[2] == opset


def test_a_fixed_batch_is_fixed_when_asked(tmp_path):
    kept = run(tiny_module(), tmp_path, exporters=("legacy",), dynamic_batch=False)
    assert signature(kept.path)[0][0].shape == (1, 3, 16, 16)


def test_when_one_exporter_fails_the_other_one_is_kept_and_the_reason_told(tmp_path):
    def branch_on_values(y):  # cannot be exported without running, but can be traced
        return y.flatten(1) if float(y.sum()) > -1e9 else -y

    kept = run(Bend(branch_on_values), tmp_path)
    assert passed(kept) == {"dynamo": False, "legacy": True}
    assert kept.chosen == "legacy"
    assert kept.reason.startswith("dynamo did not pass")
    failed = kept.attempts[0]
    assert failed.reason in kept.reason or failed.reason[:200] in kept.reason
    assert (failed.max_abs_diff, failed.nodes) == (None, None)


@pytest.mark.parametrize("exporters", [("legacy",), ("dynamo", "legacy")])
@pytest.mark.parametrize("bend", [forget_the_batch, write_the_batch_down])
def test_a_network_that_bakes_in_the_batch_is_caught(tmp_path, bend, exporters):
    with pytest.raises(ExportError) as caught:
        run(Bend(bend), tmp_path, exporters=exporters)
    assert "batch" in caught.value.message
    assert "dynamic_batch: false" in caught.value.hint


def test_the_same_network_passes_with_a_fixed_batch(tmp_path):
    assert passed(run(Bend(forget_the_batch), tmp_path, dynamic_batch=False))["legacy"]


def test_a_network_that_nothing_can_export_is_refused_with_every_reason(tmp_path):
    with pytest.raises(ExportError) as caught:
        run(Bend(use_an_unknown_operator), tmp_path)
    dynamo, _, legacy = caught.value.message.partition("legacy: ")
    assert "bessel" in dynamo
    assert "bessel" in legacy


def test_a_graph_with_other_answers_is_not_kept(tmp_path):
    module = tiny_module()
    wanted = {"y": source_of(module).infer(X)["y"] + np.float32(0.1)}
    with pytest.raises(ExportError, match="off by"):
        run(module, tmp_path, wanted=wanted, exporters=("legacy",))
    assert run(module, tmp_path, wanted=wanted, exporters=("legacy",), tolerance=0.2)


def test_a_given_onnx_file_is_checked_and_taken(tiny_onnx, tmp_path):
    infer = runner(tiny_onnx)
    model = pinned(tiny_onnx.parent, tiny_onnx.name)
    source = SourceModel(infer, ("scores",))
    kept = export(source, model, ExportSpec(), X, infer(X), tmp_path)
    assert kept.chosen == "as given"
    np.testing.assert_array_equal(runner(kept.path)(X)["scores"], infer(X)["scores"])


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_torch_export_file_is_exported(tmp_path, dynamic):
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    module = tiny_module()
    example = (torch.from_numpy(samples(2 if dynamic else 1)),)
    program = torch.export.export(module, example, dynamic_shapes=shapes)
    source = SourceModel(source_of(module).infer, ("y",), program)
    spec = ExportSpec(dynamic_batch=dynamic, exporters=("dynamo",))
    kept = export(source, pinned(tmp_path, "m.pt2"), spec, X, source.infer(X), tmp_path)
    assert isinstance(signature(kept.path)[0][0].shape[0], str) is dynamic


def test_initialisers_are_no_inputs(tiny_onnx, tmp_path):
    model = onnx.load(str(tiny_onnx))
    weight = model.graph.initializer[0]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    )
    onnx.save(model, str(tmp_path / "old.onnx"))
    assert [t.name for t in signature(tmp_path / "old.onnx")[0]] == ["images"]


def test_a_file_that_is_no_graph_is_named(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff no graph")
    with pytest.raises(ModelError, match=r"m\.onnx"):
        signature(tmp_path / "m.onnx")
