"""Judging classification: top-1 and top-5, images that change class.

The true class of an image is the folder that it lies in.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import DataError, InputError, ModelError, RecipeError
from engineworks.evaluate import chance, datasets, photo_scores, scores
from engineworks.evaluate.photo_scores import PhotoScores
from engineworks.evaluate.pictures import (
    TILES,
    Change,
    Gallery,
    GalleryPicture,
    GalleryWords,
    tile,
)
from engineworks.evaluate.readings import ClassReader, Reader, ScoreReader
from engineworks.evaluate.renaming import of_classes
from engineworks.evaluate.tasks._base import (
    GalleryRequest,
    Infer,
    Labels,
    Look,
    Predictions,
    Question,
    Task,
    Truth,
)
from engineworks.facts.data import BadImage, Chance, PinnedData, Suspect
from engineworks.runtime.heads import Decoder
from engineworks.runtime.heads.classification import Classification
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.scores import confidences
from engineworks.specs import DataSpec, Preprocess, Size, TaskSpec

Array = np.ndarray[Any, Any]


def check(task: TaskSpec, labels: Labels, preprocess: Preprocess) -> None:
    """See `Task`."""
    if not labels:
        raise RecipeError(
            "task.labels is empty: a classification needs the class names",
            hint="give a list of names or a text file, in the model's order",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTruth:
    """Classes by folder; see `Truth`."""

    labels: Labels
    kept: bool = False

    def names(self, file: str) -> bool:
        """Every image lies in a folder, which must be one of the labels."""
        class_of(file, self.labels)
        return True

    def look(self, file: str, image: Array, stored: bytes, frame: str | None) -> Look:
        """Any picture will do."""
        return Look()

    def turned(self, numbers: Mapping[str, int]) -> Truth:
        """A class has no way up."""
        return self

    def objects(self, files: Sequence[str]) -> int:
        """One class an image."""
        return len(files)

    def notes(self, digests: Mapping[str, str]) -> tuple[str, ...]:
        """Which classes cannot be judged, and which images are of two classes."""
        seen = {class_of(name, self.labels) for name in digests}
        without = [name for number, name in enumerate(self.labels) if name and number not in seen]
        torn = self._torn(digests)
        said = []
        if without:
            names = datasets.some(without)
            said.append(f"{len(without)} of {len(self.labels)} labels have no picture: {names}")
        if torn:
            said.append(
                f"{len(torn)} images lie in the folders of two classes, one of which any model "
                f"gets wrong: {datasets.some(torn)}"
            )
        return tuple(said)

    def _torn(self, digests: Mapping[str, str]) -> list[str]:
        """Images that lie in the folders of two classes, byte for byte the same."""
        first: dict[str, str] = {}
        pairs = [(first.setdefault(sha256, name), name) for name, sha256 in digests.items()]
        return [
            f"{earlier} = {other}"
            for earlier, other in pairs
            if earlier != other and class_of(earlier, self.labels) != class_of(other, self.labels)
        ]

    def save(self, path: Path) -> None:
        """The files' names hold it."""


def read_truth(
    spec: DataSpec, task: TaskSpec, labels: Labels, files: Sequence[str], chosen: bool
) -> tuple[ClassTruth, list[BadImage]]:
    """See `Task`."""
    return ClassTruth(labels=labels), []


def class_of(name: str, labels: Labels) -> int:
    """The class of an image, by its folder.

    Raises:
        DataError: That is none of the labels.
    """
    folder = _spelled(name.partition("/")[0]) if "/" in name else ""
    number = _numbers(labels).get(folder)
    if number is None:
        raise DataError(
            f"data.images: {name} lies in folder {folder!r}, which is none of the "
            f"{len(labels)} labels",
            hint=f"one folder per class, named as in task.labels: {', '.join(labels[:5])}, ...",
        )
    return number


@functools.lru_cache(maxsize=8)
def _numbers(labels: Labels) -> dict[str, int]:
    return {_spelled(label): number for number, label in enumerate(labels) if label}


def _spelled(name: str) -> str:
    """A name as one sees it: macOS writes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def class_ids(data: PinnedData, labels: Labels) -> Array:
    """Class index of every image, int64 (n,)."""
    return np.array([class_of(name, labels) for name in data.files], np.int64)


def answers(outputs: Mapping[str, Array], labels: int) -> Array:
    """The class scores (n, classes) among a model's outputs.

    Raises:
        ModelError: There is not exactly one output, or it does not fit the labels.
    """
    if len(outputs) != 1:
        raise ModelError(
            f"a classifier has one output, this model has {len(outputs)}: {sorted(outputs)}",
            hint="use task.kind: none, or a model with one output of class scores",
        )
    (scored,) = outputs.values()
    scored = scored.reshape(len(scored), -1)
    if scored.shape[1] != labels:
        raise ModelError(
            f"the model scores {scored.shape[1]} classes, task.labels names {labels}",
            hint="give one label per class, in the model's order",
        )
    return scored


def score(scored: Array, truth: Array) -> dict[str, float]:
    """Share of images whose true class is the best, or among the best five.

    Args:
        scored: (n, classes).
        truth: int (n,), true class indices.
    """
    order = np.argsort(-scored, axis=1, kind="stable")
    hits = order == truth[:, None]
    return {
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits[:, :5].any(axis=1).mean()),
    }


def judge(infer: Infer, question: Question) -> tuple[dict[str, float], Predictions]:
    """See `Task`: predictions are [file, class index, confidence]."""
    prepare = Preprocessor(question.preprocess, question.size)
    data, labels = question.data, question.labels
    scored = np.concatenate(
        [answers(infer(prepare(image)[0][None]), len(labels)) for image in datasets.images(data)]
    )
    best = scored.argmax(axis=1)
    sure = confidences(scored, question.task.scores)
    predictions = [
        [name, int(index), float(row[index])]
        for name, index, row in zip(data.files, best, sure, strict=True)
    ]
    return score(scored, class_ids(data, labels)), predictions


def settle(task: TaskSpec, labels: Labels, infer: Infer, inputs: Array) -> TaskSpec:
    """See `Task`: the word for what the scores are, found out or confirmed."""
    answers(infer(inputs[:1]), len(labels))
    return dataclasses.replace(task, scores=scores.settle(task.scores, scores.probe(infer, inputs)))


def agreement_score(reference: Predictions, predictions: Predictions) -> float:
    """See `Task`: the share of equal classes, less where scores differ."""
    shares = []
    for (_, class_id, mine), (_, other_id, other) in zip(reference, predictions, strict=True):
        apart = abs(mine - other) / max(abs(mine), abs(other), 1e-9)
        shares.append(1.0 - 0.5 * min(1.0, apart) if class_id == other_id else 0.0)
    return float(np.mean(shares)) if shares else 1.0


def certainty(classification: Classification) -> float:
    """See `Task`: the confidence of the best class."""
    return float(classification.confidence[0])


def evidence(predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels) -> Chance:
    """See `Task`."""
    return chance.of_classification(predictions, class_ids(data, labels))


def scores_by_photo(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> PhotoScores:
    """See `Task`."""
    class_of_file = {row[0]: row[1] for row in predictions}
    answered = np.array([class_of_file[name] for name in data.files], np.int64)
    return photo_scores.of_classes(answered, class_ids(data, labels))


def renamed(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> list[Suspect]:
    """See `Task`."""
    return of_classes(predictions, class_ids(data, labels), labels)


def readers(
    seen: Mapping[str, Array], task: TaskSpec, size: Size, decode: Decoder | None
) -> tuple[Reader, ...]:
    """See `Task`."""
    if len(seen) != 1:
        return ()
    names, why = tuple(seen), "the recipe's task"
    if task.scores in ("independent", "independent_logits"):
        return (ScoreReader(outputs=names, sure="given", why=why, scores=task.scores),)
    return (ClassReader(outputs=names, sure="given", why=why, scores=task.scores),)


def gallery(request: GalleryRequest) -> Gallery:
    """See `Task`: images that changed class; where none did, some that are mistaken by both."""
    labels = request.labels

    def word(index: int) -> str:
        return labels[index] if index < len(labels) else f"class {index}"

    before = {file: (word(index), score) for file, index, score in request.source}
    by_variant = {
        variant: {file: (word(index), score) for file, index, score in predictions}
        for variant, predictions in request.answers.items()
    }
    changes = tuple(_change(v, before, after, bool(labels)) for v, after in by_variant.items())
    wanted = [(change.variant, file) for change in changes for file in change.files]
    chosen = next(iter(by_variant))
    if not wanted and labels:
        mistaken = [file for file, (name, _) in before.items() if name != _folder(file)]
        step = max(1, math.ceil(len(mistaken) / TILES))
        wanted = [(chosen, file) for file in mistaken[::step]]
    shown: list[GalleryPicture] = []
    missing = 0
    for variant, file in wanted:
        if len(shown) == TILES:
            break
        try:
            image = tile(datasets.read(request.data, file))
        except (DataError, InputError):
            missing += 1
            continue
        shown.append(
            GalleryPicture(
                file=file,
                note=_folder(file),
                variant=variant,
                before=image,
                before_text="{} {:.2f}".format(*before[file]),
                after_text="{} {:.2f}".format(*by_variant[variant][file]),
            )
        )
    return Gallery(
        words=GalleryWords(
            lead="What changes for single images when an engine replaces the source model.",
            columns=("right, source", "right, variant", "newly wrong", "newly right"),
        ),
        pairs=False,
        variant=chosen,
        pictures=tuple(shown),
        changes=changes,
        missing=missing,
    )


_Named = Mapping[str, tuple[str, float]]


def _change(variant: str, before: _Named, after: _Named, known: bool) -> Change:
    was = {file for file, (name, _) in before.items() if name == _folder(file)}
    now = {file for file, (name, _) in after.items() if name == _folder(file)}
    return Change(
        variant=variant,
        before=len(was) if known else None,
        after=len(now) if known else None,
        lost=len(was - now) if known else None,
        gained=len(now - was) if known else None,
        files=tuple(file for file in after if file in before and before[file][0] != after[file][0]),
    )


def _folder(file: str) -> str:
    """The true class: an image lies in its class's folder."""
    return file.partition("/")[0]


TASK = Task(
    metric="top1",
    check=check,
    truth=read_truth,
    judge=judge,
    settle=settle,
    evidence=evidence,
    photo_scores=scores_by_photo,
    agreement=agreement_score,
    certainty=certainty,
    renamed=renamed,
    readers=readers,
    gallery=gallery,
)
