"""Each section of a recipe checks itself."""

from __future__ import annotations

import pytest

from engineworks.errors import RecipeError
from engineworks.specs import (
    BenchmarkSpec,
    BudgetSpec,
    CalibrationSpec,
    DataSpec,
    ExportSpec,
    InputSpec,
    Int8Spec,
    LimitsSpec,
    ModelSpec,
    Preprocess,
    TargetSpec,
    TaskSpec,
)

SIZE = InputSpec(size=(8, 8))


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("model:build", "factory"),
        ("pack.models:build", "factory"),
        ("net.onnx", "onnx"),
        ("exported/NET.ONNX", "onnx"),
        ("net.pt2", "pt2"),
        ("net.torchscript", "torchscript"),
        ("net.ts", "torchscript"),
    ],
)
def test_the_form_of_a_source_is_seen_from_its_name(source, form):
    assert ModelSpec(source=source, input=SIZE).form == form


@pytest.mark.parametrize("source", ["net.pt", "model", "model:", ":build", "a b:c", "model:1x"])
def test_another_source_is_refused(source):
    with pytest.raises(RecipeError) as caught:
        ModelSpec(source=source, input=SIZE)
    assert repr(source) in caught.value.message
    assert "model:build" in caught.value.hint


REFUSED = {
    "a size of 0": (lambda: InputSpec(size=(0, 8)), "0"),
    "a negative size": (lambda: InputSpec(size=(8, -1)), "-1"),
    "two channels": (lambda: InputSpec(size=(8, 8), channels=2), "2 channels"),
    "weights beside onnx": (
        lambda: ModelSpec(source="net.onnx", input=SIZE, weights="w.pt"), "'w.pt'",
    ),
    "one output name twice": (
        lambda: ModelSpec(source="m:b", input=SIZE, outputs=("boxes", "boxes")), "boxes",
    ),
    "pad 256": (lambda: Preprocess(pad=256), "256"),
    "pad -1": (lambda: Preprocess(pad=-1), "-1"),
    "std 0": (lambda: Preprocess(std=(1.0, 0.0, 1.0)), "0.0"),
    "scale 0": (lambda: Preprocess(scale=0.0), "0.0"),
    "a mean that is no number": (lambda: Preprocess(mean=(float("nan"), 0.0, 0.0)), "nan"),
    "two means": (lambda: Preprocess(mean=(0.0, 0.0)), "2"),
    "three stds for gray": (lambda: Preprocess(color="gray", mean=(0.0,)), "3"),
    "confidence 1": (lambda: TaskSpec(confidence=1.0), "1.0"),
    "confidence nan": (lambda: TaskSpec(confidence=float("nan")), "nan"),
    "iou 0": (lambda: TaskSpec(iou=0.0), "0.0"),
    "no detections": (lambda: TaskSpec(max_detections=0), "0"),
    "one label twice": (lambda: TaskSpec(labels=("cat", "dog", "cat")), "cat"),
    "limit 0": (lambda: DataSpec(images="x", limit=0), "0"),
    "a minimum above the limit": (
        lambda: CalibrationSpec(images="x", minimum=32, limit=16), "minimum 32 and limit 16",
    ),
    "a minimum of 0": (lambda: CalibrationSpec(images="x", minimum=0), "minimum 0"),
    "no time to search": (lambda: Int8Spec(limit_s=0.0), "limit_s 0.0"),
    "no evaluation": (lambda: Int8Spec(evaluations=0), "evaluations 0"),
    "no image to score on": (lambda: Int8Spec(images=0), "images 0"),
    "no method": (lambda: Int8Spec(methods=()), "int8.methods"),
    "no time to calibrate": (lambda: LimitsSpec(calibrate_s=0.0), "0.0"),
    "opset 12": (lambda: ExportSpec(opset=12), "12"),
    "opset 26": (lambda: ExportSpec(opset=26), "26"),
    "no exporter": (lambda: ExportSpec(exporters=()), "empty"),
    "a negative tolerance": (lambda: ExportSpec(tolerance=-1.0), "-1"),
    "no precision": (lambda: TargetSpec(target="null", precisions=()), "null"),
    "one precision twice": (lambda: TargetSpec(target="null", precisions=("a", "a")), "'a', 'a'"),
    "no batch": (lambda: BenchmarkSpec(batches=()), "[]"),
    "batch 0": (lambda: BenchmarkSpec(batches=(1, 0)), "0"),
    "batch 1025": (lambda: BenchmarkSpec(batches=(1025,)), "1025"),
    "a benchmark size of 0": (lambda: BenchmarkSpec(sizes=((0, 8),)), "0"),
    "-1 threads": (lambda: BenchmarkSpec(threads=-1), "-1"),
    "0 seconds": (lambda: BenchmarkSpec(seconds=0.0), "0.0"),
    "a negative drop": (lambda: BudgetSpec(max_drop=-0.1), "-0.1"),
    "a negative latency": (lambda: BudgetSpec(max_p50_ms=-2.0), "-2.0"),
    "a drop that is no number": (lambda: BudgetSpec(max_drop=float("nan")), "nan"),
    "no time to build": (lambda: LimitsSpec(build_s=0.0), "0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_out_of_range_is_refused_and_named(name):
    make, value = REFUSED[name]
    with pytest.raises(RecipeError) as caught:
        make()
    assert value in caught.value.message
    assert len(caught.value.hint) > 5


def test_the_edges_of_the_ranges_are_allowed():
    Preprocess(pad=0)
    Preprocess(pad=255)
    TaskSpec(confidence=0.0, iou=1.0)
    ExportSpec(opset=13)
    ExportSpec(opset=25)
    BenchmarkSpec(batches=(1, 1024), seconds=3600.0)
    BudgetSpec(max_drop=0.0, max_p50_ms=0.0, max_size_mib=None)
    CalibrationSpec(images="x", minimum=1, limit=1)
    Int8Spec(evaluations=1, images=1, limit_s=0.001, methods=("minmax",))


def test_gray_takes_one_mean_and_one_std():
    assert Preprocess(color="gray", mean=(0.5,), std=(0.25,)).mean == (0.5,)


def test_one_label_in_two_spellings_of_unicode_stands_there_twice():
    with pytest.raises(RecipeError, match="twice"):
        TaskSpec(labels=("cafe\u0301", "bar", "caf\u00e9"))
