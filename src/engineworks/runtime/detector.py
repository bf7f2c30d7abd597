"""`Detector` and `Classifier`: images in, typed answers out, all by the engine's manifest.

Knows no files, streams or tracks. A call does the three steps one after another; a pipeline calls
`prepare`, `infer` and `finish` itself, on threads of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

import numpy as np

from engineworks.errors import ArtifactError, FeedError
from engineworks.manifest import Manifest, TensorSpec
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads import Decoder
from engineworks.runtime.planes import Planes
from engineworks.runtime.postprocess import DetectionPostprocessor
from engineworks.runtime.preprocess import Placement, Preprocessor
from engineworks.runtime.scores import ASSUMED, confidences
from engineworks.runtime.session import Session, Tensors
from engineworks.specs import Preprocess, ScoreKind, Size, TaskSpec

_log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Where the time of one call went, in milliseconds for all of its images together."""

    preprocess_ms: float
    infer_ms: float
    postprocess_ms: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The best classes of one image.

    Attributes:
        class_id: int64 (k,), index into the model's labels, best first.
        confidence: float32 (k,) in 0..1, highest first. They sum to 1 over all classes, unless
            the model's labels do not exclude each other (`task.scores`).
    """

    class_id: Array
    confidence: Array


class _ImageModel(ABC, Generic[Answer]):
    """What detectors and classifiers share: the way in, the engine, batches, times.

    Threads may share one: `prepare` and `finish` run side by side, inference runs one at a time.
    Everything that is returned belongs to the caller and is not touched again.
    """

    _kind: str

    def __init__(self, session: Session, *, max_batch: int = 8) -> None:
        if not hasattr(session, "manifest"):
            raise FeedError(
                f"{type(self).__name__} is given {type(session).__name__}, which is no open engine",
                hint="give what engineworks.runtime.open(folder) returns",
            )
        manifest = session.manifest
        if max_batch < 1:
            raise FeedError(
                f"max_batch: {max_batch} images are no batch", hint="give 1 or more, for example 8"
            )
        self.session = session
        self.task = _task(manifest, self._kind)
        self.size, uint8 = image_input(manifest)
        self.labels = self.task.labels if isinstance(self.task.labels, tuple) else ()
        self.times = StageTimes(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0, images=0)
        batch = manifest.inputs[0].shape[0]
        self._fixed = batch if isinstance(batch, int) else None
        self.batch = self._fixed or max_batch
        self._preprocess = Preprocessor(_preprocess(manifest), self.size, uint8=uint8)
        self._input = manifest.inputs[0].name
        self._lock = threading.RLock()
        self._rows = np.empty((0, *self._preprocess.shape), self._preprocess.dtype)

    def label(self, class_id: int) -> str:
        """The name of a class; its number where the model names none."""
        return self.labels[class_id] if 0 <= class_id < len(self.labels) else str(class_id)

    @overload
    def __call__(self, images: Array | Planes) -> Answer: ...

    @overload
    def __call__(self, images: Sequence[Array | Planes]) -> list[Answer]: ...

    def __call__(self, images: Array | Planes | Sequence[Array | Planes]) -> Answer | list[Answer]:
        """Answer for one image, or for each of several.

        Args:
            images: uint8 (height, width, 3) BGR or a video's planes, or a sequence of such, of any
                sizes. More than `batch` images run in several batches.

        Raises:
            DataError: One of them is no image.
            FeedError: What is given is neither an image nor a sequence.
        """
        if isinstance(images, Planes):
            return self._run([images])[0]
        if not isinstance(images, Iterable):
            raise FeedError(
                f"{type(self).__name__} is given {type(images).__name__}, which is neither an "
                "image nor a sequence of images",
                hint="give uint8 (height, width, 3) arrays, as engineworks.runtime.read_image does",
            )
        if isinstance(images, np.ndarray) and images.ndim != 4:
            return self._run([images])[0]
        return self._run(list(images))

    def _run(self, images: list[Array | Planes]) -> list[Answer]:
        answers: list[Answer] = []
        spent = [0.0, 0.0, 0.0]
        with self._lock:
            for first in range(0, len(images), self.batch):
                chunk = images[first : first + self.batch]
                clock = [time.perf_counter()]
                rows = self._buffer(len(chunk))
                placements = [
                    self.prepare(image, row)[1] for image, row in zip(chunk, rows, strict=False)
                ]
                clock.append(time.perf_counter())
                outputs = self.session.infer({self._input: rows})
                clock.append(time.perf_counter())
                for position, placement in enumerate(placements):
                    row = {name: array[position] for name, array in outputs.items()}
                    answers.append(self.finish(row, placement))
                clock.append(time.perf_counter())
                for stage in range(3):
                    spent[stage] += (clock[stage + 1] - clock[stage]) * 1e3
            self.times = StageTimes(
                preprocess_ms=spent[0],
                infer_ms=spent[1],
                postprocess_ms=spent[2],
                images=len(images),
            )
        return answers

    def _buffer(self, rows: int) -> Array:
        """Rows for the engine; one of fixed batch gets all of its rows, the last ones unused."""
        wanted = self._fixed or rows
        if len(self._rows) < wanted:
            self._rows = np.zeros((wanted, *self._preprocess.shape), self._preprocess.dtype)
        return self._rows[:wanted]

    def prepare(self, image: Array | Planes, out: Array | None = None) -> tuple[Array, Placement]:
        """One image to one row of the engine's input: `Preprocessor.__call__`."""
        return self._preprocess(image, out)

    def infer(self, rows: Array | Sequence[Array]) -> list[Tensors]:
        """Run the engine.

        Args:
            rows: Rows of `prepare`: (n, ...) or a sequence of n. They may come from several
                streams; more than `batch` run in several batches.

        Returns:
            For each row its outputs by name, without the batch dimension. They stay valid.

        Raises:
            FeedError: They are no rows of `prepare`.
        """
        if not isinstance(rows, np.ndarray | Sequence):
            raise FeedError(
                f"rows are {type(rows).__name__}, neither an array nor a sequence of arrays",
                hint="give what prepare returns, row by row",
            )
        answers: list[Tensors] = []
        for first in range(0, len(rows), self.batch):
            batch = _stacked(rows[first : first + self.batch])
            n = len(batch)
            if n < (self._fixed or n):
                padded = np.zeros((self.batch, *batch.shape[1:]), batch.dtype)
                padded[:n] = batch
                batch = padded
            with self._lock:
                outputs = self.session.infer({self._input: batch})
                if self.session.reuses_outputs:
                    outputs = {name: array[:n].copy() for name, array in outputs.items()}
            answers += [{name: array[i] for name, array in outputs.items()} for i in range(n)]
        return answers

    @abstractmethod
    def finish(self, outputs: Tensors, placement: Placement) -> Answer:
        """The answer for one row of `infer`."""


class Detector(_ImageModel[Detections]):
    """Finds objects.

    Args:
        session: An open engine of a detection model.
        confidence: Drop detections below this score; None: as the manifest says, which is often
            as low as average precision wants it.
        iou: Drop a box that overlaps a stronger one of its class by more than this; None: as the
            manifest says. What average precision wants (0.65) leaves doubles on a picture, for
            which 0.45 is usual. Heads that end with finished boxes take no notice.
        max_detections: Keep at most this many, the strongest; None: as the manifest says. When it
            cuts, `Detections.cut` says so, and a warning the first time.
        decoder: The decoder of a layout `module:function`, whose code is in no engine.
        max_batch: Images per inference where the engine's batch is open.

    Raises:
        ArtifactError: The engine is no detector, or its manifest does not say all that is needed.
    """

    _kind = "detection"

    def __init__(
        self,
        session: Session,
        *,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        decoder: Decoder | None = None,
        max_batch: int = 8,
    ) -> None:
        super().__init__(session, max_batch=max_batch)
        task = self.task
        self.task = replace(
            task,
            confidence=task.confidence if confidence is None else confidence,
            iou=task.iou if iou is None else iou,
            max_detections=task.max_detections if max_detections is None else max_detections,
        )
        self._told = False
        if ":" in self.task.layout and decoder is None:
            raise ArtifactError(
                f"{session.manifest.name} has a layout of its own, {self.task.layout}, and an "
                "engine holds no code",
                hint="load that function and give it: Detector(session, decoder=...)",
            )
        self._finish = DetectionPostprocessor(self.task, self.size, decoder)

    def finish(self, outputs: Tensors, placement: Placement) -> Detections:
        """Decode, suppress, back to source pixels.

        Raises:
            ArtifactError: The outputs are not what the manifest's layout says.
        """
        try:
            found = self._finish(outputs, placement)
        except (ValueError, IndexError) as error:
            shapes = {name: list(array.shape) for name, array in outputs.items()}
            raise ArtifactError(
                f"{self.session.manifest.name}: task.layout {self.task.layout} cannot decode "
                f"outputs of shape {shapes} ({error})",
                hint="build the engine from a recipe with the layout of its head",
            ) from error
        if found.cut and not self._told:
            self._told = True
            _log.warning(
                "%s: more than max_detections = %d objects above %g; only the strongest are kept "
                "(--max-detections, Detector(max_detections=), task.max_detections)",
                self.session.manifest.name, self.task.max_detections, self.task.confidence,
            )  # fmt: skip
        return found


class Classifier(_ImageModel[Classification]):
    """Names what a whole image shows.

    Args:
        session: An open engine of a classification model: one output of scores or logits.
        top: How many classes to name.
        scores: What the engine's scores are; None: as the manifest says. One that does not say is
            taken to give logits, with a warning.
        max_batch: Images per inference where the engine's batch is open.

    Raises:
        ArtifactError: The engine is no classifier, or its manifest does not say all that is
            needed.
    """

    _kind = "classification"

    def __init__(
        self,
        session: Session,
        *,
        top: int = 5,
        scores: ScoreKind | None = None,
        max_batch: int = 8,
    ) -> None:
        super().__init__(session, max_batch=max_batch)
        if len(session.outputs) != 1:
            raise ArtifactError(
                f"a classifier has one output, {session.manifest.name} has "
                f"{len(session.outputs)}: {[spec.name for spec in session.outputs]}",
                hint="export a model with one output of class scores",
            )
        self._top = top
        self._scores = scores or self.task.scores
        if self._scores == "auto":
            self._scores = ASSUMED
            _log.warning(
                "%s does not say what its scores are: %s are assumed; give Classifier(scores=...), "
                "or build the engine anew",
                session.manifest.name, ASSUMED,
            )  # fmt: skip

    def finish(self, outputs: Tensors, placement: Placement) -> Classification:
        """The best classes, by the manifest's word for what the scores are."""
        (scores,) = outputs.values()
        found = confidences(scores.reshape(-1), self._scores)
        best = np.argsort(-found, kind="stable")[: self._top]
        return Classification(class_id=best.astype(np.int64), confidence=found[best])


def _stacked(rows: Array | Sequence[Array]) -> Array:
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows[0])[None] if len(rows) == 1 else np.stack(rows)


def _lacks(manifest: Manifest, what: str) -> ArtifactError:
    return ArtifactError(
        f"{manifest.name} {what}",
        hint="build the engine from a recipe with preprocess and task, see docs/recipe.md",
    )


def _task(manifest: Manifest, kind: str) -> TaskSpec:
    if manifest.task is None or manifest.task.kind != kind:
        found = manifest.task.kind if manifest.task else "none"
        raise ArtifactError(
            f"{manifest.name} is an engine for the task {found}, not {kind}",
            hint="Detector runs engines for detection, Classifier those for classification; any "
            "engine runs by session.infer",
        )
    return manifest.task


def _preprocess(manifest: Manifest) -> Preprocess:
    if manifest.preprocess is None:
        raise _lacks(manifest, "does not say how an image becomes its input")
    return manifest.preprocess


def image_input(manifest: Manifest) -> tuple[Size, bool]:
    """(height, width) of the one image input, and whether it takes uint8 pixels as they are.

    float32 (batch, channels, height, width) is fed normalised planes; uint8 (batch, height, width,
    3) means that the graph itself does colour order, scale, mean and std.
    """
    if len(manifest.inputs) != 1:
        raise _lacks(manifest, f"has {len(manifest.inputs)} inputs, not one image")
    spec: TensorSpec = manifest.inputs[0]
    if spec.dtype == "uint8" and len(spec.shape) == 4 and spec.shape[3] == 3:
        height, width = spec.shape[1:3]
    elif spec.dtype == "float32" and len(spec.shape) == 4 and spec.shape[1] in (1, 3):
        height, width = spec.shape[2:]
    else:
        raise _lacks(manifest, f"takes {spec.dtype} {list(spec.shape)}, which is no image")
    if isinstance(height, str) or isinstance(width, str):
        raise _lacks(manifest, f"leaves the input size open: {list(spec.shape)}")
    return (height, width), spec.dtype == "uint8"
