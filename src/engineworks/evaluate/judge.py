"""Runs a model over the data and scores it: the source model and every engine the same way.

Preprocessing and postprocessing are the runtime's own, by the specs that travel in the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import usercode, userfiles
from engineworks.errors import InputError, ModelError
from engineworks.evaluate import classification, datasets, detection
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.facts.data import PinnedData
from engineworks.runtime.convert import to_coco
from engineworks.runtime.heads import HEADS, Decoder
from engineworks.runtime.postprocess import DetectionPostprocessor
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.scores import confidences
from engineworks.specs import Preprocess, Size, TaskSpec

Array = np.ndarray[Any, Any]
Infer = Callable[[Array], Mapping[str, Array]]

#: Name of the metric that the budget's max_drop speaks of.
METRIC = {"detection": "AP", "classification": "top1", "none": ""}

#: Name of the share of images with more objects than `max_detections`; there only when above 0.
CUT = "cut_share"


def decoder(task: TaskSpec, folder: Path) -> Decoder | None:
    """The recipe's own decoder, or None for a built-in layout."""
    if task.kind != "detection" or task.layout in HEADS:
        return None
    with userfiles.noted(folder):
        found: Decoder = usercode.load(task.layout, folder, "task.layout")
    return found


def judge(
    infer: Infer,
    data: PinnedData,
    task: TaskSpec,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    size: Size,
    decode: Decoder | None,
) -> tuple[dict[str, float], list[Any]]:
    """Score a model on all images, one at a time.

    Args:
        infer: (1, channels, height, width) float32 -> outputs by name, batch dimension first.
        data: Images and labels.
        task: What the outputs mean.
        labels: Class names in index order.
        preprocess: How images become input.
        size: Input (height, width).
        decode: The recipe's own decoder, if it has one.

    Returns:
        (metrics by name, predictions: COCO results, or [file, class index, confidence]).

    Raises:
        ModelError: The outputs are not what the task's layout says.
    """
    if task.kind == "detection":
        return _judge_detection(infer, data, task, labels, preprocess, size, decode)
    return _judge_classification(infer, data, task, labels, preprocess, size)


def _judge_detection(
    infer: Infer,
    data: PinnedData,
    task: TaskSpec,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    size: Size,
    decode: Decoder | None,
) -> tuple[dict[str, float], list[Any]]:
    truth = read_coco(Path(data.spec.annotations or ""), labels)
    prepare = Preprocessor(preprocess, size)
    finish = DetectionPostprocessor(task, size, decode)
    results: list[Any] = []
    cut = 0
    for name, image in zip(data.files, datasets.images(data), strict=True):
        row, placement = prepare(image)
        outputs = {key: value[0] for key, value in infer(row[None]).items()}
        try:
            found = finish(outputs, placement)
        except InputError:
            raise  # the decoder's code was replaced
        except Exception as error:
            shapes = {key: value.shape for key, value in outputs.items()}
            raise ModelError(
                f"task.layout {task.layout!r} cannot decode outputs of shape {shapes}: "
                f"{type(error).__name__}: {error}",
                hint="the stage's log.txt has the line in your decoder; see docs/recipe.md, "
                "'Your own decoder'"
                if decode
                else f"use the layout of this model's head ({', '.join(HEADS)}) or your own "
                "module:function, see docs/recipe.md",
            ) from error
        if len(found) and found.class_id.max() >= len(truth.category_id):
            raise ModelError(
                f"the model found class {int(found.class_id.max())}, but only "
                f"{len(truth.category_id)} classes are named",
                hint="give task.labels for every class of the model, in its order",
            )
        cut += found.cut
        results += to_coco(found, truth.image_id[name], truth.category_id)
    metrics = detection.score(results, truth, _ids(truth, data), task.max_detections)
    if cut:
        metrics[CUT] = cut / len(data.files)
    return metrics, results


def check_labels(task: TaskSpec, labels: tuple[str, ...], outputs: Mapping[str, Any]) -> None:
    """Hold the number of labels against the classes that a detection head shows.

    Args:
        task: Its layout says where.
        labels: Class names in index order; none: nothing is compared.
        outputs: Of the model, with a batch dimension.

    Raises:
        ModelError: They differ, so that names would stand for other classes.
    """
    head = HEADS.get(task.layout)
    if task.kind != "detection" or not labels or head is None or head.classes is None:
        return
    try:
        shown = head.classes({name: value[0] for name, value in outputs.items()})
    except (ValueError, IndexError):
        return  # not this layout: decoding says what is wrong
    if shown != len(labels):
        raise ModelError(
            f"the model scores {shown} classes (task.layout {task.layout}), task.labels names "
            f"{len(labels)}",
            hint="give one label per class, in the model's order; an empty line keeps the place of "
            "a class without a name",
        )


def _ids(truth: CocoLabels, data: PinnedData) -> list[int]:
    return [truth.image_id[name] for name in data.files]


def _judge_classification(
    infer: Infer,
    data: PinnedData,
    task: TaskSpec,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    size: Size,
) -> tuple[dict[str, float], list[Any]]:
    prepare = Preprocessor(preprocess, size)
    scores = np.concatenate(
        [
            classification.answers(infer(prepare(image)[0][None]), len(labels))
            for image in datasets.images(data)
        ]
    )
    best = scores.argmax(axis=1)
    sure = confidences(scores, task.scores)
    predictions = [
        [name, int(index), float(row[index])]
        for name, index, row in zip(data.files, best, sure, strict=True)
    ]
    return classification.score(scores, datasets.class_ids(data, labels)), predictions
