"""From an image to the model's input, by the `Preprocess` that travels in the manifest.

The one implementation for evaluation, benchmark, servers and video. Knows no model. Images are
uint8 (height, width, 3) in BGR order, as OpenCV decodes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import DataError
from engineworks.specs import Preprocess, Size

Array = np.ndarray[Any, Any]


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


def read_image(path: Path) -> Array:
    """Decode an image file to uint8 BGR (height, width, 3), turned upright by its EXIF.

    Raises:
        DataError: The file is missing, empty, truncated or no image.
    """
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", hint="check the path and its permissions"
        ) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(
            f"{path.name}: {data.size} bytes that no image codec understands",
            hint="replace or remove the file, or set data.on_bad_image: skip",
        )
    # OpenCV fills the missing part of a cut JPEG with grey and says nothing.
    if _is_cut_jpeg(data.tobytes()):
        raise DataError(
            f"{path.name}: the JPEG ends before its picture does",
            hint="replace or remove the file, or set data.on_bad_image: skip",
        )
    return np.asarray(image)


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG lacks its end-of-image marker (ITU-T T.81, annex B).

    Segments are walked to the start of scan, since an embedded thumbnail has an end of its own;
    in the scan itself 0xFF is stuffed, so the marker found there is the picture's.
    """
    if data[:2] != b"\xff\xd8":
        return False
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xDA:
            return b"\xff\xd9" not in data[position:]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


class Preprocessor:
    """Applies one `Preprocess` at one input size; keeps its buffers between calls."""

    def __init__(self, spec: Preprocess, size: Size) -> None:
        self.spec = spec
        self.height, self.width = size
        self._factor = np.array([spec.scale / std for std in spec.std], np.float32)
        self._shift = np.array(
            [mean / std for mean, std in zip(spec.mean, spec.std, strict=True)], np.float32
        )
        self._canvas = np.full((self.height, self.width, 3), spec.pad, np.uint8)

    def __call__(self, image: Array) -> tuple[Array, Placement]:
        """Convert one image.

        Args:
            image: uint8 (height, width, 3) BGR.

        Returns:
            float32 (channels, height, width) of the model's input, newly allocated, and where
            the image lies in it.
        """
        placed, placement = self._resize(image)
        return self._normalise(placed), placement

    def _resize(self, image: Array) -> tuple[Array, Placement]:
        import cv2

        height, width = image.shape[:2]
        if self.spec.resize == "stretch":
            resized = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
            scale_x, scale_y, left, top = self.width / width, self.height / height, 0, 0
            return np.asarray(resized), Placement(
                scale_x=scale_x, scale_y=scale_y, offset_x=0, offset_y=0, width=width, height=height
            )
        if self.spec.resize == "center_crop":
            scale = max(self.height / height, self.width / width)
            inner = (max(self.width, round(width * scale)), max(self.height, round(height * scale)))
            resized = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
            left, top = (inner[0] - self.width) // 2, (inner[1] - self.height) // 2
            cut = resized[top : top + self.height, left : left + self.width]
            return np.asarray(cut), Placement(
                scale_x=scale, scale_y=scale, offset_x=-left, offset_y=-top,
                width=width, height=height,
            )  # fmt: skip
        scale = min(self.height / height, self.width / width)
        inner = (max(1, int(width * scale)), max(1, int(height * scale)))
        left, top = 0, 0
        if self.spec.anchor == "center":
            left, top = (self.width - inner[0]) // 2, (self.height - inner[1]) // 2
        canvas = self._canvas
        canvas[:] = self.spec.pad
        inside = canvas[top : top + inner[1], left : left + inner[0]]
        inside[:] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        return canvas, Placement(
            scale_x=scale, scale_y=scale, offset_x=left, offset_y=top, width=width, height=height
        )

    def _normalise(self, image: Array) -> Array:
        if self.spec.color == "gray":
            import cv2

            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[:, :, None]
        planes = np.empty((len(self._factor), self.height, self.width), np.float32)
        for channel in range(len(planes)):
            source = len(planes) - 1 - channel if self.spec.color == "rgb" else channel
            np.multiply(image[:, :, source], self._factor[channel], out=planes[channel])
            if self._shift[channel]:
                planes[channel] -= self._shift[channel]
        return planes
