"""Engines of YOLOX-Nano for `bench-sealed`: built, spoiled, sealed, replayed, scored.

The score is COCO AP on all labelled photos of the example, by the evaluation that judges every
engine; the sealed tests hold other photos, of the calibration set.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import _mutations
from benchmarks._mutations import Mutation
from engineworks import hosts, sealed, targets
from engineworks import manifest as manifests
from engineworks.evaluate import datasets, judge
from engineworks.export.torch_onnx import runner, signature
from engineworks.manifest import Manifest, Provenance
from engineworks.runtime.pictures import read_image
from engineworks.runtime.session import open_engine
from engineworks.sealed import contents, making
from engineworks.sealed.contents import SealedContents
from engineworks.specs import DataSpec
from engineworks.store import entry_of
from engineworks.targets._base import BuildInput
from tests import builders

EXAMPLE = builders.EXAMPLES / "yolox_nano"
MADE = Provenance(stage="benchmark")
TASK = builders.yolox_task(confidence=0.01)

#: Pictures of a sealed test.
PICTURES = 16

#: Loss of AP from which a mutation is harmful: a point.
HARMFUL = 0.01


def graphs(home: Path) -> dict[str, Path]:
    """Precision -> the graph that its engine is built from: fp32, and Q/DQ."""
    float_, integer = home / "fp32.onnx", home / "int8.onnx"
    if not float_.exists():
        builders.export_yolox(float_)
    if not integer.exists():
        _quantize(float_, integer)
    return {"fp32": float_, "int8": integer}


def _quantize(onnx: Path, path: Path) -> None:
    """The pointwise convolutions of the backbone in integers: what a search leaves, about."""
    from onnx import load, save

    from engineworks.calibrate import collect, derive
    from engineworks.qdq import pairs
    from engineworks.qdq.graph import Graph
    from engineworks.runtime.preprocess import Preprocessor
    from engineworks.targets.onnxruntime_cpu import int8

    prepare = Preprocessor(builders.YOLOX_PREPROCESS, (416, 416))
    rows = [prepare(read_image(path))[0][None] for path in calibration()[:12]]
    graph, rules = Graph(onnx), int8(hosts.probe())
    seen = collect.collect(graph, rows, threads=2)
    bounds = derive.derive(graph, seen, "mse", rules.scheme)
    grouped = {
        node.output[0]
        for node in load(str(onnx)).graph.node
        if any(one.name == "group" and one.i > 1 for one in node.attribute)
    }
    chosen = [
        name
        for name in graph.computing
        if name.split("/")[1] in ("d2", "d3", "d4", "d5") and name not in grouped
    ]
    save(pairs.emit(graph, bounds, chosen, rules.scheme), str(path))


def calibration() -> list[Path]:
    """Photos of the calibration set, none of which judges."""
    return sorted((EXAMPLE / "data" / "train2017").glob("*.jpg"))


def build(graph: Path, folder: Path, precision: str, level: str = "") -> Path:
    """Build an engine for ONNX Runtime into a new folder.

    Args:
        graph: What it is built from.
        folder: Where it lies.
        precision: fp32 or int8.
        level: Another level of graph optimisation than the target's.
    """
    folder.mkdir(parents=True)
    inputs, outputs, _ = signature(graph)
    request = BuildInput(
        onnx=graph, inputs=inputs, outputs=outputs, precision=precision, options={},
        host=hosts.probe(), work=folder, draft=True,
    )  # fmt: skip
    if level:
        _optimise(graph, folder / "model.onnx", level)
        details: dict[str, Any] = {"optimized": True}
        requires = manifests.Requires(runtime="onnxruntime")
    else:
        built = targets.load("onnxruntime-cpu").build(request)
        details, requires = built.details, built.requires
    manifest = Manifest(
        kind="engine", name="yolox-nano", entry="model.onnx", details=details,
        files=(entry_of("model.onnx", folder / "model.onnx"),), inputs=inputs, outputs=outputs,
        preprocess=builders.YOLOX_PREPROCESS, task=TASK, target="onnxruntime-cpu",
        precision=precision, requires=requires, provenance=MADE,
    )  # fmt: skip
    _write(folder, manifest)
    return folder


def _optimise(graph: Path, path: Path, level: str) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / manifests.MANIFEST_NAME).write_text(manifests.dump(manifest), encoding="utf-8")


def seal(engine: Path, source: Path | None, folder: Path, first: int = 0) -> Path:
    """The sealed test of an engine, on photos of the calibration set from `first` on."""
    photos = (calibration() * 2)[first : first + PICTURES]
    asked = [making.SealedPicture(image=read_image(path), photo=True) for path in photos]
    folder.mkdir(parents=True)
    test, files = making.seal(engine, asked, runner(source) if source else None, folder)
    entries = tuple(entry_of(name, path) for name, path in sorted(files.items()))
    manifest = Manifest(
        kind=contents.KIND, name="yolox-nano", entry=contents.TEST, files=entries,
        details={"engine": test.engine}, provenance=MADE,
    )  # fmt: skip
    _write(folder, manifest)
    return folder


@dataclass
class Judge:
    """The labelled photos, and the score of an engine on all of them."""

    data: Any
    labels: tuple[str, ...]

    @classmethod
    def open(cls) -> Judge:
        """On the example's data."""
        labels = TASK.labels
        assert isinstance(labels, tuple)  # noqa: S101
        spec = DataSpec(
            images=str(EXAMPLE / "data" / "val2017"),
            annotations=str(EXAMPLE / "data" / "val2017.json"),
        )
        return cls(datasets.validate(spec, TASK, labels), labels)

    @property
    def classes(self) -> tuple[int, ...]:
        """Index of every class that occurs."""
        raw = json.loads((EXAMPLE / "data" / "val2017.json").read_text())
        names = {row["id"]: row["name"] for row in raw["categories"]}
        seen = {names[row["category_id"]] for row in raw["annotations"]}
        return tuple(sorted(self.labels.index(name) for name in seen))

    def score(self, engine: Path) -> float:
        """AP, by the engine's own manifest."""
        with open_engine(engine, threads=1) as session:
            manifest = session.manifest
            name = session.inputs[0].name

            def infer(batch: Any) -> dict[str, Any]:
                answers = session.infer({name: np.ascontiguousarray(batch)})
                return {
                    key: np.nan_to_num(np.array(value), nan=0.0, posinf=1e6, neginf=-1e6)
                    for key, value in answers.items()
                }

            assert manifest.preprocess is not None and manifest.task is not None  # noqa: S101
            labels = manifest.task.labels
            assert isinstance(labels, tuple)  # noqa: S101
            task = dataclasses.replace(manifest.task, labels=())
            metrics, _ = judge.judge(
                infer, self.data, task, labels, manifest.preprocess, (416, 416), None
            )
        return float(metrics["AP"])


class Workshop:
    """What one process needs to spoil an engine, score it and replay its test."""

    def __init__(self, graph: Path, engine: Path, test: Path, precision: str, ap: float) -> None:
        cv2.setNumThreads(1)
        self.ap = ap
        self.graph, self.engine, self.precision = graph, engine, precision
        self.test: SealedContents = sealed.load(test)
        self.judge = Judge.open()
        self.seen = self.judge.classes

    def run(self, mutation: Mutation) -> dict[str, Any]:
        """AP and replay of the engine with a mutation; every digest is right again."""
        with tempfile.TemporaryDirectory() as work:
            engine = self._spoiled(mutation, Path(work))
            score = self.judge.score(engine)
            row = {**dataclasses.asdict(mutation), "ap": score}
            if score > self.ap - HARMFUL and mutation.number % 5:
                return row  # of the harmless every fifth is replayed, for the record
            shown = sealed.replay(engine, self.test, threads=1)
        closest = shown.closest
        return {
            **row,
            "holds": shown.holds,
            "found_by": sorted(
                {one.name.split()[-1] for one in shown.expectations if not one.holds}
            ),
            "used": min(closest.used, 1e9) if closest else 0.0,
        }

    def _spoiled(self, mutation: Mutation, work: Path) -> Path:
        graph = _mutations.read(self.graph)
        if _mutations.change(mutation, graph, self.seen):
            _mutations.write(graph, work / "graph.onnx")
            folder = build(work / "graph.onnx", work / "engine", self.precision)
        else:
            folder = Path(shutil.copytree(self.engine, work / "engine"))
        manifest = manifests.load(folder / manifests.MANIFEST_NAME)
        _write(folder, _mutations.manifest_of(mutation, manifest, self.seen))
        return folder
