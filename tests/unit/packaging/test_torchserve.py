"""A TorchServe package as it is written, and its handler with a double of TorchServe's context."""

from __future__ import annotations

import importlib.util
import json
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from engineworks import packaging, runtime
from engineworks.packaging import PackageInput
from engineworks.specs import TaskSpec
from engineworks.store import verify
from tests import builders
from tests.unit.packaging.conftest import classifier, row

TORCHSERVE = packaging.load("torchserve")
ROWS = (row(1, 10.0), row(4, 20.0))


def read(output, inside):
    with zipfile.ZipFile(output.files["model_store/cars.mar"]) as archive:
        return archive.read(inside)


def test_an_archive_brings_engine_handler_and_runtime(engine, written):
    folder = engine()
    output = written("torchserve", folder, ROWS)
    manifest = json.loads(read(output, "MAR-INF/MANIFEST.json"))
    assert manifest["model"]["modelName"] == "cars"
    assert b"class EngineHandler" in read(output, manifest["model"]["handler"])
    assert read(output, "engine/model.onnx") == b"graph"
    assert read(output, "engine/manifest.json") == (folder / "manifest.json").read_bytes()
    assert read(output, "engineworks/runtime/engines/onnxruntime.py")


def test_the_model_is_served_with_what_was_measured(engine, written):
    output = written("torchserve", engine(), ROWS)
    settings = json.loads(read(output, "model-config.yaml"))
    assert settings["batchSize"] == 4
    assert settings["maxBatchDelay"] == 5  # milliseconds: 10 - 20 / 4
    assert (settings["minWorkers"], settings["handler"]["threads"]) == (2, 2)
    assert settings["jobQueueSize"] == 200


def test_the_server_is_closed_unless_it_is_opened(engine, written):
    output = written("torchserve", engine())
    lines = output.files["config.properties"].read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines)
    for kind in ("inference", "management", "metrics"):
        assert values[f"{kind}_address"].startswith("http://127.0.0.1:")
    off = ("disable_token_authorization", "enable_model_api", "install_py_dep_per_model")
    assert {values[key] for key in off} == {"false"}
    assert int(values["max_request_size"]) == 16 * 2**20


def test_the_same_engine_gives_the_same_bytes(engine, tmp_path):
    folder = engine()
    archives = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        request = PackageInput(
            engine=folder, manifest=verify(folder), rows=ROWS, cores=4, options={},
            work=tmp_path / name,
        )  # fmt: skip
        files = TORCHSERVE.write(request).files
        archives.append({inside: path.read_bytes() for inside, path in files.items()})
    assert archives[0] == archives[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": "tensorrt"}, "not of tensorrt"),
        ({"task": TaskSpec()}, "the task none"),
        ({"task": TaskSpec(kind="detection", layout="heads:mine")}, "heads:mine"),
    ],
)
def test_an_engine_that_does_not_fit_is_told_why(engine, changes, words):
    assert words in TORCHSERVE.fits(verify(engine(**changes)), {})


def test_a_classifier_fits(engine):
    assert TORCHSERVE.fits(verify(engine(**classifier())), {}) == ""


class Context:
    def __init__(self, folder):
        self.system_properties = {"model_dir": str(folder)}
        self.model_yaml_config = {"handler": {"threads": 1}}
        self.statuses = {}

    def set_response_status(self, *, code, phrase, idx):
        self.statuses[idx] = code


@pytest.fixture
def served(tmp_path, yolox_engine):
    (tmp_path / "engine").symlink_to(yolox_engine)
    path = Path(packaging.__file__).parent / "_torchserve" / "handler.py"
    spec = importlib.util.spec_from_file_location("handler", path)
    module: types.ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler, context = module.EngineHandler(), Context(tmp_path)
    handler.initialize(context)
    return lambda data: ([json.loads(each) for each in handler.handle(data, context)], context)


def test_each_request_gets_its_own_item(served, yolox_engine):
    photo = builders.photos()[0]
    data = [
        {"body": bytearray(photo.read_bytes())},
        {"body": b"<html>"},
        {"data": photo.read_bytes()},  # a form's field
        {"body": {"image": "JSON"}},
        {},
    ]
    answers, context = served(data)
    assert len(answers) == 5
    assert context.statuses == {1: 400, 3: 400, 4: 400}
    with runtime.open(yolox_engine, threads=1) as session:
        wanted = runtime.Detector(session)(runtime.read_image(photo))
    for answer in (answers[0], answers[2]):
        boxes = np.array([each["xyxy"] for each in answer["detections"]], np.float32)
        np.testing.assert_allclose(boxes, wanted.xyxy, atol=1e-3)
        assert answer["detections"][0]["label"] == "bear"
    assert "no image codec" in answers[1]["error"]


def test_nothing_but_bad_requests_run_no_engine(served):
    answers, context = served([{"body": b""}])
    assert context.statuses == {0: 400}
    assert "hint" in answers[0]
