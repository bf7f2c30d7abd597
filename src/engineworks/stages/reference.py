"""Stage `reference`: the source model's own answers, the truth for all engines."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import usercode
from engineworks.codec import later
from engineworks.facts.data import Chance, Frames, PinnedData
from engineworks.facts.model import (
    PinnedModel,
    Reference,
)
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact, TensorSpec
from engineworks.specs import (
    Preprocess,
    Size,
    TaskSpec,
)
from engineworks.stages._records import provenance, put_predictions
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class ReferenceRequest:
    """Run the source model: its answers on samples, its score on the data."""

    shared: Shared
    model: PinnedModel
    data: PinnedData | None
    size: Size
    score: bool
    """Whether to run the task metric too, not only the samples."""
    samples: PinnedData | None = later(default=None)
    """Images like those in use, where there is no data."""


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

    chance = suspects.evidence(answers, request.data, shared.task, shared.labels)
    if chance.word != "near zero":
        return chance
    return suspects.explain(
        chance, answers, request.data, shared.task, shared.labels, shared.preprocess, score
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

    data = request.data or request.samples
    return min(ROWS, len(data.files)) if data is not None else ROWS


def _samples(request: ReferenceRequest) -> Iterator[np.ndarray[Any, Any]]:
    """(channels, height, width) float32 each: the first images, some others, pictures made here.

    Without the user's images the pictures are all there is.
    """
    from engineworks.evaluate import datasets
    from engineworks.export import audible
    from engineworks.export.reference import ROWS
    from engineworks.runtime.preprocess import Preprocessor

    prepare = Preprocessor(request.shared.preprocess, request.size)
    data = request.data or request.samples
    if data is not None:
        first = dataclasses.replace(data, files=data.files[:ROWS])
        rest = dataclasses.replace(data, files=data.files[ROWS:])
        for part in (first, datasets.sample_evenly(rest, audible.TRIES)):
            for image in datasets.images(part):
                yield prepare(image)[0]
    for image in audible.pictures(request.size):
        yield prepare(image)[0]


def _tensor(name: str, array: np.ndarray[Any, Any]) -> TensorSpec:
    return TensorSpec(name=name, dtype=array.dtype.name, shape=("batch", *array.shape[1:]))


STAGE = Stage(
    "reference", reference, ReferenceRequest, Reference,
    ("torch", "onnxruntime", "opencv-python-headless", "pycocotools"),
)  # fmt: skip
