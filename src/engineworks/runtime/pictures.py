"""Picture files decoded, with one limit for whoever reads them.

Evaluation, calibration, commands and servers read pictures here. A picture's size is read from
its header and held against the limit before a codec sees it. Knows no model and no folder.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import files
from engineworks.errors import DataError
from engineworks.runtime.picture_header import Header, other_format, read_header
from engineworks.specs import MAX_PIXELS as MAX_PIXELS

Array = np.ndarray[Any, Any]

#: Of the files that a folder is searched for, in lower case: every format that is read here.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".pnm", ".ppm", ".pgm", ".pbm"),
)

#: Bytes of a file for each pixel of the limit: as many as the decoded picture has.
_BYTES_PER_PIXEL = 3

#: A decoder may go over the largest picture so many times (the usual progressive JPEG has 10
#: scans), over a smaller one more often.
_SCANS = 20

#: Pictures above this size are decoded one at a time, so that four threads do not need four times
#: the memory.
_LARGE_PIXELS = 2**24
_ONE_LARGE = threading.Lock()

#: A 16-bit picture whose samples all stay below 1/16 of white has these values in 8 bits.
_TWELVE_BITS = 16

_REPLACE = "replace or remove the file (a recipe may say data.on_bad_image: skip)"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: uint8 (height, width, 3) BGR, upright.
        bits: Of a sample in the file. What has 16 is read by its upper 8.
    """

    image: Array
    bits: int

    @property
    def below_a_sixteenth(self) -> bool:
        """Whether it is a 16-bit picture that uses less than 1/16 of its range."""
        return self.bits == 16 and int(self.image.max()) < _TWELVE_BITS


class DepthCheck:
    """Watches a set of pictures for those of 12 bits that were written into files of 16."""

    def __init__(self) -> None:
        self._deep = self._dark = 0
        self._lock = threading.Lock()

    def see(self, picture: Picture) -> None:
        """Count one; any thread may call it."""
        if picture.bits == 16:
            with self._lock:
                self._deep += 1
                self._dark += picture.below_a_sixteenth

    @property
    def warning(self) -> str:
        """What is wrong with the set, and the next step; empty where nothing is."""
        if not self._deep or self._dark < self._deep:
            return ""
        return (
            f"all {self._deep} 16-bit pictures stay below 1/16 of their range and are read as "
            "nearly black (0 to 15 of 255): they look like 12-bit samples that were not scaled "
            "up; multiply them by 16, as the format wants it, and read them again"
        )


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Decode an image file to uint8 BGR (height, width, 3), turned upright by its EXIF.

    Args:
        path: JPEG, PNG, BMP, WebP, TIFF, GIF or PNM.
        max_pixels: Refuse a larger picture, before it is decoded.

    Raises:
        DataError: The file is missing, empty, truncated, no image or too large.
    """
    return read_picture(path, max_pixels=max_pixels).image


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """As `read_image`, with what the file says of its depth."""
    check_size(path, max_pixels)
    try:
        data = files.read_bytes(path, max_pixels * _BYTES_PER_PIXEL)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", hint="check the path and its permissions"
        ) from error
    return decode_picture(data, path.name, max_pixels=max_pixels)


def check_size(path: Path, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a file with more bytes than the largest picture has, unread.

    Raises:
        DataError: It has. What cannot be looked at is left to whoever reads it.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return
    if size > max_pixels * _BYTES_PER_PIXEL:
        raise DataError(
            f"{path.name}: {size:,} bytes, more than a picture of {max_pixels:,} pixels has",
            hint="make it smaller, or raise the limit: --max-pixels, max_pixels in a recipe",
        )


def decode_picture(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the bytes of an image file.

    Args:
        data: The whole file.
        name: For messages.
        max_pixels: As for `read_image`.

    Raises:
        DataError: As `read_image`.
    """
    header = read_header(data)
    if header is None:
        raise _not_understood(data, name)
    check_pixels(header.height, header.width, name, max_pixels)
    if header.scans * header.width * header.height > _SCANS * max_pixels:
        raise DataError(
            f"{name}: a picture of {header.width}x{header.height} pixels in {header.scans} scans, "
            "made to keep its reader busy",
            hint=_REPLACE,
        )
    if not header.whole:
        raise DataError(
            f"{name}: its samples are floating-point or signed numbers, whose black and white "
            "nobody has said",
            hint="write it as 8-bit or 16-bit whole numbers, scaled as the model was trained",
        )
    # OpenCV fills the missing part of a cut JPEG with grey and says nothing.
    if header.cut:
        raise DataError(f"{name}: the {header.format} ends before its picture does", hint=_REPLACE)
    if header.width * header.height > _LARGE_PIXELS:
        with _ONE_LARGE:
            image = _decoded(data, header)
    else:
        image = _decoded(data, header)
    if image is None:
        _has_room(header)
        raise _not_understood(data, name)
    return Picture(image=image, bits=header.bits)


def _has_room(header: Header) -> None:
    """Raise the `MemoryError` that OpenCV keeps to itself: it says that it knows no codec."""
    np.empty((header.height, header.width, 3), np.uint16)


def _not_understood(data: bytes, name: str) -> DataError:
    other = other_format(data)
    if other:
        return DataError(
            f"{name}: {other} is not read", hint="convert it to PNG, JPEG, WebP or TIFF"
        )
    return DataError(f"{name}: {len(data)} bytes that no image codec understands", hint=_REPLACE)


def check_pixels(height: int, width: int, name: str, max_pixels: int) -> None:
    """Refuse a picture or frame that is larger than it may be.

    Raises:
        DataError: It has more than `max_pixels`, or none.
    """
    if height * width > max_pixels:
        raise DataError(
            f"{name}: {width}x{height} pixels, more than the {max_pixels:,} that are read",
            hint="make it smaller, or raise the limit: --max-pixels, max_pixels in a recipe",
        )
    if min(height, width) < 1:
        raise DataError(f"{name}: {width}x{height} is no picture", hint=_REPLACE)


def _decoded(data: bytes, header: Header) -> Array | None:
    """By OpenCV; samples of any depth fill 0 to 255, of 16 bits the upper 8 are kept."""
    import cv2

    other_white = header.white not in (0, 255, 65535)
    deep = header.bits == 16 or other_white
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH * deep)
        )
    except cv2.error:
        return None
    if image is None:
        return None
    if other_white:
        return np.asarray(cv2.convertScaleAbs(image, alpha=255 / header.white))
    if image.dtype == np.uint16:
        image >>= 8  # in place: a large picture has no room for a copy
        return np.asarray(image.astype(np.uint8))
    return np.asarray(image)
