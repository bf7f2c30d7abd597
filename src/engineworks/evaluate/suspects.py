"""What is most likely wrong when a model scores near zero: found by trying it.

Each trial changes one thing of the recipe (names, colour order, scale, resize, layout) and scores
some photos anew. Knows how to score; decides nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from engineworks.errors import EngineworksError
from engineworks.evaluate import datasets, tasks
from engineworks.facts.data import Chance, PinnedData, Suspect
from engineworks.runtime import heads
from engineworks.specs import Preprocess, TaskSpec

#: (task, preprocess, data) -> answers as `judge.judge` gives them.
Score = Callable[[TaskSpec, Preprocess, PinnedData], list[Any]]

#: Photos of one trial, and the time for all of them in seconds.
PHOTOS = 12
LIMIT_S = 120.0

#: Usual ways to normalise: (words, scale, mean, std).
SCALES = (
    ("preprocess.scale: 1 (pixels 0..255 as they are)", 1.0, (0.0,) * 3, (1.0,) * 3),
    ("preprocess.scale: 1/255 without mean and std", 1 / 255, (0.0,) * 3, (1.0,) * 3),
    (
        "preprocess.mean and std of ImageNet", 1 / 255,
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    ),
    ("preprocess.mean and std of 0.5 (input -1..1)", 1 / 255, (0.5,) * 3, (0.5,) * 3),
)  # fmt: skip


RESIZES: tuple[Literal["letterbox", "stretch", "center_crop"], ...] = (
    "letterbox", "stretch", "center_crop",
)  # fmt: skip


def evidence(
    answers: list[Any], data: PinnedData, task: TaskSpec, labels: tuple[str, ...]
) -> Chance:
    """Whether these answers are better than chance on this data."""
    return tasks.load(task.kind).evidence(answers, data, task, labels)


def explain(
    chance: Chance,
    answers: list[Any],
    data: PinnedData,
    task: TaskSpec,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    score: Score,
) -> Chance:
    """The same evidence, with what a score near zero becomes when one thing is changed.

    Args:
        chance: Says near zero.
        answers: The model's, on all of the data.
        data: Images and labels.
        task: As in the recipe.
        labels: Class names in index order.
        preprocess: As in the recipe.
        score: Runs the model.
    """
    suspects = tasks.load(task.kind).renamed(answers, data, task, labels)
    few = _some(data, task, labels)
    until = time.monotonic() + LIMIT_S
    for change, other_task, other in _changes(task, preprocess):
        if time.monotonic() > until:
            break
        try:
            tried = evidence(score(other_task, other, few), few, task, labels)
        except (EngineworksError, ArithmeticError, ValueError):
            continue  # a layout that does not fit, or numbers that the model cannot take
        suspects.append(
            Suspect(
                words=change,
                value=tried.value or 0.0,
                photos=tried.photos,
                better=tried.word == "better",
            )
        )
    suspects.sort(key=lambda suspect: (not suspect.better, -suspect.value))
    return dataclasses.replace(chance, suspects=tuple(suspects))


def _some(data: PinnedData, task: TaskSpec, labels: tuple[str, ...]) -> PinnedData:
    files = tasks.load(task.kind).telling(data, labels)
    data = dataclasses.replace(data, files=files or data.files)
    return datasets.sample_evenly(data, PHOTOS)


def _changes(task: TaskSpec, preprocess: Preprocess) -> Iterator[tuple[str, TaskSpec, Preprocess]]:
    """The recipe with one thing changed, in the recipe's words."""
    if preprocess.color != "gray":
        other: Literal["rgb", "bgr"] = "bgr" if preprocess.color == "rgb" else "rgb"
        yield f"preprocess.color: {other}", task, dataclasses.replace(preprocess, color=other)
        for change, scale, mean, std in SCALES:
            changed = dataclasses.replace(preprocess, scale=scale, mean=mean, std=std)
            if changed != preprocess:
                yield change, task, changed
    for resize in RESIZES:
        if resize != preprocess.resize:
            changed = dataclasses.replace(preprocess, resize=resize)
            yield f"preprocess.resize: {resize}", task, changed
    if preprocess.resize == "letterbox":
        anchor: Literal["center", "top_left"] = "center"
        if preprocess.anchor == "center":
            anchor = "top_left"
        changed = dataclasses.replace(preprocess, anchor=anchor)
        yield f"preprocess.anchor: {anchor}", task, changed
    for layout in heads.load(task.kind).layouts:
        if layout != task.layout:
            yield f"task.layout: {layout}", dataclasses.replace(task, layout=layout), preprocess
