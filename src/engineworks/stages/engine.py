"""The stages from an ONNX graph to a checked, timed engine."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import targets, usercode
from engineworks.evaluate import parity
from engineworks.facts.engine import Accuracy, Built, Checked, Meaning
from engineworks.facts.timing import Benchmark, Comparison
from engineworks.manifest import Manifest
from engineworks.specs import TaskSpec
from engineworks.stages import kept
from engineworks.stages.records import provenance, put_predictions
from engineworks.stages.requests import (
    BenchmarkRequest,
    BuildRequest,
    CheckRequest,
    CompareRequest,
    Shared,
)
from engineworks.store import LocalStore


def build(request: BuildRequest) -> Built:
    """Stage `build`."""
    from engineworks.targets._base import BuildInput

    started = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    target = targets.load(request.target)
    manifest = request.onnx.manifest
    with tempfile.TemporaryDirectory() as work:
        output = target.build(
            BuildInput(
                onnx=store.entry(request.onnx),
                inputs=manifest.inputs,
                outputs=manifest.outputs,
                precision=request.precision,
                options=request.options,
                host=request.builder,
                work=Path(work),
                reference=store.entry(request.reference) if request.reference else None,
                largest_batch=request.largest_batch or BuildInput.largest_batch,
                limit_s=request.limit_s,
            )
        )
        engine = store.put(
            output.files,
            kind="engine",
            name=shared.name,
            entry=output.entry,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            preprocess=shared.preprocess,
            task=_with_labels(shared),
            target=request.target,
            precision=request.precision,
            requires=output.requires,
            details=output.details,
            provenance=provenance("build", shared, (request.onnx,), *target.packages),
        )
    return Built(
        engine=engine,
        truth=output.truth,
        build_s=time.perf_counter() - started,
        whole_from_s=output.whole_from_s,
    )


def _with_labels(shared: Shared) -> TaskSpec:
    """The task with the names themselves: a device has no labels file."""
    return dataclasses.replace(shared.task, labels=shared.labels)


def check(request: CheckRequest) -> Checked:
    """Stage `check`."""
    from engineworks.evaluate import judge, meaning, tasks
    from engineworks.export import reference as references

    started = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    usercode.hold_to(request.code, Path(request.folder))
    inputs, wanted = references.load(store.entry(request.reference))
    manifest = request.engine.manifest
    batches = _batches(manifest, request.largest_batch)
    accuracy = predictions = difference = None
    with _opened(request, store) as infer:
        found = _meaning(request, store, infer, inputs)
        if request.value is None:
            limit, others = meaning.limits(manifest.precision, found)
        else:
            limit, others = parity.limit(manifest.precision, judged=True), {}
        agreed = parity.compare(infer, inputs, wanted, batches, limit, others)
        if request.data is not None and request.value is not None:
            metrics, results = judge.judge(
                infer, request.data, shared.task, shared.labels, shared.preprocess,
                request.size, judge.decoder(shared.task, Path(request.folder)),
            )  # fmt: skip
            accuracy = Accuracy(
                metric=request.metric,
                value=metrics[request.metric],
                reference=request.value,
                drop=request.value - metrics[request.metric],
                images=len(request.data.files),
                detail=metrics,
            )
            predictions = put_predictions(store, shared, results, "check", request.engine)
            differ = tasks.load(shared.task.kind).difference
            if differ is not None and request.float_predictions is not None:
                path = store.entry(request.float_predictions)
                difference = differ(json.loads(path.read_text()), results)
    return Checked(
        parity=agreed,
        accuracy=accuracy,
        predictions=predictions,
        meaning=found,
        difference=difference,
        replayed=request.replay,
        elapsed_s=time.perf_counter() - started,
    )


def _meaning(
    request: CheckRequest, store: LocalStore, infer: parity.Infer, inputs: np.ndarray[Any, Any]
) -> Meaning | None:
    """Whether answers mean what the source's do; None where a metric judges, or nothing rounds."""
    from engineworks.evaluate import judge, meaning
    from engineworks.export.torch_onnx import runner

    if request.float_onnx is None or request.value is not None:
        return None
    task, preprocess = request.shared.task, request.shared.preprocess
    against = meaning.Judge(
        runner(store.entry(request.float_onnx)),
        kept.rows(request.samples, store, preprocess, request.size, inputs),
        task,
        request.size,
        judge.decoder(task, Path(request.folder)),
    )
    return against.compare(against.answers(infer))


@contextmanager
def _opened(request: CheckRequest, store: LocalStore) -> Iterator[parity.Infer]:
    """What runs the engine: its own runtime, or ONNX Runtime with what the engine holds."""
    from engineworks.export.torch_onnx import runner
    from engineworks.runtime.session import open_engine

    manifest = request.engine.manifest
    if request.replay:
        with tempfile.TemporaryDirectory() as work:
            entry = store.entry(request.engine)
            replayed = targets.load(manifest.target).replayed
            assert replayed is not None  # noqa: S101 - who asks for a replay has looked
            run = runner(replayed(entry, Path(work, "replay.onnx")))
        yield lambda batch: _row_by_row(run, batch, manifest)
        return
    with open_engine(store.open(request.engine), threads=request.threads) as session:
        name = session.inputs[0].name

        def infer(batch: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
            answers = session.infer({name: np.ascontiguousarray(batch)})
            return {key: np.array(value) for key, value in answers.items()}

        yield infer


def _row_by_row(
    run: parity.Infer, batch: np.ndarray[Any, Any], manifest: Manifest
) -> dict[str, np.ndarray[Any, Any]]:
    """Answers of a graph whose batch is 1, under the engine's own names."""
    rows = [list(run(row[None]).values()) for row in batch]
    return {
        spec.name: np.concatenate([row[position] for row in rows])
        for position, spec in enumerate(manifest.outputs)
    }


def _batches(manifest: Manifest, largest: int) -> list[int]:
    """The smallest and the largest batch that both the recipe and the engine have."""
    if not manifest.dynamic_batch:
        return [1]
    return sorted(set(manifest.batches(largest)))


def benchmark(request: BenchmarkRequest) -> Benchmark:
    """Stage `benchmark`."""
    from engineworks.bench import matrix

    store = LocalStore(Path(request.store))
    engines = {
        sized.size: (store.open(sized.engine), sized.engine.manifest) for sized in request.engines
    }
    return matrix.run(engines, request.spec, tuple(request.tools))


def compare(request: CompareRequest) -> Comparison:
    """Stage `compare`."""
    from engineworks.bench import compare as duel

    store = LocalStore(Path(request.store))
    engines = {
        named.variant: (store.open(named.engine), named.engine.manifest)
        for named in request.engines
    }
    return duel.run(engines, request.size, request.threads)
