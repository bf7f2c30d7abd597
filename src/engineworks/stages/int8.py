"""The stages that make INT8: calibrate once, search per target, repeat for other input sizes."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import targets, usercode
from engineworks.codec import digest, to_json
from engineworks.errors import BuildError, DataError
from engineworks.evaluate.datasets import spread
from engineworks.facts.data import PinnedData
from engineworks.facts.int8 import Calibration, Quantized, Requantized, Rung
from engineworks.manifest import Artifact
from engineworks.stages import kept
from engineworks.stages.records import provenance
from engineworks.stages.requests import (
    CalibrateRequest,
    QuantizeRequest,
    RequantizeRequest,
    Shared,
)
from engineworks.store import LocalStore
from engineworks.verdict import cut_short

STATISTICS = "statistics.npz"

#: Computes the Q/DQ graph of a target whose engines cannot be opened here.
STAND_IN = "onnxruntime-cpu"


def calibrate(request: CalibrateRequest) -> Calibration:
    """Stage `calibrate`."""
    from engineworks.calibrate import collect, coverage
    from engineworks.qdq.graph import Graph

    started = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    found = len(request.data.files)
    if found < request.minimum:
        raise DataError(
            f"calibration.images: {found} usable images, at least {request.minimum} are needed",
            hint="add images, or lower calibration.minimum if these really show everything",
        )
    graph = Graph(store.entry(request.onnx))
    statistics = collect.collect(graph, _samples(request))
    report = coverage.report(statistics, graph.inputs[0], _classes(request.data, shared))
    told = [words for words in (_swapped(request, graph.path), _judged_too(request)) if words]
    report = dataclasses.replace(report, warnings=(*report.warnings, *told))
    with tempfile.TemporaryDirectory() as work:
        path, words = Path(work, STATISTICS), Path(work, "coverage.json")
        collect.save(statistics, path)
        words.write_text(json.dumps(to_json(report), indent=1), encoding="utf-8")
        artifact = store.put(
            {STATISTICS: path, "coverage.json": words},
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
        samples=kept.keep(request, store),
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
    from engineworks.evaluate.sureness import sureness
    from engineworks.export.torch_onnx import runner

    shared = request.shared
    asked = sureness(runner(onnx), shared.task, shared.preprocess, request.size)
    if shared.preprocess.color == "gray" or asked is None:
        return ""
    return color.warning(datasets.images(spread(request.data, color.IMAGES)), asked)


def _classes(data: PinnedData, shared: Shared) -> dict[str, int]:
    """Labelled boxes by class name; empty when the images have no annotations."""
    from engineworks.evaluate.annotations.coco import read_coco

    if data.spec.annotations is None:
        return {}
    coco = read_coco(Path(data.spec.annotations), shared.labels)
    names = {entry["id"]: entry["name"] for entry in coco.raw["categories"]}
    images = {coco.image_id[name] for name in data.files}
    counted = Counter(
        names[box["category_id"]]
        for box in coco.raw["annotations"] if box["image_id"] in images
    )  # fmt: skip
    return {name: counted[name] for name in names.values()}


def quantize(request: QuantizeRequest) -> Quantized:
    """Stage `quantize`."""
    from engineworks.qdq import accept
    from engineworks.qdq.graph import Graph
    from engineworks.search.journal import Journal
    from engineworks.search.recover import Search

    started = time.perf_counter()
    store = LocalStore(Path(request.shared.store))
    usercode.hold_to(request.code, Path(request.folder))
    rules = targets.int8_rules(request.target, request.host, request.precision)
    weights_only = rules.scheme.activation == "float"
    path = store.entry(request.onnx)
    if accept.is_quantized(accept.load(path)):
        return _as_it_is(request, accept.refusals(accept.load(path), rules.scheme))
    _refuse_old(request)
    if request.calibration is None and not weights_only:
        raise DataError(
            f"calibration is missing: {request.target}/int8 must see which values occur",
            hint="add calibration.images, a folder of at least 16 photos like those in use",
        )
    graph = Graph(path)
    if not graph.computing:
        raise BuildError(
            "the graph has no Conv, Gemm or MatMul with constant weights: nothing to quantize",
            hint="remove int8 from this target",
        )
    workshop = _workshop(request, store)
    # A longer search goes on where a shorter one ended: its limits are no part of the name.
    limitless = dataclasses.replace(request.spec, limit_s=1.0, evaluations=1)
    key = digest(dataclasses.replace(request, spec=limitless))
    journal = Journal(Path(request.journals, f"{key}.jsonl"))
    search = Search(
        graph=graph,
        statistics=_statistics(store, None if weights_only else request.calibration),
        rules=rules,
        workshop=workshop,
        spec=request.spec,
        max_drop=request.max_drop,
        journal=journal,
    )
    outcome = search.run()
    chosen = outcome.candidate
    model = search.model(chosen)
    refused = accept.refusals(model, rules.scheme)
    if refused:
        raise BuildError(
            f"the INT8 graph would be misread by {request.target}: {refused[0]}",
            hint="report this: our own writer must not make such graphs",
        )
    data = workshop.yardstick.data
    return Quantized(
        onnx=_put(store, request, model, {
            "method": chosen.method, "integer_layers": outcome.rung.integer_layers,
        }),
        found=outcome.rung,
        holds=outcome.rung.holds,
        reason=_words(outcome.rung, request.max_drop, weights_only, outcome.stopped)
        + ("" if workshop.timed else f"; simulated with {STAND_IN} in place of {request.target}"),
        metric=_metric(request),
        reference=outcome.reference,
        images=len(data.files) if data and outcome.reference is not None else 0,
        rungs=outcome.rungs,
        sensitivity=outcome.sensitivity,
        nodes=tuple(name for name in graph.nodes if name in chosen.nodes),
        float_layers=tuple(name for name in graph.computing if name not in chosen.nodes),
        evaluations=outcome.evaluations,
        stopped=outcome.stopped,
        elapsed_s=time.perf_counter() - started,
    )  # fmt: skip


def _refuse_old(request: QuantizeRequest) -> None:
    """Before anything is searched: what such a graph cannot express."""
    from engineworks.export import given

    if given.too_old(request.onnx):
        raise BuildError(
            f"the graph has opset {request.onnx.manifest.details['opset']}, {request.precision} "
            f"needs {given.LEAST_OPSET}: it could not be raised without other answers",
            hint=f"export the model again with opset {given.LEAST_OPSET} or newer, or remove "
            f"{request.precision} from this target",
        )


def _metric(request: QuantizeRequest) -> str:
    from engineworks.evaluate import tasks

    return tasks.metric(request.shared.task)


def _workshop(request: QuantizeRequest, store: LocalStore) -> Any:
    from engineworks.evaluate import judge, meaning
    from engineworks.export import reference as references
    from engineworks.export.torch_onnx import runner
    from engineworks.search.trial import Workshop, Yardstick

    shared, task = request.shared, request.shared.task
    inputs, wanted = references.load(store.entry(request.reference))
    decode = judge.decoder(task, Path(request.folder))
    against = None
    if request.data is None or not task.judged:
        against = meaning.Judge(
            runner(store.entry(request.onnx)),
            kept.rows(request.samples, store, shared.preprocess, request.size, inputs),
            task, request.size, decode,
        )  # fmt: skip
    runs = not targets.load(request.target).cannot_run(request.host)
    return Workshop(
        target=targets.load(request.target if runs else STAND_IN),
        options=request.options if runs else {},
        timed=runs,
        host=request.host,
        inputs=request.onnx.manifest.inputs,
        outputs=request.onnx.manifest.outputs,
        threads=request.threads,
        precision=request.precision,
        yardstick=Yardstick(
            data=spread(request.data, request.spec.images) if request.data else None,
            task=task,
            labels=shared.labels,
            preprocess=shared.preprocess,
            size=request.size,
            decode=decode,
            inputs=inputs,
            wanted=wanted,
            judge=against,
        ),
    )


def _words(rung: Rung, max_drop: float | None, weights_only: bool, stopped: str) -> str:
    """Which graph was found, and what to do when it is not good enough."""
    layers = f"{rung.integer_layers} of {rung.layers} layers"
    layers += (
        " have their weights in 8 bits" if weights_only else f" in integers, {rung.method} ranges"
    )
    cut = cut_short(stopped)
    if rung.holds:
        return f"{layers}; {cut}" if cut else layers
    cost = f"fidelity {rung.fidelity:.3f}" if rung.drop is None else f"drops {rung.drop:.4f}"
    allowed = "" if rung.drop is None or max_drop is None else f", allowed {max_drop:.4f}"
    best = f"the best found ({layers}) {cost}{allowed}: "
    train = "train with quantization (QAT) and give the Q/DQ model as model.source"
    if cut:  # first let it end: what it has not tried may be good enough
        return f"{best}{cut}; if that does not help, {train}"
    return f"{best}{train}" + ("" if rung.drop is None else ", or widen budget.max_drop")


def _as_it_is(request: QuantizeRequest, refused: tuple[str, ...]) -> Quantized:
    """A graph that was quantized elsewhere: nothing to search, the same checks follow."""
    if refused:
        raise BuildError(
            f"this Q/DQ model would be misread by {request.target}: {refused[0]}",
            hint="export it for this runtime (TensorRT: symmetric INT8, float biases)",
        )
    rung = Rung(
        step="given", label="quantized elsewhere", method="given", integer_layers=0, layers=0,
        metric=None, drop=None, fidelity=None, ratio=None, ci95=None, size_bytes=None,
        elapsed_s=0.0, holds=True,
    )  # fmt: skip
    return Quantized(
        onnx=request.onnx, found=rung, holds=True, reason="quantized elsewhere, taken as it is",
        metric=_metric(request), reference=None, images=0, rungs=(rung,), sensitivity=(),
        nodes=(), float_layers=(), evaluations=0, stopped="", elapsed_s=0.0,
    )  # fmt: skip


def _statistics(store: LocalStore, calibration: Artifact | None) -> Any:
    """What calibration saw; nothing where activations stay as they are."""
    from engineworks.calibrate import collect

    if calibration is None:
        return collect.NOTHING
    return collect.load(store.entry(calibration))


def requantize(request: RequantizeRequest) -> Requantized:
    """Stage `requantize`."""
    from engineworks.calibrate import derive
    from engineworks.qdq import pairs
    from engineworks.qdq.graph import Graph

    store = LocalStore(Path(request.shared.store))
    rules = targets.int8_rules(request.target, request.host, request.precision)
    weights_only = rules.scheme.activation == "float"
    if not request.nodes or (request.calibration is None and not weights_only):
        return Requantized(onnx=request.onnx)
    graph = Graph(store.entry(request.onnx))
    statistics = _statistics(store, None if weights_only else request.calibration)
    missing = [name for name in request.nodes if name not in graph.nodes]
    unseen = not weights_only and not set(graph.observed) <= set(statistics.tensors)
    if missing or unseen:
        name = missing[0] if missing else "its activations"
        raise BuildError(
            f"the graph of this input size differs: {name!r} is not in both",
            hint="leave this size out of benchmark.sizes, or make a recipe of its own for it",
        )
    bounds = derive.derive(graph, statistics, request.method, rules.scheme)
    model = pairs.emit(graph, bounds, request.nodes, rules.scheme)
    if rules.rewrite is not None:
        rules.rewrite(model)
    details = {"method": request.method}
    artifact = _put(store, request, model, details)
    return Requantized(onnx=artifact)


def _put(
    store: LocalStore,
    request: QuantizeRequest | RequantizeRequest,
    model: Any,
    details: dict[str, Any],
) -> Artifact:
    import onnx

    manifest = request.onnx.manifest
    parents = (request.onnx, request.calibration) if request.calibration else (request.onnx,)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "model.onnx")
        onnx.save(model, str(path))
        return store.put(
            {"model.onnx": path},
            kind="onnx",
            name=request.shared.name,
            entry="model.onnx",
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            preprocess=manifest.preprocess,
            task=manifest.task,
            precision=request.precision,
            details={**manifest.details, "int8": details},
            provenance=provenance("quantize", request.shared, parents, "onnx"),
        )
