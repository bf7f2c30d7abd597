"""Stage `check`: an engine held against the source model."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import targets, usercode
from engineworks.codec import later, place
from engineworks.evaluate import parity
from engineworks.facts.data import PinnedData
from engineworks.facts.engine import Accuracy, Checked, Meaning
from engineworks.facts.host import HostCard
from engineworks.facts.model import PinnedCode
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact, Manifest
from engineworks.specs import (
    Size,
)
from engineworks.stages import _kept as kept
from engineworks.stages._records import put_predictions
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """Parity and task metric of one engine."""

    shared: Shared
    engine: Artifact
    reference: Artifact
    metric: str
    value: float | None
    """The source model's own score."""
    data: PinnedData | None
    size: Size
    largest_batch: int
    float_predictions: Artifact | None
    """The source model's answers, to tell object by object what changed."""
    float_onnx: Artifact | None = later(default=None)
    """The graph before it was quantized. Where no labels judge, its answers stand for them."""
    samples: Artifact | None = later(default=None)
    """Images for that; without them the inputs of `reference` are used."""
    folder: str = place()
    code: tuple[PinnedCode, ...] = place(default=())
    code_sha256: str
    threads: int
    tools: dict[str, str]
    host: HostCard
    replay: bool = False
    """Run what the engine holds with ONNX Runtime: its own runtime is not on this host."""


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
        judged = _meaning(request, store, infer, inputs)
        if request.value is None:
            limit, others = meaning.limits(manifest.precision, judged)
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
        meaning=judged,
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


STAGE = Stage("check", check, CheckRequest, Checked, ("opencv-python-headless", "pycocotools"))
