"""What was found about the data: which images, whose labels, and whether a score shows anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engineworks.codec import later, place
from engineworks.manifest import Artifact
from engineworks.specs import DataSpec


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that cannot be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Turned:
    """An image with boxes that its EXIF turns upright."""

    file: str
    orientation: int
    """EXIF's number, 2..8."""


@dataclass(frozen=True, kw_only=True)
class PinnedData:
    """Images and labels fixed by one digest over the usable ones."""

    spec: DataSpec
    files: tuple[str, ...] = place()
    """Usable images, relative to the folder of `spec.images`, in its order."""
    digests: dict[str, str] = place(default_factory=dict)
    """sha256 of every image's bytes, by name: whoever reads one holds it against this."""
    sha256: str
    bad: tuple[BadImage, ...] = ()
    objects: int = 0
    """Labelled boxes (detection) or images (classification)."""
    truth: Artifact | None = later(default=None)
    """kind `annotations`: the boxes as they were understood, COCO JSON named as the files are."""
    notes: tuple[str, ...] = later(default=())
    """What was left out, merged or matched to read the labels, in words."""
    turned: tuple[Turned, ...] = later(default=())
    """Images with boxes that are decoded in another way up than they are stored."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One thing that may be wrong with a recipe, tried on some photos."""

    words: str
    """What was changed, as a recipe would say it."""
    value: float
    """The score with it."""
    photos: int
    better: bool
    """Whether that is better than chance."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The source model's AP on images that EXIF turns, with boxes taken in two ways."""

    photos: int
    upright: float
    """Boxes as if drawn on the upright images, as they were taken."""
    unturned: float
    """Boxes as if drawn on the images as they are stored."""
    doubtful: bool
    """Whether the second is better, with 95 % confidence where there are photos enough."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Whether the source model's score is better than chance, with 95 % confidence."""

    word: Literal["better", "near zero", "not judged"]
    reason: str
    objects: int
    """Labelled objects that were looked at."""
    photos: int
    value: float | None = None
    """The score on them."""
    others: float | None = None
    """The best that the same answers reach on the labels of other photos."""
    constant: float | None = None
    """What one answer for all photos reaches."""
    suspects: tuple[Suspect, ...] = ()
    """For a score near zero: what was tried, the best first."""
