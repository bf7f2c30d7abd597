"""Judging detection: COCO's AP, objects lost, gained and moved, photos with boxes.

Boxes come from COCO JSON or YOLO labels (`annotations/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.evaluate import agreement, chance, cocoeval, frames, photo_scores
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.answers import answers, refuse_other_count, refuse_unnamed
from engineworks.evaluate.box_album import BoxAlbum
from engineworks.evaluate.photo_scores import PhotoScores
from engineworks.evaluate.pictures import Album
from engineworks.evaluate.precision import sides
from engineworks.evaluate.readings import DetectionReader, Reader
from engineworks.evaluate.recognize import Layout
from engineworks.evaluate.renaming import of_boxes
from engineworks.evaluate.tasks._base import (
    Infer,
    Labels,
    Predictions,
    Question,
    Task,
)
from engineworks.facts.data import BadImage, Chance, Frames, PinnedData, Suspect
from engineworks.runtime.convert import to_coco
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads import Decoder
from engineworks.runtime.heads.detection import LAYOUTS
from engineworks.specs import DataSpec, Size, TaskSpec

Array = np.ndarray[Any, Any]

#: Name of the share of images with more objects than `max_detections`; there only when above 0.
CUT = "cut_share"

#: Detections below this confidence do not count for how sure the model is.
SEEN = 0.3


def read_truth(
    spec: DataSpec, task: TaskSpec, labels: Labels, files: Sequence[str], chosen: bool
) -> tuple[truths.BoxTruth, list[BadImage]]:
    """See `Task`."""
    return truths.read_boxes(spec, labels, files, chosen=chosen)


def judge(infer: Infer, question: Question) -> tuple[dict[str, float], Predictions]:
    """See `Task`: COCO's AP, and COCO results."""
    truth = _boxes(question.data, question.labels)
    results: Predictions = []
    cut = 0
    for name, detections in answers(infer, question):
        if len(detections):
            refuse_unnamed(int(detections.class_id.max()), len(truth.category_id))
        cut += detections.cut
        results += to_coco(detections, truth.image_id[name], truth.category_id)
    ids = [truth.image_id[name] for name in question.data.files]
    metrics = cocoeval.score(results, truth, ids, question.task.max_detections)
    if cut:
        metrics[CUT] = cut / len(ids)
    return metrics, results


def _boxes(data: PinnedData, labels: Labels) -> CocoLabels:
    return read_coco(Path(data.spec.annotations or ""), labels)


def check_outputs(task: TaskSpec, labels: Labels, outputs: Mapping[str, Array]) -> None:
    """See `Task`."""
    layout = LAYOUTS.get(task.layout)
    if layout is None or layout.classes is None:
        return
    try:
        shown = layout.classes({name: value[0] for name, value in outputs.items()})
    except (ValueError, IndexError):
        return  # not this layout: decoding says what is wrong
    refuse_other_count(shown, labels, task.layout)


def certainty(detections: Detections) -> float:
    """See `Task`: the summed confidence of what is detected."""
    return float(detections.confidence[detections.confidence > SEEN].sum())


def evidence(predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels) -> Chance:
    """See `Task`."""
    truth = _boxes(data, labels)
    return chance.of_detection(predictions, truth, [truth.image_id[name] for name in data.files])


def scores_by_photo(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> PhotoScores:
    """See `Task`."""
    truth = _boxes(data, labels)
    return photo_scores.of_objects(
        predictions, truth, [truth.image_id[name] for name in data.files]
    )


def readers(
    seen: Mapping[str, Array], task: TaskSpec, size: Size, decode: Decoder | None
) -> tuple[Reader, ...]:
    """See `Task`."""
    if decode is None and task.layout not in LAYOUTS:
        return ()
    layout = Layout(
        name=task.layout, sure="given", why="the recipe's layout", outputs=tuple(seen), arrange=dict
    )
    reader = DetectionReader(layout=layout, decode=decode or LAYOUTS[task.layout].decode, size=size)
    return (reader,)


def renamed(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> list[Suspect]:
    """See `Task`."""
    truth = _boxes(data, labels)
    answered, known = sides(predictions, truth, [truth.image_id[name] for name in data.files])
    return of_boxes(answered, known, truth)


def telling(data: PinnedData, labels: Labels) -> tuple[str, ...]:
    """See `Task`: photos with a box."""
    truth = _boxes(data, labels)
    boxed = {row["image_id"] for row in truth.raw["annotations"]}
    return tuple(name for name in data.files if truth.image_id[name] in boxed)


def turned_frames(predictions: Predictions, data: PinnedData, labels: Labels) -> Frames | None:
    """See `Task`."""
    return frames.compare(predictions, _boxes(data, labels), data) if data.turned else None


def album(data: PinnedData, truth: Path | None, task: TaskSpec, labels: Labels) -> Album | None:
    """See `Task`."""
    return BoxAlbum.open(data, truth) if truth is not None else None


TASK = Task(
    metric="AP",
    truth=read_truth,
    judge=judge,
    evidence=evidence,
    photo_scores=scores_by_photo,
    agreement=agreement.score,
    difference=agreement.difference,
    check_outputs=check_outputs,
    certainty=certainty,
    readers=readers,
    renamed=renamed,
    telling=telling,
    frames=turned_frames,
    album=album,
)
