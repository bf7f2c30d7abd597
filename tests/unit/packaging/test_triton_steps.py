"""The code that runs inside Triton, run here with a double of the module that Triton gives it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from engineworks import packaging, runtime
from tests import builders

STEPS = Path(packaging.__file__).parent / "_triton"


class Tensor:
    def __init__(self, name, array):
        self.name, self.array = name, array

    def as_numpy(self):
        return self.array


class TritonError(str):
    INVALID_ARG = "invalid"

    def __new__(cls, words, code="internal"):
        made = super().__new__(cls, words)
        made.code = code
        return made


class Response:
    def __init__(self, output_tensors=(), error=None):
        self.error = error
        self.outputs = {tensor.name: tensor.array for tensor in output_tensors}


@pytest.fixture
def step(monkeypatch, tmp_path, yolox_engine):
    """Start a step: `step("decode.py", whole=False, **config)` gives its model."""
    module = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceResponse, module.TritonError = Tensor, Response, TritonError
    module.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def make(name, **config):
        folder = tmp_path / name
        shutil.copytree(yolox_engine, folder / "1" / "engine")
        spec = importlib.util.spec_from_file_location("model", STEPS / name)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        model = loaded.TritonPythonModel()
        args = {"model_repository": str(folder), "model_version": "1"}
        model.initialize({**args, "model_config": json.dumps(config)})
        return model

    return make


ENGINE = {"max_batch_size": 8, "parameters": {"threads": {"string_value": "1"}}}
ANSWER = {"output": [{"name": name} for name in ("boxes", "confidence", "class_id", "label")]}


def rows(n, seed=0):
    shape = (n, 3, 416, 416)
    return np.random.default_rng(seed).random(shape, np.float32) * 255


def test_requests_taken_together_are_answered_as_if_alone(step, yolox_engine):
    model = step("engine.py", **ENGINE)
    requests = [{"images": rows(1, 1)}, {"images": rows(2, 2)}]
    responses = model.execute(requests)
    with runtime.open(yolox_engine, threads=1) as session:
        for request, response in zip(requests, responses, strict=True):
            (wanted,) = session.infer(request).values()
            assert response.outputs["detections"].shape == wanted.shape
            np.testing.assert_allclose(response.outputs["detections"], wanted, atol=1e-4)


def test_a_bad_request_harms_no_batch_mate(step):
    model = step("engine.py", **ENGINE)
    bad = {"images": rows(1)[:, :, :100]}
    good, refused, also_good = model.execute([{"images": rows(1)}, bad, {"images": rows(1)}])
    assert "must be float32" in refused.error
    assert refused.error.code == "invalid"
    assert good.error is None
    assert np.array_equal(good.outputs["detections"], also_good.outputs["detections"])


def test_photo_to_boxes_is_what_the_detector_finds(step, yolox_engine):
    photo = builders.photos()[0].read_bytes()
    decode, engine = step("decode.py"), step("engine.py", **ENGINE)
    answer = step("answer.py", **ANSWER)
    (first,) = decode.execute([{"photo": np.array([[photo]], np.object_)}])
    (second,) = engine.execute([{"images": first.outputs["images"]}])
    (third,) = answer.execute([{**second.outputs, "placement": first.outputs["placement"]}])
    with runtime.open(yolox_engine, threads=1) as session:
        wanted = runtime.Detector(session)(runtime.read_image(builders.photos()[0]))
    assert len(wanted)
    assert np.array_equal(third.outputs["boxes"], wanted.xyxy)
    assert np.array_equal(third.outputs["class_id"], wanted.class_id)
    assert third.outputs["label"][0] == "bear"


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xd8\xff"])
def test_what_is_no_picture_fails_by_itself(step, data):
    photo = builders.photos()[0].read_bytes()
    decode = step("decode.py")
    bad, good = decode.execute(
        [{"photo": np.array([[each]], np.object_)} for each in (data, photo)]
    )
    assert "photo" in bad.error
    assert bad.error.code == "invalid"
    assert good.error is None
