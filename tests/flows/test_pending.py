"""A target that is built here and opened elsewhere, through the real command."""

from __future__ import annotations

import json

import jsonschema
import pytest

from engineworks import hosts, targets
from tests.flows.conftest import ROOT
from tests.flows.test_int8 import photos

pytestmark = pytest.mark.flows


def needs(target: str) -> pytest.MarkDecorator:
    """Skip where a target cannot be built, or where its engines do not have to wait."""
    host = hosts.probe()
    missing = targets.load(target).missing_requirements(host)
    runs = not targets.load(target).cannot_run(host)
    return pytest.mark.skipif(
        bool(missing) or runs, reason=missing or f"this machine opens engines of {target}"
    )


RTX = """
task: {kind: classification, labels: [cat, dog, bird, fish]}
data: {images: images}
calibration: {images: seen}
int8: {limit_s: 600, evaluations: 3, images: 6, methods: [minmax, mse]}
budget: {max_drop: 1.0}
targets:
  - target: onnxruntime-cpu
  - target: tensorrt-rtx
    precisions: [fp16, int8]
    options: {gpus: ["8.6", "8.9"]}
    required: false
"""


@needs("tensorrt-rtx")
def test_engines_wait_with_their_truth_and_claim_nothing(project):
    for seed, label in enumerate(["cat", "dog"]):
        photos(project.folder / "images" / label, 3, seed)
    photos(project.folder / "seen", 16, 9)
    project.edit('targets:\n  - target: "null"\n', RTX)
    project.edit("name: tiny", "name: tiny-rtx")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    summary = outcome.summary
    jsonschema.validate(summary, json.loads((ROOT / "docs" / "summary.schema.json").read_text()))

    for precision in ("fp16", "int8"):
        variant = outcome.variant(f"tensorrt-rtx/{precision}")
        assert variant["verdict"] == "pending"
        assert "built here; waits for a host with an RTX GPU" in variant["reason"]
        assert variant["delivered_precision"]["delivered"] == precision
        assert variant["engine"]["size_bytes"] > 10_000
        for claim in ("accuracy", "parity", "precision_comparison", "registered"):
            assert variant[claim] is None, claim
        assert variant["benchmark"] == []
        report = (outcome.home / "runs" / "latest" / "report.html").read_text()
        assert "waits for a host with an RTX GPU" in report

    quantized = outcome.variant("tensorrt-rtx/int8")["quantized"]
    assert "simulated with onnxruntime-cpu" in quantized["reason"]
    assert "simulated with onnxruntime-cpu" in outcome.variant("tensorrt-rtx/int8")["reason"]
    assert all(trial["ratio"] is None for trial in quantized["trials"])
    assert outcome.variant("onnxruntime-cpu/fp32")["verdict"] == "shipped"
    builds = [s for s in summary["stages"] if s["variant"] == "tensorrt-rtx/fp16"]
    assert [stage["name"] for stage in builds] == ["build"]
    assert builds[0]["peak_mib"] > 0

    again = project.ship()
    assert again.executed == set()
    assert [v["verdict"] for v in again.summary["variants"]] == ["shipped", "pending", "pending"]


@needs("tensorrt-rtx")
def test_a_required_variant_that_waits_is_told_by_the_exit_code(project):
    project.edit('  - target: "null"\n', "  - target: tensorrt-rtx\n")
    outcome = project.ship()
    assert outcome.code == 4
    assert outcome.variant("tensorrt-rtx/fp32")["verdict"] == "pending"


CORE_ML = """
task: {kind: classification, labels: [cat, dog, bird, fish]}
data: {images: images}
calibration: {images: seen}
int8: {limit_s: 600, evaluations: 3, images: 6, methods: [minmax, mse]}
budget: {max_drop: 1.0}
targets:
  - target: coreml
    precisions: [fp16, w8a16, int8]
    required: false
"""


@needs("coreml")
def test_engines_that_can_be_replayed_wait_with_their_accuracy(project):
    for seed, label in enumerate(["cat", "dog"]):
        photos(project.folder / "images" / label, 3, seed)
    photos(project.folder / "seen", 16, 9)
    project.edit('targets:\n  - target: "null"\n', CORE_ML)
    project.edit("name: tiny", "name: tiny-coreml")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    jsonschema.validate(
        outcome.summary, json.loads((ROOT / "docs" / "summary.schema.json").read_text())
    )
    for precision in ("fp16", "w8a16", "int8"):
        variant = outcome.variant(f"coreml/{precision}")
        assert variant["delivered_precision"]["delivered"] == precision
        assert variant["accuracy"]["images"] == 6
        assert variant["parity"]["rows"]
        assert variant["benchmark"] == [] and variant["precision_comparison"] is None
        assert "ONNX Runtime in place of its own runtime" in variant["reason"]
        assert variant["verdict"] == "pending"
    words = outcome.variant("coreml/w8a16")["quantized"]["reason"]
    assert "layers have their weights in 8 bits" in words
    assert "simulated with onnxruntime-cpu" in words
