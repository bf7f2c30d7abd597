"""A real Triton loads what is written for it and answers as the engine does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineworks.manifest import Requires
from engineworks.specs import TaskSpec
from engineworks.store import LocalStore
from tests import builders
from tests.unit.packaging.conftest import row

pytestmark = pytest.mark.servers

#: A batch of 4 is said to be faster, so that Triton is asked to merge.
MERGING = (row(1, 20.0), row(4, 40.0))


@pytest.fixture
def openvino_engine(tmp_path, yolox_onnx):
    import openvino as ov

    from engineworks.export.torch_onnx import signature

    ov.save_model(ov.convert_model(yolox_onnx), tmp_path / "model.xml", compress_to_fp16=False)
    inputs, outputs, _ = signature(yolox_onnx)
    files = {name: tmp_path / name for name in ("model.xml", "model.bin")}
    made = LocalStore(tmp_path / "engines").put(
        files, kind="engine", name="yolox-nano", entry="model.xml", inputs=inputs,
        outputs=outputs, preprocess=builders.YOLOX_PREPROCESS, task=builders.yolox_task(),
        target="openvino", precision="fp32", requires=Requires(runtime="openvino"),
        details={"compile": {"INFERENCE_PRECISION_HINT": "f32"}}, provenance=builders.MADE_HERE,
    )  # fmt: skip
    return Path(made.uri)


def held(proof):
    assert proof.state == "proven", proof.reason
    return {check.name: check.detail for check in proof.checks}


@pytest.mark.parametrize("backend", ["vendor", "python"])
def test_onnxruntime(proven, yolox_engine, backend):
    proof = proven("triton", yolox_engine, backend=backend)
    details = held(proof)
    assert "6 of 6 bit-equal" in details["tensors are the engine's, within 16 ulp"]
    assert "25 rows in 25 executions" in str(details)  # nothing was measured: nothing is merged
    assert proof.server.startswith("triton 2.")
    assert bool(proof.unproven) == (backend == "vendor")


@pytest.mark.parametrize("backend", ["vendor", "python"])
def test_openvino(proven, openvino_engine, backend):
    details = held(proven("triton", openvino_engine, backend=backend))
    assert "6 of 6 bit-equal" in details["tensors are the engine's, within 16 ulp"]


@pytest.mark.parametrize("backend", ["vendor", "python"])
def test_requests_are_merged_where_that_was_measured(proven, yolox_engine, backend):
    proof = proven("triton", yolox_engine, MERGING, photos=2, backend=backend)
    assert proof.state == "proven", proof.reason
    (counted,) = [check.detail for check in proof.checks if "executions" in check.detail]
    executions = int(counted.split(" executions")[0].split()[-1])
    assert executions < 25, counted


def test_a_response_cache(proven, yolox_engine):
    details = held(proven("triton", yolox_engine, photos=2, cache_mib=64))
    # The photo was asked for before: what comes from the cache is not executed.
    assert "the engine counted 0 rows in 0 executions" in str(details)


def test_a_classifier(proven, tmp_path, tiny_onnx):
    task = TaskSpec(kind="classification", labels=tuple("abcde"), scores="logits")
    engine = builders.put_engine(
        LocalStore(tmp_path / "engines"), tiny_onnx, name="tiny", task=task
    )
    held(proven("triton", Path(engine.uri)))


def test_a_fixed_batch(proven, tmp_path):
    onnx = builders.export_yolox(tmp_path / "fixed.onnx", batch=2)
    engine = builders.put_engine(LocalStore(tmp_path / "engines"), onnx)
    held(proven("triton", Path(engine.uri), photos=3))


def test_an_engine_without_a_task(proven, tmp_path, tiny_onnx):
    engine = builders.put_engine(
        LocalStore(tmp_path / "engines"), tiny_onnx, name="tiny", task=TaskSpec()
    )
    details = held(proven("triton", Path(engine.uri)))
    assert not [name for name in details if "photo" in name]


def test_a_repository_that_triton_refuses_is_no_proof(proven, tmp_path, yolox_onnx):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    engine = builders.put_engine(LocalStore(tmp_path / "engines"), yolox_onnx)
    path = Path(engine.uri)
    # The engine itself is whole; what the package holds of it is not.
    from engineworks import packaging

    package = packaging.load("triton")
    original = package.write

    def spoiled(request):
        output = original(request)
        name = "model_repository/yolox-nano.engine/1/model.onnx"
        return type(output)(
            files={**output.files, name: broken}, entry=output.entry, details=output.details
        )

    object.__setattr__(package, "write", spoiled)
    try:
        proof = proven("triton", path)
    finally:
        object.__setattr__(package, "write", original)
    assert proof.state == "failed"
    assert "server" in proof.reason
