"""The stages of the pipeline: each a request in, a value out, run in a child process of its own.

`python -m engineworks.stages FOLDER` repeats one stage by hand from its `request.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engineworks.facts.data import PinnedData
from engineworks.facts.engine import Built, Checked
from engineworks.facts.int8 import Calibration, Gathered, Quantized, Requantized
from engineworks.facts.model import Analysis, Exported, Reference, Simplified
from engineworks.facts.timing import Benchmark, Comparison
from engineworks.stages import engine, gather, int8, model
from engineworks.stages.requests import (
    AnalyzeRequest,
    BenchmarkRequest,
    BuildRequest,
    CalibrateRequest,
    CheckRequest,
    CompareRequest,
    ExportRequest,
    GatherRequest,
    QuantizeRequest,
    ReferenceRequest,
    RequantizeRequest,
    ScreenRequest,
    SimplifyRequest,
)


@dataclass(frozen=True)
class Stage:
    """A stage's function, the type of its request and of its value."""

    run: Callable[[Any], Any]
    request: type
    value: type
    packages: tuple[str, ...] = field(default=())
    """Distributions whose versions are part of the cache key."""


STAGES: dict[str, Stage] = {
    "screen": Stage(model.screen, ScreenRequest, PinnedData, ("opencv-python-headless",)),
    "reference": Stage(
        model.reference, ReferenceRequest, Reference,
        ("torch", "onnxruntime", "opencv-python-headless", "pycocotools"),
    ),
    "export": Stage(
        model.export, ExportRequest, Exported, ("torch", "onnx", "onnxscript", "onnxruntime")
    ),
    "simplify": Stage(
        model.simplify, SimplifyRequest, Simplified, ("onnx", "onnxsim", "onnxruntime")
    ),
    "onnxsim": Stage(model.onnxsim, dict, dict),
    "lacking": Stage(model.lacking, dict, dict),
    "analyze": Stage(model.analyze, AnalyzeRequest, Analysis, ("onnx",)),
    "gather": Stage(gather.gather, GatherRequest, Gathered, ("opencv-python-headless",)),
    "calibrate": Stage(
        int8.calibrate, CalibrateRequest, Calibration,
        ("onnx", "onnxruntime", "opencv-python-headless"),
    ),
    "quantize": Stage(
        int8.quantize, QuantizeRequest, Quantized,
        ("onnx", "onnxruntime", "opencv-python-headless", "pycocotools"),
    ),
    "requantize": Stage(int8.requantize, RequantizeRequest, Requantized, ("onnx",)),
    "build": Stage(engine.build, BuildRequest, Built),
    "check": Stage(engine.check, CheckRequest, Checked, ("opencv-python-headless", "pycocotools")),
    "benchmark": Stage(engine.benchmark, BenchmarkRequest, Benchmark),
    "compare": Stage(engine.compare, CompareRequest, Comparison),
}  # fmt: skip
