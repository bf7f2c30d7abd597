"""Stage `calibrate`: statistics of every activation over the calibration images."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.codec import later, to_json
from engineworks.errors import DataError
from engineworks.evaluate.datasets import sample_evenly
from engineworks.facts.data import PinnedData
from engineworks.facts.int8 import Calibration
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.specs import (
    Size,
)
from engineworks.stages import _kept as kept
from engineworks.stages._kept import IMAGES as KEPT
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """Statistics of every activation over the calibration images."""

    shared: Shared
    onnx: Artifact
    data: PinnedData
    size: Size
    minimum: int
    judged_too: int = 0
    """How many of these images judge the engines, too."""
    keep: int = later(default=0)
    """How many of them are kept to judge what engines' answers mean, where there are no labels."""


STATISTICS = "statistics.npz"


def calibrate(request: CalibrateRequest) -> Calibration:
    """Stage `calibrate`."""
    from engineworks.calibrate import collect, coverage
    from engineworks.qdq.graph import Graph

    started = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    usable = len(request.data.files)
    if usable < request.minimum:
        raise DataError(
            f"calibration.images: {usable} usable images, at least {request.minimum} are needed",
            hint="add images, or lower calibration.minimum if these really show everything",
        )
    graph = Graph(store.entry(request.onnx))
    statistics = collect.collect(graph, _samples(request))
    report = coverage.report(statistics, graph.inputs[0], _classes(request.data, shared))
    told = [note for note in (_swapped(request, graph.path), _judged_too(request)) if note]
    report = dataclasses.replace(report, warnings=(*report.warnings, *told))
    with tempfile.TemporaryDirectory() as work:
        path, report_path = Path(work, STATISTICS), Path(work, "coverage.json")
        collect.save(statistics, path)
        report_path.write_text(json.dumps(to_json(report), indent=1), encoding="utf-8")
        artifact = store.put(
            {STATISTICS: path, "coverage.json": report_path},
            kind="calibration",
            name=shared.name,
            entry=STATISTICS,
            preprocess=shared.preprocess,
            details={"onnx": request.onnx.sha256, "samples": request.data.sha256},
            provenance=provenance("calibrate", shared, (request.onnx,), "onnxruntime", "numpy"),
        )
    return Calibration(
        artifact=artifact,
        coverage=report,
        samples=kept.keep(shared, request.data, request.size, request.keep, store),
        elapsed_s=time.perf_counter() - started,
    )


def _samples(request: CalibrateRequest) -> Iterator[np.ndarray[Any, Any]]:
    """Preprocessed images in an order that says nothing, so that ranges settle honestly."""
    from engineworks.evaluate import datasets
    from engineworks.runtime.preprocess import Preprocessor

    prepare = Preprocessor(request.shared.preprocess, request.size)
    order = np.random.default_rng(0).permutation(len(request.data.files))
    files = tuple(request.data.files[index] for index in order)
    for image in datasets.images(dataclasses.replace(request.data, files=files)):
        yield prepare(image)[0][None]


def _judged_too(request: CalibrateRequest) -> str:
    if not request.judged_too:
        return ""
    return (
        f"{request.judged_too} of {len(request.data.files)} calibration images also judge the "
        "engines: INT8 looks better on them than it is"
    )


def _swapped(request: CalibrateRequest, onnx: Path) -> str:
    """A warning when the model would rather have red and blue swapped."""
    from engineworks.calibrate import color
    from engineworks.evaluate import datasets
    from engineworks.evaluate.confidence import mean_confidence
    from engineworks.export.torch_onnx import runner

    shared = request.shared
    asked = mean_confidence(runner(onnx), shared.task, shared.preprocess, request.size)
    if shared.preprocess.color == "gray" or asked is None:
        return ""
    return color.warning(datasets.images(sample_evenly(request.data, color.IMAGES)), asked)


def _classes(data: PinnedData, shared: Shared) -> dict[str, int]:
    """Labelled things by class name; empty when the images have no annotations."""
    from engineworks.evaluate import tasks
    from engineworks.evaluate.annotations import truth

    if data.spec.annotations is None:
        return {}
    count = tasks.load(shared.task.kind).counts if shared.task.judged else None
    if count is None:
        return truth.count_boxes(data, shared.labels)
    return count(data, shared.task, shared.labels)


STAGE = Stage(
    "calibrate", calibrate, CalibrateRequest, Calibration,
    ("onnx", "onnxruntime", "opencv-python-headless"),
)  # fmt: skip

__all__ = ["KEPT", "STAGE", "CalibrateRequest", "calibrate"]
