"""From an image to the model's input, by the `Preprocess` that travels in the manifest.

The one implementation for evaluation, benchmark, servers and video. Knows no model. Images are
uint8 (height, width, 3) in BGR order, as OpenCV decodes them. Buffers that live on and planes that
are contiguous make it several times as fast as the five lines that guides print
(`make bench-runtime`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.errors import DataError
from engineworks.runtime.planes import Planes
from engineworks.specs import Preprocess, Size

Array = np.ndarray[Any, Any]

#: Pixels of a resized image that is then cut to the input; of a larger one only the middle is made.
LARGEST_INNER = 2**24


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the source image lies in the model's input: input = source * scale + offset.

    Pixels, x before y; `width` and `height` are the source's.
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    width: int
    height: int

    def to_source(self, xyxy: Array) -> Array:
        """Boxes (n, 4) from input pixels to source pixels, clipped to the image."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        source: Array = np.clip((xyxy - offset) / scale, 0, limit).astype(np.float32)
        return source


def check_image(image: Array) -> None:
    """Refuse what is no source image.

    Raises:
        DataError: Not uint8 (height, width, 3), or without a pixel.
    """
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"an image is a numpy array, this is {type(image).__name__}",
            hint="decode files with engineworks.runtime.read_image",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"an image is uint8 (height, width, 3) in BGR order, this is {image.dtype} "
            f"{image.shape}",
            hint="decode with engineworks.runtime.read_image; cv2.cvtColor turns gray or BGRA to "
            "BGR; pixels must not be scaled before",
        )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How an image of one size is placed: resized to `inner`, cut, put down at (top, left)."""

    source: tuple[slice, slice]
    """The part of the image that is resized: rows, columns."""
    inner: tuple[int, int]
    """Width and height of the resized image, as cv2 orders them."""
    cut: tuple[slice, slice]
    """The part of the resized image that is used: rows, columns."""
    to: tuple[slice, slice]
    """Where that part lies in the model's input: rows, columns."""
    covers: bool
    """Whether it fills the input, so that no border is left."""
    placement: Placement


class Preprocessor:
    """Applies one `Preprocess` at one input size.

    Safe to call from several threads: work buffers are kept per thread, and the answer is always
    written to memory that the caller owns.

    Args:
        spec: What to do.
        size: Input (height, width).
        uint8: The engine's own graph normalises: give it the placed pixels as they are, uint8
            (height, width, 3) in BGR order, whatever `color`, `scale`, `mean` and `std` say.
    """

    def __init__(self, spec: Preprocess, size: Size, *, uint8: bool = False) -> None:
        self.spec = spec
        self.height, self.width = size
        self.uint8 = uint8
        self._factor = np.array([spec.scale / std for std in spec.std], np.float32)
        self._shift = np.array(
            [mean / std for mean, std in zip(spec.mean, spec.std, strict=True)], np.float32
        )
        self._border = np.float32(spec.pad) * self._factor - self._shift
        self._buffers = threading.local()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one row of the model's input."""
        if self.uint8:
            return self.height, self.width, 3
        return len(self._factor), self.height, self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of a row."""
        return np.dtype(np.uint8 if self.uint8 else np.float32)

    def __call__(self, image: Array | Planes, out: Array | None = None) -> tuple[Array, Placement]:
        """Convert one image.

        Args:
            image: uint8 (height, width, 3) BGR, of any size, or the planes of a video's frame.
            out: Array of `shape` and `dtype` to write to, for example a row of a batch;
                None: a new one. Every element is written.

        Returns:
            The row, float32 (channels, height, width) (or see `uint8`), and where the image lies
            in it.

        Raises:
            DataError: The image is none.
        """
        import cv2

        if isinstance(image, Planes):
            plan = self._plan(*image.size)
            whole = (slice(0, image.size[0]), slice(0, image.size[1]))
            if plan.source == whole:
                part = image.bgr((plan.inner[1], plan.inner[0]))[plan.cut]
            else:
                part = cv2.resize(image.bgr()[plan.source], plan.inner)[plan.cut]
        else:
            check_image(image)
            plan = self._plan(image.shape[0], image.shape[1])
            inner = self._buffer("inner", (plan.inner[1], plan.inner[0], 3))
            part = image[plan.source]
            part = cv2.resize(part, plan.inner, dst=inner, interpolation=cv2.INTER_LINEAR)
            part = part[plan.cut]
        row = np.empty(self.shape, self.dtype) if out is None else out
        if row.shape != self.shape or row.dtype != self.dtype:
            raise ValueError(f"out must be {self.dtype} {self.shape}, got {row.dtype} {row.shape}")
        if self.uint8:
            if not plan.covers:
                row[...] = self.spec.pad
            row[plan.to] = part
            return row, plan.placement
        if not plan.covers:
            row[...] = self._border[:, None, None]
        for plane, pixels, factor, shift in zip(
            row, self._planes(part), self._factor, self._shift, strict=True
        ):
            # From contiguous pixels: three times as fast as from every third byte.
            np.multiply(pixels, factor, out=plane[plan.to])
            if shift:
                plane[plan.to] -= shift
        return row, plan.placement

    def _planes(self, part: Array) -> Sequence[Array]:
        """Contiguous uint8 (height, width) planes in the model's channel order."""
        import cv2

        shape = part.shape[:2]
        if self.spec.color == "gray":
            gray = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY, dst=self._buffer("gray", shape))
            return [np.asarray(gray)]
        planes = cv2.split(part, [self._buffer(channel, shape) for channel in "bgr"])
        return [np.asarray(planes["bgr".index(channel)]) for channel in self.spec.color]

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Array:
        """This thread's work buffer of this name, made anew when the shape changes."""
        buffer: Array | None = getattr(self._buffers, name, None)
        if buffer is None or buffer.shape != shape:
            buffer = np.empty(shape, np.uint8)
            setattr(self._buffers, name, buffer)
        return buffer

    def _plan(self, height: int, width: int) -> _Plan:
        known: tuple[tuple[int, int], _Plan] | None = getattr(self._buffers, "plan", None)
        if known is None or known[0] != (height, width):
            known = (height, width), _PLANS[self.spec.resize](self, height, width)
            self._buffers.plan = known
        return known[1]

    def _stretch(self, height: int, width: int) -> _Plan:
        return self._placed((self.width, self.height), (0, 0), (height, width))

    def _center_crop(self, height: int, width: int) -> _Plan:
        scale = max(self.height / height, self.width / width)
        rows, columns = slice(0, height), slice(0, width)
        if height * width * scale * scale > LARGEST_INNER:
            # A strip that is thousands of times as long as wide: nearly all of it is cut away.
            rows = _middle(height, 4 * self.height / scale)
            columns = _middle(width, 4 * self.width / scale)
        inner = (
            max(self.width, round((columns.stop - columns.start) * scale)),
            max(self.height, round((rows.stop - rows.start) * scale)),
        )
        offset = -((inner[0] - self.width) // 2), -((inner[1] - self.height) // 2)
        return self._placed(inner, offset, (height, width), (rows, columns))

    def _letterbox(self, height: int, width: int) -> _Plan:
        scale = min(self.height / height, self.width / width)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        offset = (0, 0)
        if self.spec.anchor == "center":
            offset = (self.width - inner[0]) // 2, (self.height - inner[1]) // 2
        return self._placed(inner, offset, (height, width))

    def _placed(
        self,
        inner: tuple[int, int],
        offset: tuple[int, int],
        size: Size,
        source: tuple[slice, slice] | None = None,
    ) -> _Plan:
        """The plan for an image (or its part `source`) that is resized to `inner`, put at `offset`.

        Each axis has the scale that whole pixels leave it, not the one that was aimed at: boxes in
        a picture of 3840 pixels would else be up to 3.8 pixels off at its far edge.
        """
        left, top = offset
        height, width = size
        rows_of, columns_of = source or (slice(0, height), slice(0, width))
        scale_x = inner[0] / (columns_of.stop - columns_of.start)
        scale_y = inner[1] / (rows_of.stop - rows_of.start)
        columns = slice(max(0, left), min(self.width, left + inner[0]))
        rows = slice(max(0, top), min(self.height, top + inner[1]))
        return _Plan(
            source=(rows_of, columns_of),
            inner=inner,
            cut=(
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            ),
            to=(rows, columns),
            covers=(rows.start, rows.stop, columns.start, columns.stop)
            == (0, self.height, 0, self.width),
            placement=Placement(
                scale_x=scale_x, scale_y=scale_y,
                offset_x=left - columns_of.start * scale_x,
                offset_y=top - rows_of.start * scale_y,
                width=width, height=height,
            ),
        )  # fmt: skip


def _middle(length: int, wanted: float) -> slice:
    """The middle of an axis, `wanted` pixels of it at least, as far as it has them."""
    margin = max(0, int((length - wanted) // 2))
    return slice(margin, length - margin)


_PLANS: dict[str, Callable[[Preprocessor, int, int], _Plan]] = {
    "stretch": Preprocessor._stretch,
    "center_crop": Preprocessor._center_crop,
    "letterbox": Preprocessor._letterbox,
}
