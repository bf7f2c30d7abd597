"""What a task's file holds. Knows no kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from engineworks.facts.data import BadImage, Chance, Frames, PinnedData, Suspect
from engineworks.facts.engine import DetectionDiff
from engineworks.runtime.heads import Decoder
from engineworks.specs import DataSpec, Preprocess, Size, TaskSpec

if TYPE_CHECKING:
    from engineworks.evaluate.photo_scores import PhotoScores
    from engineworks.evaluate.pictures import Album, Gallery
    from engineworks.evaluate.readings import Reader

Array = np.ndarray[Any, Any]
Labels = tuple[str, ...]

#: (1, channels, height, width) float32 -> outputs by name, batch dimension first.
Infer = Callable[[Array], Mapping[str, Array]]

#: Answers to all images as `predictions.json` keeps them; rows of plain JSON types.
Predictions = list[Any]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Images with known answers, and how they are put to a model."""

    data: PinnedData
    task: TaskSpec
    labels: Labels
    """Class names in index order."""
    preprocess: Preprocess
    size: Size
    """Input (height, width)."""
    decode: Decoder | None = None
    """The recipe's own decoder, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What decoding one image beside its answer has shown."""

    reason: str = ""
    """Why it cannot be used."""
    as_stored: bool = False
    """Whether that is only because its answer is of the picture before it was turned upright."""
    orientation: int = 1
    """EXIF's number, of an image with an answer that the decoder has turned."""


class Truth(Protocol):
    """The known answers of a data set, as they were read."""

    @property
    def kept(self) -> bool:
        """Whether later stages read what `save` writes; else they see it by the files' names."""
        ...

    def names(self, file: str) -> bool:
        """Whether there is an answer for this image."""
        ...

    def look(self, file: str, image: Array, stored: bytes, frame: str | None) -> Look:
        """Hold an answer against its decoded image; `stored` are the bytes of the file."""
        ...

    def turned(self, numbers: Mapping[str, int]) -> Truth:
        """The answers of pictures that EXIF turns (file -> its number), turned with them."""
        ...

    def objects(self, files: Sequence[str]) -> int:
        """How many things are labelled on these images.

        Raises:
            DataError: Nothing that counts.
        """
        ...

    def notes(self, digests: Mapping[str, str]) -> tuple[str, ...]:
        """What was left out, merged or matched to read it, in words.

        Args:
            digests: sha256 of the images that are used, by name.
        """
        ...

    def save(self, path: Path) -> None:
        """Write it as JSON, for later stages."""
        ...


def _nothing_to_check(task: TaskSpec, labels: Labels, preprocess: Preprocess) -> None:
    return None


def _any_outputs(task: TaskSpec, labels: Labels, outputs: Mapping[str, Array]) -> None:
    return None


def _as_it_is(task: TaskSpec, labels: Labels, infer: Infer, inputs: Array) -> TaskSpec:
    return task


def _no_readers(
    seen: Mapping[str, Array], task: TaskSpec, size: Size, decode: Decoder | None
) -> tuple[Reader, ...]:
    return ()


def _no_suspects(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> list[Suspect]:
    return []


def _all_files(data: PinnedData, labels: Labels) -> tuple[str, ...]:
    return data.files


def _no_frames(predictions: Predictions, data: PinnedData, labels: Labels) -> Frames | None:
    return None


@dataclass(frozen=True, kw_only=True)
class GalleryRequest:
    """What the report shows pictures of."""

    data: PinnedData
    task: TaskSpec
    labels: Labels
    source: Predictions
    """Of the source model."""
    answers: Mapping[str, Predictions]
    """Of each variant, the one to ship first."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything that is to be known of judging a kind of task: `TASK` of its file.

    What a device does with its outputs is in the head of the same name (`runtime/heads/`).
    """

    metric: str
    """Name of the metric that the budget's `max_drop` speaks of; larger is better."""
    truth: Callable[[DataSpec, TaskSpec, Labels, Sequence[str], bool], tuple[Truth, list[BadImage]]]
    """The data check: (data, task, labels, all image files, whether those were listed by hand) ->
    (answers, images that cannot be used). Raises DataError."""
    judge: Callable[[Infer, Question], tuple[dict[str, float], Predictions]]
    """The score: metrics by name, `metric` among them, and the answers. Raises ModelError when
    outputs are not what the task says."""
    evidence: Callable[[Predictions, PinnedData, TaskSpec, Labels], Chance]
    """Whether these answers are better than chance on this data."""
    agreement: Callable[[Predictions, Predictions], float]
    """Agreement in 0..1 with the float model's answers (first), smooth where a metric jumps."""
    photo_scores: Callable[[Predictions, PinnedData, TaskSpec, Labels], PhotoScores] | None = None
    """The metric on any part of the photos, by which two versions are compared; None: a promotion
    cannot judge their accuracy."""
    difference: Callable[[Predictions, Predictions], DetectionDiff] | None = None
    """What another model sees differently from the float model (first), for the report."""
    album: Callable[[PinnedData, Path | None, TaskSpec, Labels], Album | None] | None = None
    """Answers as they are drawn into photos of the report: (data, what `Truth.save` wrote or None
    where it is gone, task, labels). Raises DataError when the known answers cannot be read."""
    gallery: Callable[[GalleryRequest], Gallery | None] | None = None
    """The report's photos, where two large ones side by side do not fit; without `album`."""
    check: Callable[[TaskSpec, Labels, Preprocess], None] = _nothing_to_check
    """Rules of the recipe beyond the head's own: raises RecipeError."""
    check_outputs: Callable[[TaskSpec, Labels, Mapping[str, Array]], None] = _any_outputs
    """Hold the labels against outputs of the model, (n, ...) each: raises ModelError."""
    settle: Callable[[TaskSpec, Labels, Infer, Array], TaskSpec] = _as_it_is
    """What the recipe leaves open, found out on the source model and some inputs, once."""
    certainty: Callable[[Any], float] | None = None
    """How sure a head's answer is, to compare colour orders; None: it does not say."""
    readers: Callable[[Mapping[str, Array], TaskSpec, Size, Decoder | None], tuple[Reader, ...]] = (
        _no_readers
    )
    """How outputs are read where no labels judge them: (what the source answered, (n, ...) by
    name; task; input size; own decoder)."""
    renamed: Callable[[Predictions, PinnedData, TaskSpec, Labels], list[Suspect]] = _no_suspects
    """Right answers under other names, where a model scores near zero."""
    telling: Callable[[PinnedData, Labels], tuple[str, ...]] = _all_files
    """The images on which a few are worth trying: those that have something on them."""
    counts: Callable[[PinnedData, TaskSpec, Labels], dict[str, int]] | None = None
    """Labelled things by class name, of calibration images that have annotations; None: boxes."""
    frames: Callable[[Predictions, PinnedData, Labels], Frames | None] = _no_frames
    """Whether answers were drawn on pictures as they are stored, by what the source finds."""
