"""`Predictor`: images in, typed answers out, all by the engine's manifest and its task's head.

Knows no kind of task, no files, streams or tracks. A call does the three steps one after another; a
pipeline calls `prepare`, `infer` and `finish` itself, on threads of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar, overload

import numpy as np

from engineworks.errors import ArtifactError, FeedError
from engineworks.manifest import Manifest, TensorSpec
from engineworks.runtime import heads
from engineworks.runtime.heads import Decoder, Head
from engineworks.runtime.planes import Planes
from engineworks.runtime.preprocess import Placement, Preprocessor
from engineworks.runtime.session import Session, Tensors
from engineworks.specs import NO_TASK, Preprocess, Size, TaskSpec

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


class Predictor(Generic[Answer]):
    """Runs an engine on images, whatever its task is: the way in, batches, the head, times.

    Threads may share one: `prepare` and `finish` run side by side, inference runs one at a time.
    Everything that is returned belongs to the caller and is not touched again.

    Args:
        session: An open engine whose manifest names a task.
        decoder: The decoder of a layout `module:function`, whose code is in no engine.
        max_batch: Images per inference where the engine's batch is open.
        settings: What the head lets a caller set (`Head.settings`), for example `confidence`;
            None: as the manifest says.

    Raises:
        ArtifactError: The engine has no task, or one that is not known here, or its manifest does
            not say all that is needed.
        FeedError: A setting that this task does not have.
    """

    kind = ""
    """The task that a subclass is for; empty: any."""

    def __init__(
        self,
        session: Session,
        *,
        decoder: Decoder | None = None,
        max_batch: int = 8,
        **settings: Any,
    ) -> None:
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
        task = _task(manifest, self.kind)
        self.head = heads.load(task.kind)
        self.task = _set(task, self.head, settings)
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
        self._told = False
        if self.head.own_decoder and ":" in self.task.layout and decoder is None:
            raise ArtifactError(
                f"{manifest.name} has a layout of its own, {self.task.layout}, and an "
                "engine holds no code",
                hint=f"load that function and give it: {type(self).__name__}(session, decoder=...)",
            )
        try:
            self._finish = self.head.open(self.task, self.size, decoder)
        except ValueError as error:
            raise _lacks(manifest, f"has a task that cannot be decoded: {error}") from error

    def label(self, class_id: int) -> str:
        """The name of a class; its number where the model names none."""
        return heads.label(self.task, class_id)

    def to_json(self, answer: Answer) -> dict[str, Any]:
        """An answer as plain JSON types, with the names of classes."""
        return self.head.to_json(answer, self.task)

    def lines(self, answer: Answer) -> list[str]:
        """An answer in words, a line for each thing that was found."""
        return self.head.lines(answer, self.task)

    def count(self, answer: Answer) -> dict[str, int]:
        """How often each class was found."""
        return self.head.count(answer, self.task)

    def draw(self, picture: Array | Planes, answer: Answer, overlay: str | None = None) -> None:
        """Draw an answer into its picture, in place.

        Args:
            picture: uint8 (height, width, 3) BGR, or the planes of a video's frame.
            answer: In pixels of this picture.
            overlay: Words for the upper left corner.

        Raises:
            FeedError: Answers of this task cannot be drawn.
        """
        if self.head.draw is None:
            raise FeedError(
                f"answers of the task {self.task.kind} are not drawn",
                hint="take them as text: --json, or Predictor.to_json",
            )
        self.head.draw(picture, answer, self.task, overlay)

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

    def finish(self, outputs: Tensors, placement: Placement) -> Answer:
        """The answer for one row of `infer`, in pixels of the source image.

        Raises:
            ArtifactError: The outputs are not what the manifest's task says.
        """
        try:
            answer: Answer = self._finish(outputs, placement)
        except (ValueError, IndexError) as error:
            shapes = {name: list(array.shape) for name, array in outputs.items()}
            raise ArtifactError(
                f"{self.session.manifest.name}: {_said(self.task, self.head)} cannot decode "
                f"outputs of shape {shapes} ({error})",
                hint="build the engine from a recipe with the layout of its head",
            ) from error
        if getattr(answer, "cut", False) and not self._told:
            self._told = True
            _log.warning(
                "%s: more than max_detections = %d objects above %g; only the strongest are kept "
                "(--max-detections, Detector(max_detections=), task.max_detections)",
                self.session.manifest.name, self.task.max_detections, self.task.confidence,
            )  # fmt: skip
        return answer


def _said(task: TaskSpec, head: Head) -> str:
    return f"task.layout {task.layout}" if head.layouts else f"the task {task.kind}"


def _set(task: TaskSpec, head: Head, settings: Mapping[str, Any]) -> TaskSpec:
    """The task with a caller's settings in the place of the manifest's."""
    given = {name: value for name, value in settings.items() if value is not None}
    unknown = [name for name in given if name not in head.settings]
    if unknown:
        raise FeedError(
            f"the task {task.kind} has no setting {unknown[0]!r}",
            hint=f"it has: {', '.join(head.settings) or 'none'}",
        )
    names = {entry.name for entry in fields(TaskSpec)}
    options = {name: value for name, value in given.items() if name not in names}
    changed = {name: value for name, value in given.items() if name in names}
    return replace(task, **changed, options={**task.options, **options})


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
    task = manifest.task
    if task is None or not task.judged or kind not in ("", task.kind):
        raise ArtifactError(
            f"{manifest.name} is an engine for the task {task.kind if task else NO_TASK}, not "
            f"{kind or 'for one that is known'}",
            hint="Predictor runs engines of any task, Detector and Classifier those for detection "
            "and classification; any engine runs by session.infer",
        )
    return task


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
