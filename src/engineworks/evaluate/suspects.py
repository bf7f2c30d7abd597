"""What is most likely wrong when a model scores near zero: found by trying it.

Each trial changes one thing of the recipe (names, colour order, scale, resize, layout) and scores
some photos anew. Knows how to score; decides nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engineworks.errors import EngineworksError
from engineworks.evaluate import chance, datasets
from engineworks.evaluate.agreement import SAME, iou
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.precision import Side, average_precision, sides
from engineworks.facts.data import Chance, PinnedData, Suspect
from engineworks.specs import LAYOUTS, Preprocess, TaskSpec

Array = np.ndarray[Any, Any]

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
    if task.kind == "classification":
        return chance.of_classification(answers, datasets.class_ids(data, labels))
    truth = read_coco(Path(data.spec.annotations or ""), labels)
    return chance.of_detection(answers, truth, [truth.image_id[name] for name in data.files])


def explain(
    found: Chance,
    answers: list[Any],
    data: PinnedData,
    task: TaskSpec,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    score: Score,
) -> Chance:
    """The same evidence, with what a score near zero becomes when one thing is changed.

    Args:
        found: Says near zero.
        answers: The model's, on all of the data.
        data: Images and labels.
        task: As in the recipe.
        labels: Class names in index order.
        preprocess: As in the recipe.
        score: Runs the model.
    """
    suspects = _names(answers, data, task, labels)
    few = _some(data, task, labels)
    until = time.monotonic() + LIMIT_S
    for words, other_task, other in _changes(task, preprocess):
        if time.monotonic() > until:
            break
        try:
            tried = evidence(score(other_task, other, few), few, task, labels)
        except (EngineworksError, ArithmeticError, ValueError):
            continue  # a layout that does not fit, or numbers that the model cannot take
        suspects.append(
            Suspect(
                words=words,
                value=tried.value or 0.0,
                photos=tried.photos,
                better=tried.word == "better",
            )
        )
    suspects.sort(key=lambda suspect: (not suspect.better, -suspect.value))
    return dataclasses.replace(found, suspects=tuple(suspects))


def _some(data: PinnedData, task: TaskSpec, labels: tuple[str, ...]) -> PinnedData:
    if task.kind == "detection":
        truth = read_coco(Path(data.spec.annotations or ""), labels)
        boxed = {row["image_id"] for row in truth.raw["annotations"]}
        files = tuple(name for name in data.files if truth.image_id[name] in boxed)
        data = dataclasses.replace(data, files=files or data.files)
    return datasets.spread(data, PHOTOS)


def _changes(task: TaskSpec, preprocess: Preprocess) -> Iterator[tuple[str, TaskSpec, Preprocess]]:
    """The recipe with one thing changed, in the recipe's words."""
    if preprocess.color != "gray":
        other: Literal["rgb", "bgr"] = "bgr" if preprocess.color == "rgb" else "rgb"
        yield f"preprocess.color: {other}", task, dataclasses.replace(preprocess, color=other)
        for words, scale, mean, std in SCALES:
            changed = dataclasses.replace(preprocess, scale=scale, mean=mean, std=std)
            if changed != preprocess:
                yield words, task, changed
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
    if task.kind == "detection":
        for layout in LAYOUTS:
            if layout != task.layout:
                yield f"task.layout: {layout}", dataclasses.replace(task, layout=layout), preprocess


def _names(
    answers: list[Any], data: PinnedData, task: TaskSpec, labels: tuple[str, ...]
) -> list[Suspect]:
    """Right answers under other names, learnt on other photos than those that are scored."""
    if task.kind == "classification":
        truths = datasets.class_ids(data, labels)
        found = np.array([row[1] for row in answers], np.int64)
        met = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(met, (found, truths), 1)
        renamed = {index: int(met[index].argmax()) for index in set(found.tolist())}
        mapped = []
        for index, true in zip(found, truths, strict=True):
            others = met[index].copy()
            others[true] -= 1
            mapped.append(["", int(others.argmax()) if others.any() else -1, 1.0])
        pairs = list(zip(found.tolist(), truths.tolist(), strict=True))
        tried = chance.of_classification(mapped, truths)
        return _suspect(renamed, pairs, dict(enumerate(labels)), tried)
    truth = read_coco(Path(data.spec.annotations or ""), labels)
    ids = [truth.image_id[name] for name in data.files]
    answered, known = sides(answers, truth, ids)
    return _boxes_renamed(answered, known, truth)


def _boxes_renamed(
    answered: Sequence[Side], known: Sequence[Side], truth: CocoLabels
) -> list[Suspect]:
    half = slice(None, None, 2) if len(known) > 1 else slice(None)
    rest = slice(1, None, 2) if len(known) > 1 else slice(None)
    pairs = [
        pair
        for one, other in zip(answered[half], known[half], strict=True)
        for pair in _meet(one, other)
    ]
    renamed = _renaming(pairs)
    again = [
        dataclasses.replace(
            side,
            category=np.array([renamed.get(int(c), -1) for c in side.category], np.int64),
        )
        for side in answered[rest]
    ]
    names = {row["id"]: row["name"] for row in truth.raw["categories"]}
    value = average_precision(again, known[rest])
    others = average_precision(again, [*known[rest][1:], *known[rest][:1]])
    tried = Chance(
        word="better" if value > others else "near zero", reason="", value=value,
        objects=len(pairs), photos=len(again),
    )  # fmt: skip
    return _suspect(renamed, pairs, names, tried)


def _meet(answered: Side, known: Side) -> list[tuple[int, int]]:
    """(answered, true category) of boxes that lie on each other, the surest answer of each."""
    if not len(answered.score) or not len(known.score):
        return []
    overlap = iou(answered.box, known.box)
    best = overlap.argmax(axis=0)
    return [
        (int(answered.category[row]), int(known.category[column]))
        for column, row in enumerate(best)
        if overlap[row, column] >= SAME
    ]


def _renaming(pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Answered class -> the true class that it most often meets."""
    met: dict[int, Counter[int]] = defaultdict(Counter)
    for answered, true in pairs:
        met[answered][true] += 1
    return {answered: counts.most_common(1)[0][0] for answered, counts in met.items()}


def _suspect(
    renamed: dict[int, int], pairs: Sequence[tuple[int, int]], names: dict[int, str], tried: Chance
) -> list[Suspect]:
    counts = Counter(pair for pair in pairs if pair[0] != pair[1])
    moved = [pair for pair, _ in counts.most_common() if renamed[pair[0]] == pair[1]]
    if not moved:
        return []
    shown = "; ".join(
        f"{names.get(answered, 'a class without boxes')!r} is answered where {names[true]!r} is "
        f"labelled ({counts[answered, true]} of {sum(pair[0] == answered for pair in pairs)})"
        for answered, true in moved[:3]
    )
    return [
        Suspect(
            words=f"task.labels in another order: {shown}",
            value=tried.value or 0.0,
            photos=tried.photos,
            better=tried.word == "better",
        )
    ]
