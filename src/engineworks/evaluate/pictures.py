"""What the report shows of photos: which ones, and two models' answers drawn beside each other.

Knows no kind of task: a task brings an `Album` of its answers, or makes its own `Gallery`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engineworks.errors import DataError, InputError
from engineworks.evaluate import datasets
from engineworks.facts.data import PinnedData
from engineworks.facts.engine import DetectionDiff

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]

#: Pairs of photos, and tiles, that are shown.
PHOTOS, TILES = 6, 12
WIDEST_PX = 480
TILE_PX = 128
FONT_SCALE = 0.36
JPEG_QUALITY = 82
#: Colours, BGR: found by both, and found by one of the two only.
BOTH, ONE = (60, 190, 90), (30, 110, 245)


@dataclass(frozen=True, kw_only=True)
class Change:
    """How one variant's answers on all images differ from the source model's."""

    variant: str
    before: int | None
    """What the source model has: boxes, areas, images that it gets right."""
    after: int | None
    lost: int | None
    """What the source model has and the variant has not."""
    gained: int | None
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GalleryPicture:
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
class GalleryWords:
    """How a gallery is spoken of."""

    lead: str
    """What counts as a difference."""
    columns: tuple[str, str, str, str]
    """What source and variant have, what is lost and gained."""
    legend: str = ""
    """What colours mean, beside a pair."""
    things: str = "objects"


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a run, and every variant's differences from the source model."""

    words: GalleryWords
    pairs: bool
    """Two large pictures side by side; else small ones, one for each image."""
    variant: str
    """The variant to ship; each picture names the one that it draws."""
    pictures: tuple[GalleryPicture, ...]
    changes: tuple[Change, ...]
    missing: int
    """Photos that were wanted and cannot be read any more."""


Differ = tuple[set[int], set[int]]


class Album(Protocol):
    """Answers of a task that can be drawn into their photos."""

    @property
    def words(self) -> GalleryWords:
        """How it speaks."""
        ...

    @property
    def names(self) -> Mapping[str, str]:
        """Key of a class in a `DetectionDiff` -> its name."""
        ...

    def file(self, image_id: int) -> str | None:
        """The photo that a `DetectionDiff` names by this number."""
        ...

    def known(self, file: str) -> int:
        """How many things are labelled on a photo."""
        ...

    def split(self, predictions: Sequence[Any]) -> Mapping[str, list[Any]]:
        """Answers by photo, each a list of things that are there; all photos are named."""
        ...

    def differ(self, before: list[Any], after: list[Any]) -> Differ:
        """Positions of things that only one side has."""
        ...

    def draw(self, image: Array, things: list[Any], alone: AbstractSet[int]) -> Array:
        """The photo with an answer in it, at most `WIDEST_PX` wide; `alone` stand out."""
        ...


def gallery(
    album: Album,
    data: PinnedData,
    source: Sequence[Any],
    answers: Mapping[str, Sequence[Any]],
    skip: AbstractSet[tuple[str, str]],
) -> Gallery:
    """Photos in which a variant differs most from the source model, then those full of things.

    Args:
        album: Of the task.
        data: Where photos are.
        source: Predictions of the source model.
        answers: Of each variant; the first one is drawn in a tie.
        skip: (variant, file) that are drawn elsewhere.
    """
    before = album.split(source)
    by_variant = {variant: album.split(predictions) for variant, predictions in answers.items()}
    differ = {
        variant: {file: album.differ(before[file], things[file]) for file in before}
        for variant, things in by_variant.items()
    }
    pictures: list[GalleryPicture] = []
    missing = 0
    for file, variant in _most_different(album, differ, skip):
        if len(pictures) == PHOTOS:
            break
        sides = before[file], by_variant[variant][file]
        picture = _pair(album, data, file, variant, sides, differ[variant][file])
        if picture is None:
            missing += 1
        else:
            pictures.append(picture)
    return Gallery(
        words=album.words,
        pairs=True,
        variant=next(iter(by_variant)),
        pictures=tuple(pictures),
        changes=tuple(_change(v, before, things, differ[v]) for v, things in by_variant.items()),
        missing=missing,
    )


def _most_different(
    album: Album,
    differ: Mapping[str, Mapping[str, Differ]],
    skip: AbstractSet[tuple[str, str]],
) -> Iterator[tuple[str, str]]:
    """(file, variant): photos in which a variant differs most first."""
    rows = []
    for file in next(iter(differ.values()), {}):
        counts = {
            variant: 0 if (variant, file) in skip else sum(map(len, changed[file]))
            for variant, changed in differ.items()
        }
        variant = max(counts, key=lambda name: counts[name])  # the first of equals
        rows.append((-counts[variant], -album.known(file), file, variant))
    return ((file, variant) for *_, file, variant in sorted(rows))


def _change(
    variant: str,
    before: Mapping[str, list[Any]],
    after: Mapping[str, list[Any]],
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


def worst(
    album: Album,
    data: PinnedData,
    variant: str,
    difference: DetectionDiff,
    sides: tuple[Sequence[Any], Sequence[Any]],
    most: int,
) -> tuple[tuple[GalleryPicture, ...], int]:
    """The photos that a difference names, and how many of them are gone.

    Args:
        album: Of the task.
        data: Where photos are.
        variant: Its name.
        difference: Of the variant from the source model.
        sides: Predictions of the source model, and of the variant.
        most: Photos that are wanted.
    """
    before, after = (album.split(side) for side in sides)
    pictures: list[GalleryPicture] = []
    missing = 0
    for photo in difference.worst[:most]:
        file = album.file(photo.image_id)
        if file is None or not any(sides):
            continue
        here = before[file], after[file]
        note = f"{photo.lost} lost, {photo.gained} gained, {photo.moved} moved"
        picture = _pair(album, data, file, variant, here, album.differ(*here), note)
        if picture is None:
            missing += 1
        else:
            pictures.append(picture)
    return tuple(pictures), missing


def _pair(
    album: Album, data: PinnedData, file: str, variant: str,
    sides: tuple[list[Any], list[Any]], differ: Differ, note: str = "",
) -> GalleryPicture | None:  # fmt: skip
    """One photo with both sides' answers; None when it is gone or another one by now."""
    try:
        image = datasets.read(data, file)
    except (DataError, InputError):
        return None
    (old, new), (lost, gained), things = sides, differ, album.words.things
    objects = f"{album.known(file)} labelled {things if things != 'boxes' else 'objects'}"
    return GalleryPicture(
        file=file,
        note=f"{objects}, {note}" if note else objects,
        variant=variant,
        before=jpeg(album.draw(image, old, lost)),
        before_text=f"{len(old)} {things}, {len(lost) or 'none'} of them here only",
        after=jpeg(album.draw(image, new, gained)),
        after_text=f"{len(new)} {things}, {len(gained) or 'none'} of them here only",
        differs=bool(lost or gained),
    )


def small(image: Array) -> tuple[Array, float]:
    """A copy of at most `WIDEST_PX`, and by how much it was scaled."""
    import cv2

    scale = min(1.0, WIDEST_PX / image.shape[1])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def boxes(
    image: Array, entries: Sequence[Any], alone: AbstractSet[int], names: Mapping[Any, str]
) -> Array:
    """The photo with boxes (COCO results); those that the other model lacks stand out.

    Labels that would cover another are left out, the surest and the lone boxes' first in line.
    """
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    canvas, scale = small(image)
    order = sorted(range(len(entries)), key=lambda position: (position not in alone, position))
    corners = [[round(value * scale) for value in entry["bbox"]] for entry in entries]
    for position in reversed(order):
        left, top, width, height = corners[position]
        colour, thick = (ONE, 3) if position in alone else (BOTH, 1)
        cv2.rectangle(canvas, (left, top), (left + width, top + height), colour, thick)
    taken: list[Box] = []
    for position in order:
        entry, (left, top, _, height) = entries[position], corners[position]
        name = names.get(entry["category_id"], f"class {entry['category_id']}")
        text = f"{name} {entry['score']:.2f}".encode("ascii", "replace").decode()
        (wide, high), _ = cv2.getTextSize(text, font, FONT_SCALE, 1)
        x = max(0, min(left, canvas.shape[1] - wide - 4))
        for y in (top, top + high + 5, top + height):
            box = (x, y - high - 5, x + wide + 4, y)
            if y - high - 5 >= 0 and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                colour = ONE if position in alone else BOTH
                cv2.rectangle(canvas, (x, y - high - 5), (x + wide + 4, y), colour, -1)
                where = (x + 2, y - 3)
                cv2.putText(canvas, text, where, font, FONT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
                break
    return canvas


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def jpeg(image: Array) -> str:
    """A picture as a JPEG data URI."""
    import cv2

    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def tile(image: Array) -> str:
    """A small picture as a JPEG data URI; tiny ones are enlarged so that pixels stay sharp."""
    import cv2

    longest = max(image.shape[:2])
    if longest < TILE_PX:
        scale, how = float(math.ceil(TILE_PX / longest)), cv2.INTER_NEAREST
    else:
        scale, how = min(1.0, 2 * TILE_PX / longest), cv2.INTER_AREA
    return jpeg(cv2.resize(image, None, fx=scale, fy=scale, interpolation=how))
