"""Which images are used, for what, and how one becomes the model's input. Opens none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from engineworks.codec import later, place
from engineworks.specs.ground import STRICT, is_reference, must

#: Pixels of the largest picture that is read unless somebody asks for more: 8192 x 8192. Decoding
#: one takes up to 0.8 GiB, whatever the file holds (a progressive JPEG keeps 9 bytes a pixel).
MAX_PIXELS = 2**26


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the model's input. Travels with every engine in its manifest.

    value = (pixel * scale - mean[c]) / std[c], pixels 0..255, channels in `color` order.
    """

    __pydantic_config__ = STRICT

    color: Literal["rgb", "bgr", "gray"] = "rgb"
    """Channel order that the model was trained with."""
    resize: Literal["letterbox", "stretch", "center_crop"] = "stretch"
    """letterbox keeps the aspect ratio and pads; stretch does not keep it; center_crop scales
    the shorter side and cuts the middle."""
    anchor: Literal["center", "top_left"] = "center"
    """Where a letterboxed image sits in its frame."""
    pad: int = 114
    """Grey value 0..255 of the letterbox border."""
    scale: float = 1 / 255
    """Factor on pixel values, before mean and std."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Subtracted per channel, after scale."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Divided by per channel, last."""

    def __post_init__(self) -> None:
        must(0 <= self.pad <= 255, f"preprocess.pad: {self.pad} is not in 0..255", "use 114")
        must(
            all(value > 0 and math.isfinite(value) for value in (*self.std, self.scale))
            and all(map(math.isfinite, self.mean)),
            f"preprocess: std {list(self.std)} and scale {self.scale} must be greater than 0, "
            f"mean {list(self.mean)} a number",
            "use std: [1, 1, 1] when the model needs none",
        )
        must(
            len(self.mean) == len(self.std) == (1 if self.color == "gray" else 3),
            f"preprocess: mean has {len(self.mean)} and std {len(self.std)} values for "
            f"color {self.color}",
            "give one value per channel",
        )


def _check_max_pixels(section: str, value: int) -> None:
    must(
        1 <= value <= 2**30,
        f"{section}.max_pixels: {value} is outside 1..1073741824",
        f"leave it out for {MAX_PIXELS}, which is 8192 x 8192",
    )


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Images with known answers, on which every engine is judged."""

    __pydantic_config__ = STRICT

    images: str = place()
    """Folder of images, for classification with one folder per class; or a `.txt` file that lists
    them, a path a line, relative to that file."""
    annotations: str | None = place(default=None)
    """Boxes (detection): COCO JSON, or YOLO labels, as their folder or their data.yaml."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An unreadable image: stop the run, or name it in the report and go on without."""
    limit: int | None = None
    """Use at most N images, spread evenly over the names, or over the lines of a list."""
    max_pixels: int = later(default=MAX_PIXELS)
    """A larger image is unreadable, by its header; 67108864 is 8192 x 8192. Reading one takes up to
    12 bytes of memory for each pixel."""
    frame: Literal["upright", "unturned"] | None = later(default=None)
    """What boxes were drawn on: pictures that their EXIF turns upright, or as they are stored; the
    latter are turned with their pictures. Left out: upright, unless the evidence speaks against
    it."""
    accept: tuple[Literal["impossible_boxes", "near_zero"], ...] = later(default=())
    """Findings that stop a run and are right for this data. `impossible_boxes`: many boxes leave
    their pictures; `near_zero`: the source model scores no better than chance."""

    def __post_init__(self) -> None:
        must(
            self.limit is None or self.limit > 0,
            f"data.limit: {self.limit} images cannot judge anything",
            "give a number of at least 1, or leave it out for all images",
        )
        _check_max_pixels("data", self.max_pixels)


@dataclass(frozen=True, kw_only=True)
class CalibrationSpec:
    """Images that show INT8 which values occur. Not the ones that judge the engines."""

    __pydantic_config__ = STRICT

    images: str = place()
    """Folder of images; or a `.txt` file that lists them, a path a line, relative to that file; or
    `module:function` beside the recipe, which yields images: uint8 (height, width, 3), BGR."""
    annotations: str | None = place(default=None)
    """Boxes of these images, as in `data`: only images that they name are used, and the report
    counts classes."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An unreadable image: stop the run, or go on without it."""
    limit: int = 512
    """Use at most this many, spread evenly over the names; of a function the first."""
    minimum: int = 16
    """Refuse to calibrate with fewer: their ranges say little."""

    max_pixels: int = later(default=MAX_PIXELS)
    """As `data.max_pixels`."""

    @property
    def made(self) -> bool:
        """Whether a function of the user's makes the images."""
        return is_reference(self.images)

    def __post_init__(self) -> None:
        _check_max_pixels("calibration", self.max_pixels)
        must(
            not self.made or self.annotations is None,
            f"calibration.annotations: images that {self.images!r} makes have no file names",
            "leave annotations out; they only serve the report's class counts",
        )
        must(
            1 <= self.minimum <= self.limit,
            f"calibration: minimum {self.minimum} and limit {self.limit} do not fit",
            "use for example minimum: 16 and limit: 512",
        )
