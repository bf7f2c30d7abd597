"""Judging segmentation: mean IoU, areas and pixels that change class, photos with both maps.

Known classes come from a folder of PNG masks.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import RecipeError
from engineworks.evaluate import chance, confusion, pictures
from engineworks.evaluate.annotations.masks import MaskTruth, read_masks, read_saved
from engineworks.evaluate.answers import answers, refuse_other_count, refuse_unnamed
from engineworks.evaluate.photo_scores import PhotoScores
from engineworks.evaluate.pictures import Album, Differ, GalleryWords
from engineworks.evaluate.readings import MapReader, Reader
from engineworks.evaluate.tasks._base import Infer, Labels, Predictions, Question, Task
from engineworks.facts.data import BadImage, Chance, PinnedData
from engineworks.facts.engine import DetectionDiff, PhotoDiff
from engineworks.runtime.drawing import paint
from engineworks.runtime.heads import Decoder
from engineworks.runtime.heads.segmentation import BACKGROUND, IGNORED, from_png, to_png
from engineworks.specs import DataSpec, Preprocess, Size, TaskSpec

Array = np.ndarray[Any, Any]

#: Area in pixels from which a class on a photo is a thing that can be lost.
AREA = 64

#: Overlap below which an area is lost, and below which it has moved.
SAME, MOVED = 0.5, 0.9

#: Area in pixels below which it is small, and medium: COCO's sizes of objects.
SIZES = (32**2, 96**2)

#: Photos that are named, the worst first.
WORST = 6

#: Side of maps that are held against chance.
COARSE = 48


def check(task: TaskSpec, labels: Labels, preprocess: Preprocess) -> None:
    """See `Task`."""
    if len(labels) < 2:
        raise RecipeError(
            f"task.labels names {len(labels)} classes: a segmentation tells at least two apart",
            hint="give a list of names or a text file, in the model's order, the background too",
        )
    if preprocess.resize == "center_crop":
        raise RecipeError(
            "preprocess.resize: center_crop cuts the edges off, and every pixel is to have a class",
            hint="use stretch or letterbox, as the model was trained",
        )


def _ignored(task: TaskSpec) -> int | None:
    value: int | None = task.options.get("ignore_index", IGNORED)
    return value


def read_truth(
    spec: DataSpec, task: TaskSpec, labels: Labels, files: Sequence[str], chosen: bool
) -> tuple[MaskTruth, list[BadImage]]:
    """See `Task`."""
    return read_masks(spec, len(labels), _ignored(task), files, chosen=chosen)


def _masks(data: PinnedData, task: TaskSpec, labels: Labels) -> MaskTruth:
    return read_saved(Path(data.spec.annotations or ""), len(labels), _ignored(task))


def judge(infer: Infer, question: Question) -> tuple[dict[str, float], Predictions]:
    """See `Task`: predictions are {"file", "map": PNG in base 64}."""
    labels = question.labels
    truth = _masks(question.data, question.task, labels)
    table = np.zeros((len(labels), len(labels) + 1), np.int64)
    predictions: Predictions = []
    for name, segmentation in answers(infer, question):
        refuse_unnamed(int(segmentation.class_map.max()), len(labels))
        table += confusion.count(segmentation.class_map, truth.mask(name), len(labels))
        png = base64.b64encode(to_png(segmentation.class_map)).decode()
        predictions.append({"file": name, "map": png})
    return score(table, labels), predictions


def score(table: Array, labels: Labels) -> dict[str, float]:
    """Mean IoU, the share of right pixels, and the IoU of each class that is labelled."""
    each = {
        f"IoU {name or number}": float(value)
        for number, (name, value) in enumerate(zip(labels, confusion.ious(table), strict=True))
        if np.isfinite(value)
    }
    return {
        "mIoU": confusion.mean_iou(table),
        "pixel_accuracy": confusion.pixel_accuracy(table),
        **each,
    }


def _map(row: Mapping[str, Any]) -> Array:
    return from_png(base64.b64decode(row["map"]))


def check_outputs(task: TaskSpec, labels: Labels, outputs: Mapping[str, Array]) -> None:
    """See `Task`: `scores` has a map for each class."""
    if task.layout == "scores" and len(outputs) == 1:
        (array,) = outputs.values()
        if array.ndim == 4:
            refuse_other_count(array.shape[1], labels, task.layout)


def agreement_score(reference: Predictions, predictions: Predictions) -> float:
    """See `Task`: mean overlap of the areas that both give to a class, over all photos."""
    maps = [(_map(a), _map(b)) for a, b in zip(reference, predictions, strict=True)]
    if not maps:
        return 1.0
    classes = 1 + max(int(max(a.max(), b.max())) for a, b in maps)
    table = np.sum([confusion.count(b, a, max(classes, 1)) for a, b in maps], axis=0)
    # Half of it is the share of equal pixels, which moves with every one of them.
    return 0.5 * (confusion.mean_iou(table) + confusion.pixel_accuracy(table))


@dataclass(frozen=True, kw_only=True)
class _Area:
    """What one photo shows of one class, in both maps."""

    number: int
    before: int
    """Pixels."""
    after: int
    iou: float

    @property
    def size(self) -> str:
        """small, medium or large."""
        pixels = max(self.before, self.after)
        return "small" if pixels < SIZES[0] else "medium" if pixels < SIZES[1] else "large"


def _areas(before: Array, after: Array) -> list[_Area]:
    """Every class that has an area in one of two maps, and how well they agree."""
    areas = []
    numbers = np.union1d(np.unique(before), np.unique(after))
    for number in numbers[numbers >= 0].tolist():
        old, new = before == number, after == number
        sizes = int(old.sum()), int(new.sum())
        if max(sizes) >= AREA:
            iou = float((old & new).sum() / max(1, (old | new).sum()))
            areas.append(_Area(number=number, before=sizes[0], after=sizes[1], iou=iou))
    return areas


def difference(reference: Predictions, predictions: Predictions) -> DetectionDiff:
    """See `Task`: things are areas, a class on a photo; a photo's number is its place from 0."""
    sizes = {name: [0, 0, 0] for name in ("small", "medium", "large")}
    lost_by: Counter[int] = Counter()
    gained_by: Counter[int] = Counter()
    photos: dict[int, list[int]] = {}
    matched = same = pixels = 0
    for place, (expected, other) in enumerate(zip(reference, predictions, strict=True)):
        before, after = _map(expected), _map(other)
        same += int((before == after).sum())
        pixels += before.size
        counts = photos.setdefault(place, [0, 0, 0])
        for area in _areas(before, after):
            kinds = []
            if area.iou < SAME:
                kinds = [n for n, there in ((0, area.before), (1, area.after)) if there >= AREA]
                lost_by.update([area.number] * (0 in kinds))
                gained_by.update([area.number] * (1 in kinds))
            else:
                matched += 1
                kinds = [2] if area.iou < MOVED else []
            for kind in kinds:
                counts[kind] += 1
                sizes[area.size][kind] += 1
    changed = [place for place, counts in photos.items() if any(counts)]
    worst = sorted(changed, key=lambda place: (-sum(photos[place]), place))[:WORST]
    return DetectionDiff(
        confidence=0.0,
        matched=matched,
        lost=lost_by.total(),
        gained=gained_by.total(),
        moved=sum(counts[2] for counts in photos.values()),
        lost_by_class={str(number): n for number, n in lost_by.most_common()},
        gained_by_class={str(number): n for number, n in gained_by.most_common()},
        by_size={name: (c[0], c[1], c[2]) for name, c in sizes.items()},
        worst=tuple(
            PhotoDiff(image_id=n, lost=photos[n][0], gained=photos[n][1], moved=photos[n][2])
            for n in worst
        ),
        words=f"Areas are what a photo shows of one class, from {AREA} pixels on; one is lost or "
        f"gained where less than {SAME:g} of it overlaps (IoU), moved below {MOVED:g}. "
        f"{100 * same / max(1, pixels):.2f} % of all pixels have the same class in both.",
        things="areas",
    )


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Answered and known classes of some photos, coarse and of one size; see `chance`."""

    answers: Array
    """int (photos, COARSE, COARSE)."""
    truths: Array
    classes: int

    def __len__(self) -> int:
        return len(self.truths)

    def _value(self, answers: Array, truths: Array) -> float:
        return confusion.mean_iou(confusion.count(answers, truths, self.classes))

    def value(self, order: Sequence[int] | None = None) -> float:
        """Mean IoU where photo i is held against the mask of photo `order[i]`."""
        truths = self.truths if order is None else self.truths[np.array(order)]
        return self._value(self.answers, truths)

    def constant(self) -> tuple[float, Array]:
        """The best of some constant answers: the mask of one photo, given to all others."""
        best, place = 0.0, 0
        few = np.linspace(0, len(self) - 1, min(chance.CONSTANTS, len(self))).round().astype(int)
        for candidate in few:
            others = np.delete(self.truths, candidate, axis=0)
            value = self._value(np.broadcast_to(self.truths[candidate], others.shape), others)
            if value > best:
                best, place = value, int(candidate)
        return best, np.broadcast_to(self.truths[place], self.truths.shape)

    def beats(self, others: Array) -> bool:
        """Whether these answers are better than others, photo by photo, by a sign test."""
        won = lost = 0
        for mine, other, truth in zip(self.answers, others, self.truths, strict=True):
            if np.array_equal(other, truth):
                continue  # a constant was made of it
            apart = self._value(mine, truth) - self._value(other, truth)
            won, lost = won + (apart > 0), lost + (apart < 0)
        return chance.mostly(won, lost)


def evidence(predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels) -> Chance:
    """See `Task`."""
    truth = _masks(data, task, labels)
    known = [truth.mask(row["file"]) for row in predictions]
    truths = np.stack([_coarse(mask) for mask in known])
    maps = np.stack([_coarse(_map(row)) for row in predictions])
    objects = sum(len(set(np.unique(mask).tolist()) - {-1}) for mask in known)
    mine = Maps(answers=maps, truths=truths, classes=len(labels))
    perfect = Maps(answers=truths, truths=truths, classes=len(labels))
    return chance.judged(mine, perfect, objects, "mIoU")


def scores_by_photo(
    predictions: Predictions, data: PinnedData, task: TaskSpec, labels: Labels
) -> PhotoScores:
    """See `Task`."""
    truth = _masks(data, task, labels)
    rows = {row["file"]: row for row in predictions}
    counted = [
        confusion.count(_map(rows[name]), truth.mask(name), len(labels)) for name in data.files
    ]
    tables = np.stack(counted).astype(np.int32)
    return PhotoScores(
        metric="mIoU",
        photos=len(tables),
        on=lambda places: confusion.mean_iou(tables[np.array(places, int)].sum(axis=0)),
    )


def _coarse(class_map: Array) -> Array:
    places = [((np.arange(COARSE) + 0.5) * side / COARSE).astype(int) for side in class_map.shape]
    return np.asarray(class_map[places[0][:, None], places[1]])


def readers(
    seen: Mapping[str, Array], task: TaskSpec, size: Size, decode: Decoder | None
) -> tuple[Reader, ...]:
    """See `Task`."""
    if len(seen) != 1 or decode is not None:
        return ()
    why = "the recipe's layout"
    channels = task.layout == "scores"
    return (MapReader(outputs=tuple(seen), sure="given", why=why, channels=channels),)


class MapAlbum:
    """See `pictures.Album`. Things are areas: (class, whole map, pixels of this class)."""

    words = GalleryWords(
        lead=f"Areas are what a photo shows of one class, from {AREA} pixels on. Two of one class "
        f"are the same area where they overlap by {SAME:g} (IoU).",
        columns=("areas, source", "areas, variant", "lost", "gained"),
        legend="Every class has a colour of its own, the background none.",
        things="areas",
    )

    def __init__(self, data: PinnedData, truth: MaskTruth | None, labels: Labels) -> None:
        self._files = data.files
        self._truth, self._labels = truth, labels

    @property
    def names(self) -> Mapping[str, str]:
        """See `Album`."""
        return {str(number): name for number, name in enumerate(self._labels)}

    def file(self, image_id: int) -> str | None:
        """See `Album`."""
        return self._files[image_id] if 0 <= image_id < len(self._files) else None

    def known(self, file: str) -> int:
        """See `Album`."""
        if self._truth is None or not self._truth.names(file):
            return 0
        return len(set(np.unique(self._truth.mask(file)).tolist()) - {-1})

    def split(self, predictions: Sequence[Any]) -> Mapping[str, list[Any]]:
        """See `Album`."""
        by_file: dict[str, list[Any]] = {file: [] for file in self._files}
        for row in predictions:
            class_map = _map(row)
            numbers, pixels = np.unique(class_map, return_counts=True)
            by_file[row["file"]] = [
                (int(number), class_map)
                for number, count in zip(numbers, pixels, strict=True)
                if number >= 0 and count >= AREA
            ]
        return by_file

    def differ(self, before: list[Any], after: list[Any]) -> Differ:
        """See `Album`."""
        if not before or not after:
            return set(range(len(before))), set(range(len(after)))
        areas = {area.number: area for area in _areas(before[0][1], after[0][1])}

        def alone(side: list[Any]) -> set[int]:
            return {n for n, (number, _) in enumerate(side) if areas[number].iou < SAME}

        return alone(before), alone(after)

    def draw(self, image: Array, things: list[Any], alone: AbstractSet[int]) -> Array:
        """See `Album`."""
        shown = [
            number for number, _ in things
            if number >= len(self._labels) or self._labels[number].lower() not in BACKGROUND
        ]  # fmt: skip
        if things:
            image = image.copy()
            paint(image, things[0][1], shown)
        return pictures.small(image)[0]


def album(data: PinnedData, truth: Path | None, task: TaskSpec, labels: Labels) -> Album | None:
    """See `Task`."""
    masks = None if truth is None else read_saved(truth, len(labels), _ignored(task))
    return MapAlbum(data, masks, labels)


def counts(data: PinnedData, task: TaskSpec, labels: Labels) -> dict[str, int]:
    """See `Task`: photos that show a class."""
    truth = _masks(data, task, labels)
    counted: Counter[int] = Counter()
    for file in data.files:
        counted.update(set(np.unique(truth.mask(file)).tolist()) - {-1})
    return {name or str(number): counted[number] for number, name in enumerate(labels)}


TASK = Task(
    metric="mIoU",
    check=check,
    truth=read_truth,
    judge=judge,
    check_outputs=check_outputs,
    evidence=evidence,
    photo_scores=scores_by_photo,
    agreement=agreement_score,
    difference=difference,
    readers=readers,
    album=album,
    counts=counts,
)
