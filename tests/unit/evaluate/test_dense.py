"""Three hundred objects in a picture: no limit cuts unsaid, and AP counts as many as are asked for.

The head is that of a YOLOv8 at 640x640 which finds every object of a grid, once or eight times.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from engineworks.evaluate import datasets, judge
from engineworks.evaluate.judge import CUT
from engineworks.runtime.heads.detection import DetectionPostprocessor
from engineworks.runtime.preprocess import Placement
from engineworks.specs import DataSpec, Preprocess, TaskSpec
from tests.builders import coco, picture

SIZE = (640, 640)
PLACED = Placement(scale_x=1, scale_y=1, offset_x=0, offset_y=0, width=640, height=640)


def grid(copies):
    """Centre x, centre y, width, height, score by anchors; copies differ by a tenth of a pixel."""
    x, y = np.tile(np.arange(20) * 32.0 + 16, 15), np.repeat(np.arange(15) * 42.0 + 20, 20)
    score = np.linspace(0.95, 0.35, 300)
    rows = [
        np.stack([x + 0.1 * k, y, np.full(300, 24.0), np.full(300, 30.0), score - 1e-4 * k])
        for k in range(copies)
    ]
    return np.concatenate(rows, axis=1).astype(np.float32)


def task(most):
    return TaskSpec(kind="detection", layout="yolov8", confidence=0.1, max_detections=most)


@pytest.mark.parametrize("copies", [1, 8, 30])
@pytest.mark.parametrize(("most", "kept"), [(300, 300), (299, 299), (301, 300), (100, 100)])
def test_as_many_are_found_as_are_asked_for(copies, most, kept):
    """Thirty copies: 9,000 candidates. The strongest 1,000 of them would hold 34 objects."""
    found = DetectionPostprocessor(task(most), SIZE)({"out": grid(copies)}, PLACED)
    assert len(found) == kept
    assert found.cut == (most < 300)
    np.testing.assert_allclose(found.confidence, np.linspace(0.95, 0.35, 300)[:kept], atol=1e-6)


@pytest.fixture
def dense(tmp_path):
    boxes = grid(1).T
    entries = [
        (name, "rebar", [x - w / 2, y - h / 2, w, h])
        for name in ("a.png", "b.png")
        for x, y, w, h, _ in boxes.tolist()
    ]
    for name in ("a.png", "b.png"):
        picture(tmp_path / "photos" / name, *SIZE)
    path = coco(tmp_path / "l.json", {"a.png": SIZE, "b.png": SIZE}, entries, {"rebar": 1})
    return DataSpec(images=str(tmp_path / "photos"), annotations=str(path))


def plain_ap(results, annotations, most):
    """By pycocotools alone."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(Path(annotations).read_text())
        for number, entry in enumerate(truth.dataset["annotations"], start=1):
            width, height = entry["bbox"][2:]
            entry |= {"id": number, "iscrowd": 0, "area": width * height}
        truth.dataset["info"] = {}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return precision[precision > -1].mean()


@pytest.mark.parametrize("copies", [1, 8])
@pytest.mark.parametrize(("most", "wanted"), [(300, 1.0), (100, 0.3366), (150, 0.5050)])
def test_ap_counts_as_many_as_the_task_keeps(dense, copies, most, wanted):
    data = datasets.validate(dense, task(most), ("rebar",))
    metrics, results = judge.judge(
        lambda batch: {"out": grid(copies)[None]}, data, task(most), ("rebar",),
        Preprocess(resize="stretch"), SIZE, None,
    )  # fmt: skip
    assert len(results) == 2 * most
    assert metrics["AP"] == pytest.approx(wanted, abs=1e-4)
    assert metrics["AP"] == pytest.approx(plain_ap(results, dense.annotations, most))
    assert metrics.get(CUT, 0.0) == (1.0 if most < 300 else 0.0)


def test_a_detector_says_once_that_it_cuts(store, tmp_path, caplog):
    import onnx
    from onnx import TensorProto, helper

    from engineworks import runtime
    from tests.builders import put_engine

    out = grid(1)[None]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "none"], ["zero"]),
            helper.make_node("Add", ["zero", "grid"], ["out"]),
        ],
        "grid",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, list(out.shape))],
        [
            helper.make_tensor("none", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("grid", TensorProto.FLOAT, out.shape, out.ravel()),
        ],
    )
    path = tmp_path / "grid.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    engine = put_engine(store, path, task=task(100), preprocess=Preprocess())
    image = np.zeros((8, 8, 3), np.uint8)
    with runtime.open(engine.uri) as session, caplog.at_level(logging.WARNING):
        few = runtime.Detector(session)
        assert [len(few(image)), len(few(image))] == [100, 100]
        assert caplog.text.count("more than max_detections = 100 objects above 0.1") == 1
        caplog.clear()
        assert len(runtime.Detector(session, max_detections=400)(image)) == 300
    assert not caplog.text
