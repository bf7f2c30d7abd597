"""INT8 through the real command: calibrated, searched, compared with fp16 or fp32, and cached."""

from __future__ import annotations

import json

import cv2
import jsonschema
import numpy as np
import pytest

from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows

INT8 = """
task: {kind: classification, labels: [cat, dog, bird, fish]}
data: {images: images}
calibration: {images: seen}
int8: {limit_s: 600, evaluations: 3, images: 6, methods: [minmax, mse]}
budget: {max_drop: 1.0}
targets:
  - target: onnxruntime-cpu
    precisions: [fp32, int8]
    required: false
  - target: openvino
    precisions: [int8]
    required: false
"""
HIGHER = {
    "onnxruntime-cpu/int8": "onnxruntime-cpu/fp32",
    "openvino/int8": "openvino/fp32",
}


def photos(folder, number, seed=0):
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for n in range(number):
        image = generator.integers(0, 256, (40, 50, 3), np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), image)


@pytest.fixture
def calibrated(project):
    """The tiny project with labelled images, others to calibrate with, and INT8 asked for."""
    for seed, label in enumerate(["cat", "dog"]):
        photos(project.folder / "images" / label, 3, seed)
    photos(project.folder / "seen", 16, 9)
    project.edit('targets:\n  - target: "null"\n', INT8)
    return project


def test_integers_are_searched_judged_and_cached(calibrated):
    outcome = calibrated.ship()
    assert outcome.code == 0, outcome.err
    summary = outcome.summary
    jsonschema.validate(summary, json.loads((ROOT / "docs" / "summary.schema.json").read_text()))
    assert {"calibrate", "quantize", "compare"} <= outcome.executed
    assert outcome.variant("onnxruntime-cpu/fp32")["quantized"] is None

    coverage = summary["calibration"]["coverage"]
    assert (coverage["samples"], coverage["steps"]) == (16, [1, 2, 4, 8, 16])
    assert coverage["tensors"] >= 3

    for name, other in HIGHER.items():
        variant = outcome.variant(name)
        assert variant["verdict"] in ("shipped", "rejected"), variant["reason"]
        quantized = variant["quantized"]
        assert [trial["step"] for trial in quantized["trials"]][:2] == ["usual", "calibrator"]
        assert quantized["chosen"]["integer_layers"] >= 1
        assert quantized["evaluations"] == len(quantized["trials"]) == 3
        assert (quantized["metric"], quantized["images"]) == ("top1", 6)
        assert variant["delivered_precision"]["delivered"] == "int8"
        assert variant["delivered_precision"]["computed_nodes"]["int8"] >= 1
        assert variant["accuracy"]["drop"] <= 1.0
        # Which of them is faster is this machine's affair; that it says so with numbers is ours.
        timed = variant["precision_comparison"]
        assert timed["variant"] == other
        assert timed["ci95"][0] <= timed["speedup"] <= timed["ci95"][1]
        assert (
            f"fast as {other}" in variant["reason"]
            or f"slower than {other}" in variant["reason"]
            or f"faster than {other}" in variant["reason"]
        )
        assert "95 % interval" in variant["reason"]
        assert (variant["verdict"] == "shipped") is (timed["ci95"][0] > 1)
        assert name in (calibrated.home / "runs" / "latest" / "report.html").read_text()

    again = calibrated.ship()
    assert again.code == 0, again.err
    assert again.executed == set()
    assert [v["verdict"] for v in again.summary["variants"]] == [
        v["verdict"] for v in summary["variants"]
    ]


def test_one_more_calibration_image_reruns_what_depends_on_it(calibrated):
    calibrated.edit("  - target: openvino\n    precisions: [int8]\n    required: false\n", "")
    calibrated.edit("evaluations: 3", "evaluations: 1")
    assert calibrated.ship().code == 0
    image = np.full((40, 50, 3), 7, np.uint8)
    cv2.imwrite(str(calibrated.folder / "seen" / "z.png"), image)
    outcome = calibrated.ship()
    assert outcome.code == 0, outcome.err
    assert {"validate", "calibrate", "quantize"} <= outcome.executed
    assert {"reference", "export"} & outcome.executed == set()
    assert outcome.summary["calibration"]["coverage"]["samples"] == 17


FRAMES = """
import numpy as np

def frames():
    generator = np.random.default_rng(5)
    for _ in range(20):
        yield generator.integers(0, 256, (40, 50, 3), np.uint8)
"""


def test_images_that_a_function_yields_calibrate_like_files(calibrated):
    calibrated.edit("  - target: openvino\n    precisions: [int8]\n    required: false\n", "")
    calibrated.edit("evaluations: 3", "evaluations: 1")
    calibrated.edit(
        "calibration: {images: seen}", "calibration: {images: 'seen:frames', limit: 18}"
    )
    (calibrated.folder / "seen.py").write_text(FRAMES)
    outcome = calibrated.ship()
    assert outcome.code == 0, outcome.err
    assert {"generate", "calibrate", "quantize"} <= outcome.executed
    assert outcome.summary["calibration"]["coverage"]["samples"] == 18
    assert calibrated.ship().executed == set()


def test_a_function_that_is_not_there_stops_the_run_before_it_begins(calibrated):
    calibrated.edit("calibration: {images: seen}", "calibration: {images: 'gone:frames'}")
    outcome = calibrated.ship()
    assert outcome.code == 2
    assert "no module 'gone'" in outcome.err
