"""Channels last, halves, doubles and bytes: taken on entry, judged against the file as it came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from engineworks.errors import ModelError
from engineworks.export.inputs import adapted, form
from engineworks.facts.model import PinnedModel
from engineworks.specs import DataSpec, ExportSpec, InputSpec, Preprocess, TaskSpec
from engineworks.stages.export import ExportRequest, export
from engineworks.stages.reference import ReferenceRequest, reference
from engineworks.stages.validate import ValidateRequest, validate
from tests.builders import picture, pinned, shared

KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
}
FORMS = [(kind, nhwc) for kind in KINDS for nhwc in (False, True)]


def write(path: Path, kind: str, *, nhwc: bool, through: str = "Cast", batch="n") -> Path:
    """(mean of each channel) @ weights, of an image in any form; halves stay halves to the end."""
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    inner = kind if kind in ("float16", "float64") else "float32"
    nodes = []
    now = "image"
    if kind == "uint8" and through == "Cast":
        nodes.append(helper.make_node("Cast", [now], ["wide"], to=TensorProto.FLOAT))
        now = "wide"
    elif kind == "uint8":
        nodes.append(helper.make_node("DequantizeLinear", [now, "step", "zero"], ["wide"]))
        now = "wide"
    axes = [1, 2] if nhwc else [2, 3]
    nodes += [
        helper.make_node("ReduceMean", [now], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
    ]
    shape = [batch, 8, 8, 3] if nhwc else [batch, 3, 8, 8]
    constants = [
        numpy_helper.from_array(weights.astype(inner), "weights"),
        numpy_helper.from_array(np.float32(0.5), "step"),
        numpy_helper.from_array(np.uint8(3), "zero"),
    ]
    graph = helper.make_graph(
        nodes,
        "any",
        [helper.make_tensor_value_info("image", KINDS[kind], shape)],
        [helper.make_tensor_value_info("scores", KINDS[inner], [batch, 4])],
        constants if through != "Cast" else constants[:1],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def run(model, batch):
    session = ort.InferenceSession(
        model.SerializeToString() if not isinstance(model, str) else model,
        providers=["CPUExecutionProvider"],
    )
    (answer,) = session.run(None, {session.get_inputs()[0].name: batch})
    return answer


@pytest.mark.parametrize(("kind", "nhwc"), FORMS)
@pytest.mark.parametrize("through", ["Cast", "DequantizeLinear"])
def test_the_adapted_graph_answers_as_the_file(tmp_path, kind, nhwc, through):
    path = write(tmp_path / "m.onnx", kind, nhwc=nhwc, through=through)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8)).astype(np.float32)
    by_hand = (pixels.transpose(0, 2, 3, 1) if nhwc else pixels).astype(kind)
    wanted = run(str(path), by_hand)
    changed, words = adapted(onnx.load(path), 3)
    onnx.checker.check_model(changed, full_check=True)
    (image,) = changed.graph.input
    assert image.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [d.dim_value or d.dim_param for d in image.type.tensor_type.shape.dim] == ["n", 3, 8, 8]
    found = run(changed, pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
    assert bool(words) == ((kind, nhwc) != ("float32", False))
    openvino = pytest.importorskip("openvino")
    onnx.save(changed, tmp_path / "changed.onnx")
    compiled = openvino.Core().compile_model(str(tmp_path / "changed.onnx"), "CPU")
    np.testing.assert_allclose(compiled([pixels])[0], wanted, rtol=2e-2)


def test_names_inside_a_branch_follow(tmp_path):
    """The image is read inside a subgraph too."""
    branch = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["inside"], keepdims=0, axes=[1, 2])],
        "branch", [], [helper.make_tensor_value_info("inside", TensorProto.FLOAT16, ["n", 3])],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("If", ["yes"], ["scores"], then_branch=branch, else_branch=branch)],
        "outer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["n", 3])],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    pixels = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    wanted = pixels.mean(axis=(2, 3))
    changed, _ = adapted(model, 3)
    np.testing.assert_allclose(run(changed, pixels), wanted, atol=2e-3)


def test_channels_stand_where_only_they_can():
    assert not form("tensor(float)", ["n", 3, 224, 3], 3).nhwc  # both: the usual order
    assert form("tensor(float)", [1, "h", "w", 3], 3).nhwc
    assert form("tensor(uint8)", [1, 64, 64, 1], 1).nhwc
    with pytest.raises(ModelError, match=r"tensor\(int64\)"):
        form("tensor(int64)", [1, 3, 8, 8], 3)


def asked_of(store, tmp_path, path, preprocess):
    for number, label in enumerate(("a", "b", "c", "d")):
        picture(tmp_path / "pics" / label / f"{number}.png", 20, 20, seed=number)
    common = shared(
        store, task=TaskSpec(kind="classification"), labels=("a", "b", "c", "d"),
        preprocess=preprocess,
    )  # fmt: skip
    spec = DataSpec(images=str(tmp_path / "pics"))
    data = validate(ValidateRequest(shared=common, data=spec, bytes_sha256=""))
    model: PinnedModel = pinned(tmp_path, path.name, input=InputSpec(size=(8, 8), name="image"))
    return common, ReferenceRequest(shared=common, model=model, data=data, size=(8, 8), score=True)


@pytest.mark.parametrize(("kind", "nhwc"), FORMS)
def test_a_recipe_takes_them(store, tmp_path, kind, nhwc):
    path = write(tmp_path / "m.onnx", kind, nhwc=nhwc)
    common, request = asked_of(store, tmp_path, path, Preprocess(scale=1.0))
    found = reference(request)
    made = export(
        ExportRequest(
            shared=common, model=request.model, spec=ExportSpec(), reference=found.artifact,
            size=(8, 8),
        )
    )  # fmt: skip
    (image,) = made.onnx.manifest.inputs
    assert (image.dtype, image.shape[1:]) == ("float32", (3, 8, 8))
    assert {spec.dtype for spec in made.onnx.manifest.outputs} == {"float32"}


def test_bytes_of_scaled_pixels_are_refused_with_what_to_write(store, tmp_path):
    path = write(tmp_path / "m.onnx", "uint8", nhwc=True)
    _, request = asked_of(store, tmp_path, path, Preprocess())
    with pytest.raises(ModelError, match="takes pixels as they are") as caught:
        reference(request)
    assert "scale: 1, mean: [0, 0, 0], std: [1, 1, 1]" in caught.value.hint
