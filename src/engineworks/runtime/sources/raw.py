"""Raw frames on standard input: height * width * 3 bytes each, BGR, without header."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from engineworks.errors import DataError
from engineworks.runtime.pictures import check_pixels
from engineworks.runtime.sources import Frame, Source, SourceOptions, Troubles
from engineworks.specs import Size

#: Seconds between two looks at whether it is stopped, while nothing comes.
_LOOK_S = 0.2

LIVE = False
LOCAL = False
USES = ("raw_size", "fps")


def fits(address: str) -> bool:
    """`-`."""
    return address == "-"


def files(address: str) -> list[int]:
    """Standard input, which may be a file."""
    return [0]


class RawSource:
    """Frames cut from a byte stream; an incomplete last one is counted and left out."""

    live = False
    frames: int | None = None

    def __init__(
        self,
        stream: BinaryIO,
        size: Size,
        options: SourceOptions,
        stop: threading.Event | None = None,
    ) -> None:
        self._stream, self._size, self._options = stream, size, options
        self._stop = stop or threading.Event()
        self.fps = options.fps
        self.troubles = Troubles()

    def __iter__(self) -> Iterator[Frame]:
        height, width = self._size
        wanted, number = height * width * 3, 0
        while data := self._read(wanted):
            if len(data) < wanted:
                self.troubles.damaged += 1
                self.troubles.note(f"the input ended after {len(data)} of {wanted} bytes")
                return
            image = np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()
            time_s, after_s = number / self.fps, self._options.after_s
            if after_s is None or time_s > after_s + 1e-6:
                yield Frame(pixels=image, number=number, time_s=time_s)
            number += 1

    def _read(self, wanted: int) -> bytes:
        """So many bytes; fewer at the end, or when it is stopped while nothing comes."""
        try:
            number = self._stream.fileno()
            select.select([number], [], [], 0)
        except (OSError, ValueError):  # no descriptor, or none that this system can wait for
            return self._stream.read(wanted)
        data = bytearray()
        while len(data) < wanted and not self._stop.is_set():
            if not select.select([number], [], [], _LOOK_S)[0]:
                continue
            more = os.read(number, wanted - len(data))
            if not more:
                break
            data += more
        return b"" if self._stop.is_set() else bytes(data)

    def close(self) -> None:
        """Standard input stays open: it is not ours."""


def open_source(address: str, options: SourceOptions, stop: threading.Event) -> Source:
    """Read frames from standard input.

    Raises:
        DataError: Their size was not said, or is above the limit.
    """
    if options.raw_size is None:
        raise DataError(
            "raw frames on standard input have no header that says their size",
            hint="say it: --raw-size 640x480 (width x height), and --fps",
        )
    height, width = options.raw_size
    check_pixels(height, width, "--raw-size", options.max_pixels)
    return RawSource(sys.stdin.buffer, options.raw_size, options, stop)
