"""An engine whose file is never opened, and packages written from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engineworks import packaging
from engineworks.facts.timing import BenchmarkRow
from engineworks.manifest import Requires, TensorSpec
from engineworks.packaging import PackageInput
from engineworks.specs import TaskSpec
from engineworks.store import verify
from tests import builders


def row(batch: int, p50_ms: float, **changes: Any) -> BenchmarkRow:
    """A row of the benchmark whose interval is 2 % wide."""
    values: dict[str, Any] = {
        "height": 416, "width": 416, "batch": batch, "threads": 2, "mean_ms": p50_ms,
        "std_ms": 0.1, "p50_ms": p50_ms, "p95_ms": p50_ms, "p99_ms": None,
        "ci95_ms": (p50_ms * 0.99, p50_ms * 1.01), "cpu_ms": p50_ms,
        "throughput_per_s": batch / p50_ms * 1e3, "n": 100, "warmup": 10, "inconclusive": "",
    }  # fmt: skip
    return BenchmarkRow(**{**values, **changes})


@pytest.fixture
def engine(store, tmp_path):
    """Make an engine's folder: `engine(outputs=..., task=...)`."""

    def make(**changes: Any) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(b"graph")
        runtime = changes.pop("runtime", "onnxruntime")
        fields: dict[str, Any] = {
            "kind": "engine",
            "name": "cars",
            "entry": "model.onnx",
            "inputs": (TensorSpec(name="images", dtype="float32", shape=("batch", 3, 416, 416)),),
            "outputs": (TensorSpec(name="boxes", dtype="float32", shape=("batch", 3549, 85)),),
            "preprocess": builders.YOLOX_PREPROCESS,
            "task": builders.yolox_task(),
            "target": runtime,
            "precision": "fp32",
            "requires": Requires(runtime=runtime, package="onnxruntime==1.32.0"),
            "details": {},
            "provenance": builders.MADE_HERE,
        }
        return Path(store.put({"model.onnx": path}, **{**fields, **changes}).uri)

    return make


@pytest.fixture
def written(tmp_path):
    """Write a package: `written("triton", engine, rows, option=...)` gives its output."""

    def make(kind: str, folder: Path, rows: Any = (), **options: Any) -> Any:
        work = tmp_path / "work"
        work.mkdir()
        request = PackageInput(
            engine=folder, manifest=verify(folder), rows=tuple(rows), cores=4, options=options,
            work=work,
        )  # fmt: skip
        package = packaging.load(kind)
        assert package.fits(request.manifest, options) == ""
        return package.write(request)

    return make


def classifier(manifest_changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fields of an engine that names what a picture shows."""
    task = TaskSpec(kind="classification", labels=("cat", "dog"), scores="logits")
    outputs = (TensorSpec(name="scores", dtype="float32", shape=("batch", 2)),)
    return {"task": task, "outputs": outputs, **(manifest_changes or {})}
