"""Where frames come from: one file per kind of source, found by the look of its address.

| address | kind |
| --- | --- |
| `clip.mp4` | a video file |
| `0`, `1` ... | a camera of this machine |
| `rtsp://...`, `http://...`, `tcp://...`, `udp://...` | a stream |
| `file:///...` | the file or folder of that path |
| a folder | its images in the order of their names |
| `-` | raw BGR frames on standard input |

Knows no detector and no output.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from engineworks.errors import DataError
from engineworks.runtime.pictures import MAX_PIXELS
from engineworks.runtime.planes import Planes
from engineworks.specs import Size

#: Asked in this order; the last one takes whatever is left.
KINDS = ("raw", "camera", "network", "folder", "file")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a stream.

    Attributes:
        pixels: uint8 (height, width, 3) BGR, or the planes of a video's frame; upright; belong to
            whoever receives them.
        number: Place in the source, from 0.
        time_s: Seconds since the start of the source, by the source's own clock.
        pixel_aspect: Width of a pixel by its height: a 4:3 picture that is to fill 16:9 has 4/3.
            The network sees the pixels as they are stored.
    """

    pixels: np.ndarray[Any, Any] | Planes
    number: int
    time_s: float
    pixel_aspect: Fraction = Fraction(1)

    @property
    def image(self) -> np.ndarray[Any, Any]:
        """uint8 (height, width, 3) BGR; of planes it is made anew at each call."""
        return self.pixels.bgr() if isinstance(self.pixels, Planes) else self.pixels

    @property
    def size(self) -> Size:
        """(height, width)."""
        if isinstance(self.pixels, Planes):
            return self.pixels.size
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(kw_only=True)
class Troubles:
    """What went wrong on the way without ending the stream."""

    damaged: int = 0
    """Packets or images that could not be decoded."""
    reconnects: int = 0
    cut: str = ""
    """How the file is cut, in words."""
    counted: int = 0
    """Frames by the header's own count, which a cut does not change; 0 where it has none."""
    estimated: bool = False
    """Whether the number of frames follows from the file's length, which may be that of its sound:
    fewer frames are no loss."""
    notes: list[str] = field(default_factory=list)
    """The first of each kind, in words."""

    def note(self, text: str) -> None:
        """Keep a line, but not thousands of them."""
        if len(self.notes) < 20:
            self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How to read a source; each kind uses what concerns it."""

    fps: float = 25.0
    """Frames per second of images and raw frames, which have no clock."""
    raw_size: Size | None = None
    """(height, width) of raw frames."""
    after_s: float | None = None
    """Leave out everything up to this time: a resumed run."""
    hardware: str = "auto"
    """Decoder: `auto`, `none`, or the name of a device kind such as `cuda`."""
    give_up_s: float = 60.0
    """Seconds without a frame after which a lost stream or camera is given up."""
    timeout_s: float = 10.0
    """Seconds to wait for a stream's answer."""
    max_pixels: int = MAX_PIXELS
    """Larger pictures and frames are refused before they are decoded."""

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise DataError(
                f"{self.fps} frames per second are no rate", hint="give one above 0, up to 1000"
            )


class Source(Protocol):
    """An open source. Iterate once; `close` when done."""

    live: bool
    """Frames come at their own pace and are lost when nobody takes them."""
    fps: float
    """Nominal frames per second."""
    frames: int | None
    """How many there will be, where that is known; an estimate."""
    troubles: Troubles

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Free it."""
        ...


def open_source(
    address: str, options: SourceOptions | None = None, stop: threading.Event | None = None
) -> Source:
    """Open whatever the address names.

    Args:
        address: See the table above.
        options: How to read it.
        stop: Ends the source's waits (for a reconnection) when set.

    Raises:
        DataError: Not there, not readable, or empty.
        MissingDependency: A package that this kind needs is not installed.
    """
    if not address:
        raise DataError("the source has no name", hint="give a file, a folder, a URL, 0 or -")
    kind, address = _kind(address)
    source: Source = kind.open_source(
        address, options or SourceOptions(), stop or threading.Event()
    )
    return source


def files(address: str) -> Sequence[Path | int]:
    """The files on this machine that are read for an address; 0 is standard input."""
    kind, address = _kind(address)
    read: Sequence[Path | int] = kind.files(address)
    return read


def local_path(address: str) -> Path | None:
    """The path of a file or folder; None for a stream, a camera or standard input."""
    kind, address = _kind(address)
    return Path(address) if kind.LOCAL else None


def spoken(address: str) -> str:
    """An address as it may be told to anybody: without user and password."""
    return re.sub(r"://[^/@\s]*@", "://", address)


def is_live(address: str) -> bool:
    """Whether this is the address of a camera or a stream, whose newest frame matters most."""
    return bool(_kind(address)[0].LIVE)


def uses(address: str) -> tuple[str, ...]:
    """The fields of `SourceOptions` that this kind has a use for, and not every kind."""
    names: tuple[str, ...] = _kind(address)[0].USES
    return names


def _kind(address: str) -> tuple[Any, str]:
    """The module for an address, and the address; a path in place of a `file://` one.

    Raises:
        DataError: A file on another machine.
    """
    if address.lower().startswith("file://"):
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise DataError(f"{address} is not on this machine", hint="give a path, or file:///...")
        address = url2pathname(parts.path)
    modules = (importlib.import_module(f"{__name__}.{kind}") for kind in KINDS)
    return next(module for module in modules if module.fits(address)), address
