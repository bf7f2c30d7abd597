"""The photos of report.html: which to show, and how answers differ from the source model's."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import report_plots
from artifacts.summary import Summary
from engineworks.errors import ArtifactError, DataError
from engineworks.evaluate import datasets
from engineworks.manifest import Artifact
from engineworks.runtime.preprocess import read_image
from engineworks.store import LocalStore
from engineworks.values import PinnedData

PHOTOS = 6
TILES = 12


@dataclass(frozen=True, kw_only=True)
class Change:
    """How one variant's answers on all images differ from the source model's."""

    variant: str
    before: int | None
    """Boxes of the source model (detection) or images it gets right (classification)."""
    after: int | None
    lost: int | None
    """Boxes, or right answers, that the source model has and the variant has not."""
    gained: int | None
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One photo with the source model's answer and a variant's; images are data URIs."""

    file: str
    note: str
    """What is known to be in it."""
    variant: str
    before: str
    before_text: str
    after: str = ""
    after_text: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a run, and every variant's differences from the source model."""

    kind: str
    variant: str
    pictures: tuple[Picture, ...]
    changes: tuple[Change, ...]
    missing: int
    """Photos that were wanted and cannot be read any more."""


def gallery(summary: Summary, store: LocalStore) -> Gallery | None:
    """Photos with the answers of the source model and of the variant to ship.

    None when the task has no answers to draw, or they are no longer in the store.
    """
    task = summary.reference.artifact.manifest.task
    source = _predictions(summary.reference.predictions, store)
    # The variant to ship first, then others that may ship: the first one is drawn.
    ranked = sorted(summary.variants, key=lambda v: (not v.recommended, v.verdict != "shipped"))
    answers = {v.name: found for v in ranked if (found := _predictions(v.predictions, store))}
    if task is None or summary.data is None or not source or not answers:
        return None
    if task.kind == "detection":
        return _detection(summary.data, source, answers)
    if task.kind == "classification":
        return _classification(summary.data, _labels(summary, store), source, answers)
    return None


def _predictions(artifact: Artifact | None, store: LocalStore) -> list[Any]:
    if artifact is None:
        return []
    try:
        text = (store.open(artifact) / "predictions.json").read_text(encoding="utf-8")
        return list(json.loads(text))
    except (ArtifactError, OSError, ValueError):
        return []


def _labels(summary: Summary, store: LocalStore) -> tuple[str, ...]:
    """Class names from an engine's manifest, in which they travel."""
    for variant in summary.variants:
        if variant.engine is not None and store.has(variant.engine.sha256):
            task = store.get(variant.engine.sha256).manifest.task
            if task is not None and not isinstance(task.labels, str):
                return task.labels
    return ()


def _detection(
    data: PinnedData, source: list[Any], answers: Mapping[str, list[Any]]
) -> Gallery | None:
    try:
        coco = datasets.read_coco(Path(data.spec.annotations or ""), ())
    except DataError:
        return None
    ids = {name: coco.image_id[name] for name in data.files if name in coco.image_id}
    names = {entry["id"]: str(entry["name"]) for entry in coco.raw["categories"]}
    objects = Counter(entry["image_id"] for entry in coco.raw["annotations"])
    before = report_plots.by_image(source)
    found = {variant: report_plots.by_image(results) for variant, results in answers.items()}
    chosen = next(iter(found))
    pictures: list[Picture] = []
    missing = 0
    for name in sorted(ids, key=lambda name: (-objects[ids[name]], name)):
        if len(pictures) == PHOTOS:
            break
        try:
            image = read_image(Path(data.spec.images) / name)
        except DataError:
            missing += 1
            continue
        old, new = before[ids[name]], found[chosen][ids[name]]
        lost, gained = report_plots.unmatched(old, new)
        pictures.append(
            Picture(
                file=name,
                note=f"{objects[ids[name]]} labelled objects",
                variant=chosen,
                before=report_plots.photo(image, old, lost, names),
                before_text=f"{len(old)} boxes, {len(lost) or 'none'} of them here only",
                after=report_plots.photo(image, new, gained, names),
                after_text=f"{len(new)} boxes, {len(gained) or 'none'} of them here only",
            )
        )
    return Gallery(
        kind="detection",
        variant=chosen,
        pictures=tuple(pictures),
        changes=tuple(_boxes_changed(v, before, boxes, ids) for v, boxes in found.items()),
        missing=missing,
    )


def _boxes_changed(
    variant: str,
    before: Mapping[Any, list[dict[str, Any]]],
    after: Mapping[Any, list[dict[str, Any]]],
    ids: Mapping[str, Any],
) -> Change:
    differ = {
        name: report_plots.unmatched(before.get(image_id, []), after.get(image_id, []))
        for name, image_id in ids.items()
    }
    return Change(
        variant=variant,
        before=sum(map(len, before.values())),
        after=sum(map(len, after.values())),
        lost=sum(len(lost) for lost, _ in differ.values()),
        gained=sum(len(gained) for _, gained in differ.values()),
        files=tuple(name for name, (lost, gained) in differ.items() if lost or gained),
    )


def _classification(
    data: PinnedData,
    labels: Sequence[str],
    source: list[Any],
    answers: Mapping[str, list[Any]],
) -> Gallery:
    """Images that changed class; where none did, some that are mistaken by both."""

    def word(index: int) -> str:
        return labels[index] if index < len(labels) else f"class {index}"

    before = {file: (word(index), score) for file, index, score in source}
    found = {
        variant: {file: (word(index), score) for file, index, score in predictions}
        for variant, predictions in answers.items()
    }
    changes = tuple(_classes_changed(v, before, after, bool(labels)) for v, after in found.items())
    wanted = [(change.variant, file) for change in changes for file in change.files]
    chosen = next(iter(found))
    if not wanted and labels:
        mistaken = [file for file, (name, _) in before.items() if name != _class(file)]
        step = max(1, math.ceil(len(mistaken) / TILES))
        wanted = [(chosen, file) for file in mistaken[::step]]
    pictures: list[Picture] = []
    missing = 0
    for variant, file in wanted:
        if len(pictures) == TILES:
            break
        try:
            image = report_plots.tile(read_image(Path(data.spec.images) / file))
        except DataError:
            missing += 1
            continue
        pictures.append(
            Picture(
                file=file,
                note=_class(file),
                variant=variant,
                before=image,
                before_text="{} {:.2f}".format(*before[file]),
                after_text="{} {:.2f}".format(*found[variant][file]),
            )
        )
    return Gallery(
        kind="classification",
        variant=chosen,
        pictures=tuple(pictures),
        changes=changes,
        missing=missing,
    )


Answers = Mapping[str, tuple[str, float]]


def _classes_changed(variant: str, before: Answers, after: Answers, known: bool) -> Change:
    was = {file for file, (name, _) in before.items() if name == _class(file)}
    now = {file for file, (name, _) in after.items() if name == _class(file)}
    return Change(
        variant=variant,
        before=len(was) if known else None,
        after=len(now) if known else None,
        lost=len(was - now) if known else None,
        gained=len(now - was) if known else None,
        files=tuple(file for file in after if file in before and before[file][0] != after[file][0]),
    )


def _class(file: str) -> str:
    """The true class: an image lies in its class's folder."""
    return file.partition("/")[0]
