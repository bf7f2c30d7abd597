"""Stage `quantize`: search the integer graph of one target."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import targets, usercode
from engineworks.codec import digest, later, place
from engineworks.errors import BuildError, DataError
from engineworks.evaluate.datasets import sample_evenly
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.int8 import Quantized, Trial
from engineworks.facts.model import PinnedCode
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.search.journal import Journal
from engineworks.specs import (
    Int8Spec,
    Size,
)
from engineworks.stages import _kept as kept
from engineworks.stages._integers import put_graph, read_statistics
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore
from engineworks.verdict import cut_short

if TYPE_CHECKING:
    from engineworks.qdq.graph import Graph


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest:
    """Search one target's INT8 graph."""

    shared: Shared
    onnx: Artifact
    calibration: Artifact | None
    """None: only for a model that came quantized, and where only weights are packed."""
    reference: Artifact
    target: str
    options: dict[str, Any]
    precision: str = "int8"
    """One of `precisions.SEARCHED`."""
    spec: Int8Spec
    max_drop: float | None
    data: PinnedData | None
    samples: Artifact | None = later(default=None)
    """Images that judge what answers mean, where `data` has no labels."""
    size: Size
    threads: int
    tools: dict[str, str]
    host: HostCard
    """A search times candidates: its result belongs to this machine."""
    folder: str = place()
    """The recipe's, for its own decoder."""
    code: tuple[PinnedCode, ...] = place(default=())
    code_sha256: str
    journals: str = place()
    """Folder that keeps what interrupted searches have measured."""


#: Computes the Q/DQ graph of a target whose engines cannot be opened here.
STAND_IN = "onnxruntime-cpu"


def quantize(request: QuantizeRequest) -> Quantized:
    """Stage `quantize`."""
    from engineworks.qdq import accept
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
            f"calibration is missing: {request.target}/{request.precision} must see which values "
            "occur",
            hint="add calibration.images, a folder of at least 16 photos like those in use",
        )
    graph, workshop = _graph(request, path), _workshop(request, store)
    search = Search(
        graph=graph,
        statistics=read_statistics(store, None if weights_only else request.calibration),
        rules=rules,
        workshop=workshop,
        spec=request.spec,
        max_drop=request.max_drop,
        journal=_journal(request),
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
    data = workshop.scoring_set.data
    return Quantized(
        onnx=put_graph(store, request, model, {
            "method": chosen.method, "integer_layers": outcome.trial.integer_layers,
        }),
        chosen=outcome.trial,
        holds=outcome.trial.holds,
        reason=_words(outcome.trial, request.max_drop, weights_only, outcome.stopped)
        + ("" if workshop.timed else f"; simulated with {STAND_IN} in place of {request.target}"),
        metric=_metric(request),
        reference=outcome.reference,
        images=len(data.files) if data and outcome.reference is not None else 0,
        trials=outcome.trials,
        sensitivity=outcome.sensitivity,
        nodes=tuple(name for name in graph.nodes if name in chosen.nodes),
        float_layers=tuple(name for name in graph.computing if name not in chosen.nodes),
        evaluations=outcome.evaluations,
        stopped=outcome.stopped,
        elapsed_s=time.perf_counter() - started,
    )  # fmt: skip


def _graph(request: QuantizeRequest, path: Path) -> Graph:
    from engineworks.qdq.graph import Graph

    graph = Graph(path)
    if not graph.computing:
        raise BuildError(
            "the graph has no Conv, Gemm or MatMul with constant weights: nothing to quantize",
            hint=f"remove {request.precision} from this target",
        )
    return graph


def _journal(request: QuantizeRequest) -> Journal:
    """What was measured for this question before."""
    # A longer search goes on where a shorter one ended: its limits are no part of the name.
    limitless = dataclasses.replace(request.spec, limit_s=1.0, evaluations=1)
    key = digest(dataclasses.replace(request, spec=limitless))
    return Journal(Path(request.journals, f"{key}.jsonl"))


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
    from engineworks.search.trial import ScoringSet, Workshop

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
        scoring_set=ScoringSet(
            data=sample_evenly(request.data, request.spec.images) if request.data else None,
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


def _words(trial: Trial, max_drop: float | None, weights_only: bool, stopped: str) -> str:
    """Which graph was found, and what to do when it is not good enough."""
    layers = f"{trial.integer_layers} of {trial.layers} layers"
    layers += (
        " have their weights in 8 bits" if weights_only else f" in integers, {trial.method} ranges"
    )
    cut = cut_short(stopped)
    if trial.holds:
        return f"{layers}; {cut}" if cut else layers
    cost = f"agreement {trial.agreement:.3f}" if trial.drop is None else f"drops {trial.drop:.4f}"
    allowed = "" if trial.drop is None or max_drop is None else f", allowed {max_drop:.4f}"
    best = f"the best found ({layers}) {cost}{allowed}: "
    train = "train with quantization (QAT) and give the Q/DQ model as model.source"
    if cut:  # first let it end: what it has not tried may be good enough
        return f"{best}{cut}; if that does not help, {train}"
    return f"{best}{train}" + ("" if trial.drop is None else ", or widen budget.max_drop")


def _as_it_is(request: QuantizeRequest, refused: tuple[str, ...]) -> Quantized:
    """A graph that was quantized elsewhere: nothing to search, the same checks follow."""
    if refused:
        raise BuildError(
            f"this Q/DQ model would be misread by {request.target}: {refused[0]}",
            hint="export it for this runtime (TensorRT: symmetric INT8, float biases)",
        )
    trial = Trial(
        step="given", label="quantized elsewhere", method="given", integer_layers=0, layers=0,
        metric=None, drop=None, agreement=None, ratio=None, ci95=None, size_bytes=None,
        elapsed_s=0.0, holds=True,
    )  # fmt: skip
    return Quantized(
        onnx=request.onnx, chosen=trial, holds=True, reason="quantized elsewhere, taken as it is",
        metric=_metric(request), reference=None, images=0, trials=(trial,), sensitivity=(),
        nodes=(), float_layers=(), evaluations=0, stopped="", elapsed_s=0.0,
    )  # fmt: skip


STAGE = Stage(
    "quantize", quantize, QuantizeRequest, Quantized,
    ("onnx", "onnxruntime", "opencv-python-headless", "pycocotools"),
)  # fmt: skip
