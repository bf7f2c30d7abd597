"""The photos of report.html: which to show, and how answers differ from the source model's."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.report import plots
from artifacts.summary import Summary, Variant
from engineworks.errors import ArtifactError, DataError, InputError
from engineworks.evaluate import agreement, datasets
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.facts.data import PinnedData
from engineworks.manifest import Artifact
from engineworks.store import LocalStore

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
    differs: bool = True
    """Whether the two answers differ."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a run, and every variant's differences from the source model."""

    kind: str
    variant: str
    """The variant to ship; each picture names the one that it draws."""
    pictures: tuple[Picture, ...]
    changes: tuple[Change, ...]
    missing: int
    """Photos that were wanted and cannot be read any more."""


def gallery(
    summary: Summary, store: LocalStore, skip: AbstractSet[tuple[str, str]] = frozenset()
) -> Gallery | None:
    """Photos with the answers of the source model and of a variant that differs from it.

    None when the task has no answers to draw, or they are no longer in the store.

    Args:
        summary: The run's facts.
        store: Holds the predictions.
        skip: (variant, file) that are drawn elsewhere on the page.
    """
    task = summary.reference.artifact.manifest.task
    source = _predictions(summary.reference.predictions, store)
    # The variant to ship first, then others that may ship: the first one is drawn in a tie.
    ranked = sorted(summary.variants, key=lambda v: (not v.recommended, v.verdict != "shipped"))
    answers = {v.name: found for v in ranked if (found := _predictions(v.predictions, store))}
    if task is None or summary.data is None or not source or not answers:
        return None
    if task.kind == "detection":
        return _detection(summary.data, store, source, answers, skip)
    if task.kind == "classification":
        return _classification(summary.data, class_labels(summary, store), source, answers)
    return None


def _predictions(artifact: Artifact | None, store: LocalStore) -> list[Any]:
    if artifact is None:
        return []
    try:
        text = (store.open(artifact) / "predictions.json").read_text(encoding="utf-8")
        return list(json.loads(text))
    except (ArtifactError, OSError, ValueError):
        return []


def class_labels(summary: Summary, store: LocalStore) -> tuple[str, ...]:
    """Class names from an engine's manifest, in which they travel."""
    for variant in summary.variants:
        if variant.engine is not None and store.has(variant.engine.sha256):
            task = store.get(variant.engine.sha256).manifest.task
            if task is not None and not isinstance(task.labels, str):
                return task.labels
    return ()


@dataclass(frozen=True)
class Photos:
    """The judging photos of a detector: image id by file, objects by image id, class names."""

    data: PinnedData
    ids: Mapping[str, Any]
    objects: Mapping[Any, int]
    names: Mapping[int, str]


def photos(data: PinnedData | None, store: LocalStore) -> Photos | None:
    """Read the annotations again; None when they are gone or there are none."""
    if data is None or data.spec.annotations is None:
        return None
    try:
        coco = read_coco(store.entry(data.truth) if data.truth else Path(data.spec.annotations), ())
    except (ArtifactError, DataError):
        return None
    return Photos(
        data=data,
        ids={name: coco.image_id[name] for name in data.files if name in coco.image_id},
        objects=Counter(entry["image_id"] for entry in coco.raw["annotations"]),
        names={entry["id"]: str(entry["name"]) for entry in coco.raw["categories"]},
    )


Boxes = list[dict[str, Any]]
Differ = tuple[set[int], set[int]]


def _detection(
    data: PinnedData,
    store: LocalStore,
    source: list[Any],
    answers: Mapping[str, list[Any]],
    skip: AbstractSet[tuple[str, str]],
) -> Gallery | None:
    known = photos(data, store)
    if known is None:
        return None
    before = plots.by_image(source)
    found = {variant: plots.by_image(results) for variant, results in answers.items()}
    differ = {
        variant: {
            file: agreement.unmatched(before[image_id], boxes[image_id])
            for file, image_id in known.ids.items()
        }
        for variant, boxes in found.items()
    }
    pictures: list[Picture] = []
    missing = 0
    for file, variant in _most_different(known, differ, skip):
        if len(pictures) == PHOTOS:
            break
        image_id = known.ids[file]
        sides = before[image_id], found[variant][image_id]
        picture = _pair(known, file, variant, sides, differ[variant][file])
        if picture is None:
            missing += 1
        else:
            pictures.append(picture)
    return Gallery(
        kind="detection",
        variant=next(iter(found)),
        pictures=tuple(pictures),
        changes=tuple(_boxes_changed(v, before, boxes, differ[v]) for v, boxes in found.items()),
        missing=missing,
    )


def _most_different(
    known: Photos,
    differ: Mapping[str, Mapping[str, Differ]],
    skip: AbstractSet[tuple[str, str]],
) -> list[tuple[str, str]]:
    """(file, variant): photos in which a variant differs most first, then those full of objects."""
    rows = []
    for file, image_id in known.ids.items():
        counts = {
            variant: 0 if (variant, file) in skip else sum(map(len, changed[file]))
            for variant, changed in differ.items()
        }
        variant = max(counts, key=lambda name: counts[name])  # the first of equals
        rows.append((-counts[variant], -known.objects.get(image_id, 0), file, variant))
    return [(file, variant) for *_, file, variant in sorted(rows)]


def worst(
    summary: Summary, store: LocalStore, variant: Variant, most: int
) -> tuple[tuple[Picture, ...], int]:
    """The photos in which a detector differs most from the source model, and how many are gone."""
    known = photos(summary.data, store)
    if known is None or variant.difference is None:
        return (), 0
    before = plots.by_image(_predictions(summary.reference.predictions, store))
    after = plots.by_image(_predictions(variant.predictions, store))
    files = {image_id: file for file, image_id in known.ids.items()}
    pictures = []
    missing = 0
    for photo in variant.difference.worst[:most]:
        file = files.get(photo.image_id)
        if file is None or not (before or after):
            continue
        sides = before[photo.image_id], after[photo.image_id]
        picture = _pair(
            known, file, variant.name, sides, agreement.unmatched(*sides),
            f"{photo.lost} lost, {photo.gained} gained, {photo.moved} moved",
        )  # fmt: skip
        if picture is None:
            missing += 1
        else:
            pictures.append(picture)
    return tuple(pictures), missing


def _pair(
    known: Photos, file: str, variant: str, sides: tuple[Boxes, Boxes], differ: Differ,
    note: str = "",
) -> Picture | None:  # fmt: skip
    """One photo with both sides' boxes; None when it is gone or another one by now."""
    try:
        image = datasets.read(known.data, file)
    except (DataError, InputError):
        return None
    (old, new), (lost, gained) = sides, differ
    objects = f"{known.objects.get(known.ids[file], 0)} labelled objects"
    return Picture(
        file=file,
        note=f"{objects}, {note}" if note else objects,
        variant=variant,
        before=plots.photo(image, old, lost, known.names),
        before_text=f"{len(old)} boxes, {len(lost) or 'none'} of them here only",
        after=plots.photo(image, new, gained, known.names),
        after_text=f"{len(new)} boxes, {len(gained) or 'none'} of them here only",
        differs=bool(lost or gained),
    )


def _boxes_changed(
    variant: str,
    before: Mapping[Any, Boxes],
    after: Mapping[Any, Boxes],
    differ: Mapping[str, Differ],
) -> Change:
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
            image = plots.tile(datasets.read(data, file))
        except (DataError, InputError):
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
