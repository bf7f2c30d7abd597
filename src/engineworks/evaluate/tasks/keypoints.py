"""Judging keypoints: COCO's AP over OKS, objects whose points are lost, gained and moved.

Known objects come from COCO JSON with `keypoints`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import DataError, RecipeError
from engineworks.evaluate import agreement, chance, cocoeval, photo_scores, pictures, seen
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.answers import answers, refuse_other_count, refuse_unnamed
from engineworks.evaluate.box_album import BoxAlbum
from engineworks.evaluate.oks import BETWEEN_MODELS, COCO_SIGMAS, between, oks
from engineworks.evaluate.photo_scores import PhotoScores
from engineworks.evaluate.pictures import Album, Differ, GalleryWords
from engineworks.evaluate.readings import Reader
from engineworks.evaluate.recognize import Sure
from engineworks.evaluate.seen import Judged, Seen
from engineworks.evaluate.tasks._base import Infer, Labels, Predictions, Question, Task
from engineworks.facts.data import BadImage, Chance, PinnedData
from engineworks.facts.engine import DetectionDiff
from engineworks.runtime.convert import to_coco
from engineworks.runtime.drawing import limbs
from engineworks.runtime.heads import Decoder
from engineworks.runtime.heads.keypoints import (
    COCO_NAMES,
    DRAWN,
    Poses,
    candidates,
    names_of,
    skeleton_of,
)
from engineworks.specs import DataSpec, Preprocess, Size, TaskSpec

Array = np.ndarray[Any, Any]

#: Name of the share of images with more objects than `max_detections`; there only when above 0.
CUT = "cut_share"

#: Objects below this confidence do not count for how sure the model is.
SEEN = 0.3

#: Least mean similarity of points between the source's objects and an engine's.
ALIKE = 0.85


def sigmas_of(task: TaskSpec) -> tuple[float, ...]:
    """The spread of each point in OKS.

    Raises:
        RecipeError: The points are not COCO's, and the recipe says nothing of their spread.
    """
    given = task.options.get("sigmas")
    if given is not None:
        return tuple(map(float, given))
    names = names_of(task.options)
    if names != COCO_NAMES:
        raise RecipeError(
            f"task.options: sigmas are missing: OKS wants the spread of each of {len(names)} "
            "points, and only COCO's 17 have known ones",
            hint=f"give one for each, for example sigmas: [{', '.join(['0.05'] * len(names))}]",
        )
    return COCO_SIGMAS


def check(task: TaskSpec, labels: Labels, preprocess: Preprocess) -> None:
    """See `Task`."""
    sigmas_of(task)


def _count(task: TaskSpec) -> int:
    return len(names_of(task.options))


def read_truth(
    spec: DataSpec, task: TaskSpec, labels: Labels, files: Sequence[str], chosen: bool
) -> tuple[truths.BoxTruth, list[BadImage]]:
    """See `Task`.

    Raises:
        DataError: No COCO JSON with these points.
    """
    truth, bad = truths.read_boxes(spec, labels, files, chosen=chosen, points=_count(task))
    names = list(names_of(task.options))
    for row in truth.labels.raw["categories"]:
        if row["keypoints"] and row["keypoints"] != names:
            raise DataError(
                f"data.annotations: category {row['name']!r} has the points "
                f"{', '.join(row['keypoints'])}, the model {', '.join(names)}",
                hint="give the model's points in its order as task.options.names, and annotations "
                "with the same ones",
            )
    rows = truth.labels.raw["annotations"]
    if not any(row["num_keypoints"] and not row["iscrowd"] for row in rows):
        raise DataError(
            f"data.annotations: {spec.annotations} has no object with a labelled point",
            hint="give annotations with keypoints, for example person_keypoints_val2017.json",
        )
    return truth, bad


def _objects(data: PinnedData, task: TaskSpec, labels: Labels) -> CocoLabels:
    return read_coco(Path(data.spec.annotations or ""), labels, points=_count(task))


def judge(infer: Infer, question: Question) -> tuple[dict[str, float], Predictions]:
    """See `Task`: COCO's AP over OKS, and COCO results with keypoints."""
    task = question.task
    truth = _objects(question.data, task, question.labels)
    results: Predictions = []
    cut = 0
    for name, poses in answers(infer, question):
        if len(poses):
            refuse_unnamed(int(poses.class_id.max()), len(truth.category_id))
        cut += poses.cut
        rows = to_coco(poses, truth.image_id[name], truth.category_id)
        points = poses.points.reshape(len(poses), -1).tolist()
        results += [{**row, "keypoints": places} for row, places in zip(rows, points, strict=True)]
    ids = [truth.image_id[name] for name in question.data.files]
    metrics = cocoeval.score(results, truth, ids, task.max_detections, sigmas_of(task))
    if cut:
        metrics[CUT] = cut / len(ids)
    return metrics, results


def check_outputs(task: TaskSpec, labels: Labels, outputs: Mapping[str, Array]) -> None:
    """See `Task`: `yolov8_pose` has a row for each class."""
    if task.layout != "yolov8_pose" or len(outputs) != 1:
        return
    (array,) = outputs.values()
    if array.ndim == 3 and array.shape[1] > 4 + 3 * _count(task):
        refuse_other_count(array.shape[1] - 4 - 3 * _count(task), labels, task.layout)


def certainty(poses: Poses) -> float:
    """See `Task`: the summed confidence of what is found."""
    return float(poses.confidence[poses.confidence > SEEN].sum())


def evidence(predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels) -> Chance:
    """See `Task`."""
    truth = _objects(data, task, labels)
    ids = [truth.image_id[name] for name in data.files]
    return chance.of_detection(predictions, truth, ids, sigmas_of(task))


def scores_by_photo(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> PhotoScores:
    """See `Task`."""
    truth = _objects(data, task, labels)
    ids = [truth.image_id[name] for name in data.files]
    return photo_scores.of_objects(predictions, truth, ids, sigmas_of(task))


def telling(data: PinnedData, labels: Labels) -> tuple[str, ...]:
    """See `Task`: photos with an object."""
    truth = read_coco(Path(data.spec.annotations or ""), labels)
    there = {row["image_id"] for row in truth.raw["annotations"]}
    return tuple(name for name in data.files if truth.image_id[name] in there)


def agreement_score(reference: Predictions, predictions: Predictions) -> float:
    """See `Task`."""
    return agreement.score(reference, predictions, between)


def difference(reference: Predictions, predictions: Predictions) -> DetectionDiff:
    """See `Task`: an object has moved when its points have."""
    return agreement.difference(reference, predictions, between)


@dataclass(frozen=True, kw_only=True)
class PoseReader:
    """Objects and where their points are; see `readings.Reader`."""

    task: TaskSpec
    size: Size
    decode: Decoder | None
    outputs: tuple[str, ...]
    sure: Sure = "given"
    why: str = "the recipe's layout"
    kind: str = "detections"

    def read(self, outputs: Mapping[str, Array]) -> tuple[Seen, Array]:
        """Objects as boxes, and the points (kept, k, 3) of those that suppression leaves."""
        boxes = seen.read(outputs, self._boxes, self.size)
        points: list[Array] = []
        xyxy, _, _, places = candidates(self.task, self.size, self.decode, outputs, seen.FLOOR)
        for index in boxes.kept:
            # The same candidate: boxes are told apart by their corners.
            apart = np.abs(xyxy - boxes.xyxy[index]).sum(axis=1)
            points.append(places[int(apart.argmin())])
        return boxes, np.array(points, np.float64).reshape(len(points), -1, 3)

    def _boxes(self, outputs: Mapping[str, Array], size: Size, least: float) -> Any:
        return candidates(self.task, size, self.decode, outputs, least)[:3]

    def compare(
        self, want: Sequence[tuple[Seen, Array]], got: Sequence[tuple[Seen, Array]]
    ) -> Judged:
        """Objects as a detection has them; and how alike the points of those are that both see."""
        judged = seen.compare([picture for picture, _ in want], [picture for picture, _ in got])
        alike = np.concatenate([_alike(mine, other) for mine, other in zip(want, got, strict=True)])
        mean = float(alike.mean()) if len(alike) else 1.0
        reasons = judged.reasons
        if judged.judged and mean < ALIKE:
            reasons += (f"points are {mean:.2f} alike (OKS, at least {ALIKE:g})",)
        return Judged(
            judged=judged.judged, reasons=reasons, figures={**judged.figures, "OKS": mean},
            agreement=judged.agreement * mean,
        )  # fmt: skip


def _alike(mine: tuple[Seen, Array], other: tuple[Seen, Array]) -> Array:
    """Similarity of the points of each object that is sure to its nearest on the other side."""
    (left, places), (right, others) = mine, other
    sure = left.score[left.kept] >= SEEN
    if not sure.any() or not len(right.kept):
        return np.zeros(0)
    boxes = left.xyxy[left.kept][sure]
    truth = places[sure].copy()
    truth[..., 2] = truth[..., 2] >= DRAWN
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    spread = np.full(truth.shape[1], BETWEEN_MODELS)
    shared = oks(others, truth, area, spread).max(axis=0)
    return np.asarray(shared[(truth[..., 2] > 0).any(axis=1)])


def readers(
    outputs: Mapping[str, Array], task: TaskSpec, size: Size, decode: Decoder | None
) -> tuple[Reader, ...]:
    """See `Task`."""
    return (PoseReader(task=task, size=size, decode=decode, outputs=tuple(outputs)),)


class PoseAlbum(BoxAlbum):
    """Objects with their points."""

    words = GalleryWords(
        lead=f"Objects with a score of at least {agreement.VISIBLE}. Two of one class whose points "
        f"are at least {agreement.SAME} alike (OKS with a spread of {BETWEEN_MODELS}) are the same "
        "object.",
        columns=("objects, source", "objects, variant", "lost", "gained"),
        legend="A thin green box is found by both; a thick orange one by that side only.",
    )
    skeleton: tuple[tuple[int, int], ...] = ()

    def differ(self, before: list[Any], after: list[Any]) -> Differ:
        """See `Album`."""
        return agreement.unmatched(before, after, between)

    def draw(self, image: Array, things: list[Any], alone: AbstractSet[int]) -> Array:
        """See `Album`."""
        canvas = pictures.boxes(image, things, alone, self.categories)
        scale = canvas.shape[1] / image.shape[1]
        points = np.array([entry["keypoints"] for entry in things], np.float64)
        points = points.reshape(len(things), -1, 3) * (scale, scale, 1.0)
        limbs(canvas, points, self.skeleton, DRAWN, range(len(things)))
        return canvas


def album(data: PinnedData, truth: Path | None, task: TaskSpec, labels: Labels) -> Album | None:
    """See `Task`."""
    if truth is None:
        return None
    pose_album = PoseAlbum(data, read_coco(truth, ()))
    pose_album.skeleton = skeleton_of(task.options)
    return pose_album


TASK = Task(
    metric="AP",
    check=check,
    truth=read_truth,
    judge=judge,
    check_outputs=check_outputs,
    evidence=evidence,
    photo_scores=scores_by_photo,
    agreement=agreement_score,
    difference=difference,
    certainty=certainty,
    telling=telling,
    readers=readers,
    album=album,
)
