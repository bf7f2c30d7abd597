"""The stages from data and source model to an analysed ONNX graph."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import child, targets, usercode
from engineworks.errors import EngineworksError, said
from engineworks.facts.data import Chance, Frames, PinnedData
from engineworks.facts.model import Analysis, Exported, Reference, Simplified
from engineworks.manifest import Artifact, TensorSpec
from engineworks.specs import Preprocess, TaskSpec
from engineworks.stages.records import provenance, put_predictions
from engineworks.stages.requests import (
    AnalyzeRequest,
    ExportRequest,
    ReferenceRequest,
    ScreenRequest,
    Shared,
    SimplifyRequest,
)
from engineworks.store import LocalStore

log = logging.getLogger(__name__)


def screen(request: ScreenRequest) -> PinnedData:
    """Stage `screen`."""
    from engineworks.evaluate import datasets, pinned
    from engineworks.evaluate.annotations import truth
    from engineworks.evaluate.tasks import Truth

    shared, store = request.shared, LocalStore(Path(request.shared.store))

    def keep(labels: Truth) -> Artifact:
        with tempfile.TemporaryDirectory() as work:
            path = Path(work, datasets.ANNOTATIONS)
            truth.write(labels, path)
            return store.put(
                {path.name: path}, kind="annotations", name=shared.name, entry=path.name,
                provenance=provenance("screen", shared, ()),
            )  # fmt: skip

    with pinned.settled(request.data, request.answers, store) as spec:
        found = datasets.screen(
            spec, shared.task, shared.labels, keep,
            digests=request.digests or None, answers=request.answers,
        )  # fmt: skip
    return dataclasses.replace(found, spec=request.data)


def reference(request: ReferenceRequest) -> Reference:
    """Stage `reference`: raises before anything costly when the model cannot be used."""
    from engineworks.evaluate import judge, tasks
    from engineworks.export import audible, sources
    from engineworks.export import reference as references
    from engineworks.export.source import open_source

    started = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    stored = request.model.stored
    samples = _samples(request)
    first = next(samples)
    usercode.hold_to(request.model.code, Path(request.model.folder))
    with sources.settled(request.model, store) as model:
        source = open_source(model, first[None])
        inputs, outputs, heard = audible.choose(
            source.infer, itertools.chain([first], samples), _rows(request)
        )
    judge.check_labels(shared.task, shared.labels, outputs)
    shared = _settled(shared, source.infer, inputs)
    scored = _score(request, shared, store, source.infer)
    metric = tasks.metric(shared.task)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, references.FILE)
        references.save(path, inputs, outputs)
        artifact = store.put(
            {references.FILE: path},
            kind="reference",
            name=shared.name,
            entry=references.FILE,
            inputs=(_tensor(request.model.spec.input.name, inputs),),
            outputs=tuple(_tensor(name, answer) for name, answer in outputs.items()),
            preprocess=shared.preprocess,
            task=shared.task,
            provenance=provenance(
                "reference",
                shared,
                (stored,) if stored else (),
                "torch",
                "onnxruntime",
                "numpy",
            ),
        )
    return Reference(
        artifact=artifact,
        predictions=scored.predictions,
        metric=metric,
        value=scored.metrics.get(metric),
        images=len(request.data.files) if request.data and scored.metrics else 0,
        detail=scored.metrics,
        outputs=source.outputs,
        scores=shared.task.scores,
        chance=scored.chance,
        frames=scored.frames,
        note="; ".join(filter(None, (source.note, heard))),
        elapsed_s=time.perf_counter() - started,
    )


def _chance(
    request: ReferenceRequest, shared: Shared, infer: Callable[..., Any], answers: list[Any]
) -> Chance:
    """Whether the model's answers are better than chance, and if not, what may be wrong."""
    from engineworks.evaluate import judge, suspects

    assert request.data is not None  # noqa: S101 - the caller has scored it

    def score(task: TaskSpec, preprocess: Preprocess, data: PinnedData) -> list[Any]:
        decode = judge.decoder(task, Path(request.model.folder))
        return judge.judge(
            infer, data, task, shared.labels, preprocess, request.size, decode
        )[1]  # fmt: skip

    found = suspects.evidence(answers, request.data, shared.task, shared.labels)
    if found.word != "near zero":
        return found
    return suspects.explain(
        found, answers, request.data, shared.task, shared.labels, shared.preprocess, score
    )


def _settled(shared: Shared, infer: Callable[..., Any], inputs: np.ndarray[Any, Any]) -> Shared:
    """With what the recipe leaves open, found out on the model, or what it says confirmed."""
    from engineworks.evaluate import tasks

    task = shared.task
    if not task.judged:
        return shared
    settled = tasks.load(task.kind).settle(task, shared.labels, infer, inputs)
    return dataclasses.replace(shared, task=settled)


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """What the source model has shown on the data."""

    metrics: dict[str, float] = field(default_factory=dict)
    predictions: Artifact | None = None
    chance: Chance | None = None
    frames: Frames | None = None


def _score(request: ReferenceRequest, shared: Shared, store: LocalStore, infer: Any) -> _Scored:
    """Run the source model on the data; nothing where no score is wanted."""
    from engineworks.evaluate import judge

    if not request.score or request.data is None or not shared.task.judged:
        return _Scored()
    decode = judge.decoder(shared.task, Path(request.model.folder))
    metrics, answers = judge.judge(
        infer, request.data, shared.task, shared.labels, shared.preprocess, request.size, decode
    )
    return _Scored(
        metrics=metrics,
        predictions=put_predictions(store, shared, answers, "reference", None),
        chance=_chance(request, shared, infer, answers),
        frames=_frames(request.data, shared, answers),
    )


def _frames(data: PinnedData, shared: Shared, answers: list[Any]) -> Frames | None:
    from engineworks.evaluate import tasks

    return tasks.load(shared.task.kind).frames(answers, data, shared.labels)


def _rows(request: ReferenceRequest) -> int:
    """How many inputs are kept: of the user's images where there are any."""
    from engineworks.export.reference import ROWS

    return min(ROWS, len(request.data.files)) if request.data is not None else ROWS


def _samples(request: ReferenceRequest) -> Iterator[np.ndarray[Any, Any]]:
    """(channels, height, width) float32 each: the first images, some others, pictures made here.

    Without data the pictures are all there is.
    """
    from engineworks.evaluate import datasets
    from engineworks.export import audible
    from engineworks.export.reference import ROWS
    from engineworks.runtime.preprocess import Preprocessor

    prepare = Preprocessor(request.shared.preprocess, request.size)
    if request.data is not None:
        data = request.data
        first = dataclasses.replace(data, files=data.files[:ROWS])
        rest = dataclasses.replace(data, files=data.files[ROWS:])
        for part in (first, datasets.spread(rest, audible.TRIES)):
            for image in datasets.images(part):
                yield prepare(image)[0]
    for image in audible.pictures(request.size):
        yield prepare(image)[0]


def _tensor(name: str, array: np.ndarray[Any, Any]) -> TensorSpec:
    return TensorSpec(name=name, dtype=array.dtype.name, shape=("batch", *array.shape[1:]))


def export(request: ExportRequest) -> Exported:
    """Stage `export`."""
    from engineworks.export import reference as references
    from engineworks.export import sources, torch_onnx
    from engineworks.export.source import open_source

    shared, store = request.shared, LocalStore(Path(request.shared.store))
    inputs, wanted = references.load(store.entry(request.reference))
    usercode.hold_to(request.model.code, Path(request.model.folder))
    with sources.settled(request.model, store) as model, tempfile.TemporaryDirectory() as work:
        source = open_source(model, inputs[:1])
        kept = torch_onnx.export(source, model, request.spec, inputs, wanted, Path(work))
        tensors_in, tensors_out, opset = torch_onnx.signature(kept.path)
        artifact = store.put(
            {"model.onnx": kept.path},
            kind="onnx",
            name=shared.name,
            entry="model.onnx",
            inputs=tensors_in,
            outputs=tensors_out,
            preprocess=shared.preprocess,
            task=shared.task,
            details={"opset": opset, "exporter": kept.chosen},
            provenance=provenance(
                "export", shared, (request.reference,), "torch", "onnx", "onnxscript"
            ),
        )
    return Exported(
        onnx=artifact,
        chosen=kept.chosen,
        reason=kept.reason,
        opset=opset,
        attempts=kept.attempts,
    )


def simplify(request: SimplifyRequest) -> Simplified:
    """Stage `simplify`: whatever goes wrong, the run goes on with the graph it had."""
    from engineworks.export import reference as references
    from engineworks.export import simplify as simplifier
    from engineworks.qdq import accept

    shared, store = request.shared, LocalStore(Path(request.shared.store))
    before = store.entry(request.onnx)
    inputs, wanted = references.load(store.entry(request.reference))
    with tempfile.TemporaryDirectory() as work:
        after = Path(work, "model.onnx")
        reason, largest = "", None
        if accept.is_quantized(accept.load(before)):
            # onnxsim would fold DequantizeLinear of weights back into floats.
            reason = "a Q/DQ graph is left as it is"
        try:
            if not reason:
                child.run(
                    "onnxsim",
                    {"source": str(before), "target": str(after)},
                    folder=Path(request.folder, "onnxsim"),
                    limit_s=request.limit_s,
                )
        except EngineworksError as error:
            reason = f"onnxsim failed: {said(error.message)}"
        if not reason:
            reason, largest = simplifier.doubt(before, after, inputs, wanted, request.tolerance)
        nodes, size = simplifier.node_count(before), before.stat().st_size
        nodes_after, size_after = nodes, size
        if largest is not None and not reason:
            nodes_after, size_after = simplifier.node_count(after), after.stat().st_size
            if nodes_after >= nodes:
                reason = f"it removed nothing ({nodes} nodes before, {nodes_after} after)"
        kept = not reason
        artifact = request.onnx
        if kept:
            manifest = request.onnx.manifest
            artifact = store.put(
                {"model.onnx": after},
                kind="onnx",
                name=shared.name,
                entry="model.onnx",
                inputs=manifest.inputs,
                outputs=manifest.outputs,
                preprocess=manifest.preprocess,
                task=manifest.task,
                details={**manifest.details, "simplified": True},
                provenance=provenance("simplify", shared, (request.onnx,), "onnx", "onnxsim"),
            )
    return Simplified(
        onnx=artifact,
        kept=kept,
        reason=reason or "agrees with the model on real inputs",
        nodes_before=nodes,
        nodes_after=nodes_after,
        size_before_bytes=size,
        size_after_bytes=size_after,
        max_abs_diff=largest,
    )


def onnxsim(request: dict[str, str]) -> dict[str, str]:
    """Part of `simplify`: the call that may crash."""
    from engineworks.export.simplify import simplify_file

    simplify_file(Path(request["source"]), Path(request["target"]))
    return {}


def analyze(request: AnalyzeRequest) -> Analysis:
    """Stage `analyze`."""
    from engineworks.export import analyze as statistics

    path = LocalStore(Path(request.store)).entry(request.onnx)
    lacking = {name: _ask(request, name, path) for name in request.targets}
    try:
        return statistics.analyze(path, request.size, lacking)
    except Exception as error:
        log.exception("the graph was not counted")
        return statistics.nothing(f"nothing was counted: {said(error)}", lacking)


def _ask(request: AnalyzeRequest, target: str, path: Path) -> tuple[str, ...]:
    """What a target lacks, asked in a process of its own: one vendor's crash sinks no other."""
    try:
        answer = child.run(
            "lacking",
            {"target": target, "onnx": str(path)},
            folder=Path(request.folder, target),
            limit_s=request.limit_s,
        )
    except EngineworksError as error:
        return (f"unknown: {said(error.message)}",)
    return tuple(answer["value"]["operators"])


def lacking(request: dict[str, str]) -> dict[str, list[str]]:
    """Part of `analyze`: a vendor's own answer."""
    return {"operators": list(targets.load(request["target"]).lacking(Path(request["onnx"])))}
