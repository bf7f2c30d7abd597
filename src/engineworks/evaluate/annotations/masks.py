"""Masks: one grey or palette PNG beside each picture, whose values are class numbers.

`masks/a/b.png` belongs to `a/b.jpg`, whatever the picture's ending. Knows no model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from engineworks import folders
from engineworks.errors import DataError
from engineworks.evaluate.annotations import turned
from engineworks.evaluate.tasks import Look
from engineworks.facts.data import BadImage
from engineworks.runtime.picture_header import read_header
from engineworks.specs import DataSpec

Array = np.ndarray[Any, Any]

ENDING = ".png"


def is_masks(path: Path) -> bool:
    """Whether annotations given so are masks: a folder of PNGs without a text file for any."""
    if not path.is_dir():
        return False
    names = folders.find(path, {ENDING, ".txt"}).files
    stems = {_stem(name) for name in names if name.lower().endswith(ENDING)}
    return bool(stems) and not any(
        name.lower().endswith(".txt") and _stem(name) in stems for name in names
    )


def mask_files(path: Path) -> dict[str, Path]:
    """Masks by their place below the folder."""
    return {name: path / name for name in folders.find(path, {ENDING}).files}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


@dataclass(frozen=True, kw_only=True)
class MaskTruth:
    """Known classes of pixels; see `engineworks.evaluate.tasks.Truth`.

    Masks of many photos are large: they are decoded one at a time, and held as the PNGs they are.
    """

    png: dict[str, bytes]
    """Name of an image without its ending -> its mask."""
    source: str
    classes: int
    """How many the model has."""
    ignored: int | None
    """Value of pixels that do not count."""
    turns: dict[str, int] = field(default_factory=dict)
    """EXIF's number of images whose masks are turned with them."""
    left_out: tuple[str, ...] = ()
    kept: bool = True

    def names(self, file: str) -> bool:
        """Whether it has a mask."""
        return _stem(file) in self.png

    def mask(self, file: str) -> Array:
        """Class numbers, int32 (height, width) of the upright image; -1 where none counts.

        Raises:
            DataError: It is no mask, or holds a number that is no class.
        """
        values = decode(self.png[_stem(file)], f"the mask of {file}")
        if file in self.turns:
            values = turned.turn(values, self.turns[file])
        mask = values.astype(np.int32)
        if self.ignored is not None:
            mask[values == self.ignored] = -1
        highest = int(mask.max(initial=-1))
        if highest >= self.classes:
            also = "" if self.ignored is None else f"; {self.ignored} is ignored"
            raise DataError(
                f"the mask of {file} holds {highest}, the model has {self.classes} classes{also}",
                hint="mask pixels are class numbers from 0, in the order of task.labels; for "
                "pixels that do not count, set task.options.ignore_index",
            )
        return mask

    def look(self, file: str, image: Array, stored: bytes, frame: str | None) -> Look:
        """Hold a mask's size and values against the picture and the classes."""
        size = (image.shape[0], image.shape[1])
        number = turned.orientation(stored, image)
        header = read_header(self.png[_stem(file)])
        if header is not None and header.height * header.width > size[0] * size[1]:
            # Before it is decoded: some bytes may declare gigabytes.
            declared = (header.height, header.width)
            return Look(reason=turned.mismatch(file, declared, size, number, frame)[0])
        try:
            mask = self.mask(file)
        except DataError as error:
            return Look(reason=error.message)
        reason, as_stored = turned.mismatch(
            file, (mask.shape[0], mask.shape[1]), size, number, frame
        )
        return Look(reason=reason, as_stored=as_stored, orientation=number)

    def turned(self, numbers: Mapping[str, int]) -> MaskTruth:
        """Masks of stored pictures, upright."""
        return replace(self, turns=dict(numbers))

    def objects(self, files: Sequence[str]) -> int:
        """Areas: classes, photo by photo.

        Raises:
            DataError: No pixel counts, or all are of one class where the model has more.
        """
        seen: set[int] = set()
        areas = 0
        for file in files:
            numbers = set(np.unique(self.mask(file)).tolist()) - {-1}
            seen |= numbers
            areas += len(numbers)
        if len(seen) < min(2, self.classes):
            what = f"one class, {seen.pop()}," if seen else "no pixel that counts"
            raise DataError(
                f"the masks of {len(files)} images in {self.source} hold {what} and nothing else"
                + ("" if self.ignored is None else f" beside {self.ignored}, which is ignored"),
                hint="mask pixels are class numbers 0, 1, 2 ...; where 255 means a class, write "
                "that class's number instead, or set task.options.ignore_index",
            )
        return areas

    def notes(self, digests: Mapping[str, str]) -> tuple[str, ...]:
        """What was left out."""
        return self.left_out

    def save(self, path: Path) -> None:
        """JSON that `read_saved` reads back as it is."""
        masks = {name: base64.b64encode(data).decode() for name, data in self.png.items()}
        path.write_text(json.dumps({"masks": masks, "turns": self.turns}), encoding="utf-8")


def decode(data: bytes, what: str) -> Array:
    """The values of a mask: grey levels, or the numbers of a palette.

    Args:
        data: Bytes of a PNG.
        what: For messages.

    Returns:
        uint8 or uint16 (height, width).

    Raises:
        DataError: No PNG, or one with colours.
    """
    import cv2

    header = read_header(data)
    if header is None or header.cut:
        values = None
    # A palette's colours are of no interest: cv2 would give them in place of its numbers.
    elif data[25:26] == b"\x03":
        values = _indices(data)
    else:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        shape = "nothing that can be decoded" if values is None else str(np.shape(values))
        raise DataError(
            f"{what} is {shape}, not one number for each pixel",
            hint="write masks as grey PNGs of 8 or 16 bits, or as PNGs with a palette",
        )
    return np.asarray(values)


def _indices(data: bytes) -> Array | None:
    """The numbers of a palette PNG: the same file, declared grey and without its palette."""
    import struct
    import zlib

    import cv2

    parts, place, depth = [data[:8]], 8, data[24]
    while place + 8 <= len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        if name == b"IHDR":
            body = body[:9] + b"\x00" + body[10:]
        if name not in (b"PLTE", b"tRNS"):
            check = struct.pack(">I", zlib.crc32(name + body))
            parts.append(struct.pack(">I", len(body)) + name + body + check)
        place += 12 + size
    grey = cv2.imdecode(np.frombuffer(b"".join(parts), np.uint8), cv2.IMREAD_UNCHANGED)
    if grey is None or depth == 8:
        return grey
    # Fewer bits are stretched over 0..255.
    return np.asarray(np.rint(grey.astype(np.float32) * (2**depth - 1) / 255).astype(np.uint8))


def read_masks(
    spec: DataSpec, classes: int, ignored: int | None, files: Sequence[str], *, chosen: bool
) -> tuple[MaskTruth, list[BadImage]]:
    """Find the masks of these pictures.

    Args:
        spec: With annotations.
        classes: How many the model has.
        ignored: Value of pixels that do not count.
        files: All images, relative to the folder of `spec.images`.
        chosen: `files` are a list of the user's own: masks without one are not missed.

    Returns:
        (masks, pictures without one; those count as bad).

    Raises:
        DataError: No annotations, or no mask for any picture.
    """
    path = Path(spec.annotations or "")
    if spec.annotations is None or not is_masks(path):
        raise DataError(
            "data.annotations is missing: a segmentation is scored with masks"
            if spec.annotations is None
            else f"data.annotations: {path} is no folder of masks",
            hint="give a folder with a PNG for each picture, of the same name: masks/a.png for "
            "images/a.jpg; or task.kind: none to check numeric parity only",
        )
    by_stem = {_stem(name): place for name, place in mask_files(path).items()}
    stems = [_stem(name) for name in files]
    doubled = next((stem for stem in stems if stems.count(stem) > 1), None)
    if doubled is not None:
        raise DataError(
            f"data.images: two pictures are called {doubled!r}, whatever their ending: whose mask "
            f"{doubled}{ENDING} is cannot be known",
            hint="rename one of them, and give each its mask",
        )
    png = {stem: by_stem[stem].read_bytes() for stem in stems if stem in by_stem}
    if not png:
        raise DataError(
            f"none of the {len(files)} images in {spec.images} has a mask in {path}",
            hint=f"file names must agree, for example {_stem(files[0])}{ENDING}",
        )
    strangers = len(by_stem) - len(png)
    note = f"{strangers} masks in {path.name} belong to no picture, left out"
    bad = [
        BadImage(file=name, reason=f"{name} has no mask {_stem(name)}{ENDING} in {path.name}")
        for name in files
        if _stem(name) not in png
    ]
    masks = MaskTruth(
        png=png, source=str(path), classes=classes, ignored=ignored,
        left_out=(note,) if strangers and not chosen else (),
    )  # fmt: skip
    return masks, bad


def read_saved(path: Path, classes: int, ignored: int | None) -> MaskTruth:
    """What `MaskTruth.save` wrote, or a folder of masks as it is.

    Raises:
        DataError: It cannot be read.
    """
    try:
        if path.is_dir():
            png = {_stem(name): place.read_bytes() for name, place in mask_files(path).items()}
            return MaskTruth(png=png, source=str(path), classes=classes, ignored=ignored)
        raw = json.loads(path.read_text(encoding="utf-8"))
        png = {str(name): base64.b64decode(data) for name, data in raw["masks"].items()}
        turns = {str(name): int(number) for name, number in raw["turns"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"data.annotations: {path} holds no masks ({type(error).__name__}: {error})",
            hint="run the recipe again, so that the masks are read anew",
        ) from error
    return MaskTruth(png=png, source=str(path), classes=classes, ignored=ignored, turns=turns)
