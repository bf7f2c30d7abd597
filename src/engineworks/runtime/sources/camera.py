"""A camera of this machine by its number, read by OpenCV; unplugged, it is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from engineworks.errors import DataError
from engineworks.runtime.sources import Source, SourceOptions, Troubles
from engineworks.runtime.sources.network import LiveSource

LIVE = True
LOCAL = False
USES = ("give_up_s",)

#: OpenCV's LOG_LEVEL_SILENT.
_SILENT = 0


def fits(address: str) -> bool:
    """A number."""
    return address.isdecimal()


def files(address: str) -> list[Path]:
    """None."""
    return []


class CameraConnection:
    """An open camera."""

    pixel_aspect = Fraction(1)

    def __init__(self, number: int) -> None:
        import cv2

        # What it would print is said by our own error.
        before = cv2.utils.logging.setLogLevel(_SILENT)
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            cv2.utils.logging.setLogLevel(before)
        if not self._capture.isOpened():
            self._capture.release()
            raise DataError(
                f"camera {number} cannot be opened",
                hint="check that it is plugged in and no other program uses it",
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float = rate if 0 < rate <= 1000 else 30.0

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        while True:
            there, image = self._capture.read()
            if not there:
                return
            yield image, time.monotonic()

    def close(self) -> None:
        """Let the camera go."""
        self._capture.release()


def open_source(address: str, options: SourceOptions, stop: threading.Event) -> Source:
    """Open a camera.

    Raises:
        DataError: There is none with this number.
    """
    if len(address) > 9:
        raise DataError(f"there is no camera {address[:20]}...", hint="their numbers begin with 0")
    number = int(address)
    return LiveSource(
        f"camera {number}",
        CameraConnection(number),
        lambda: CameraConnection(number),
        give_up_s=options.give_up_s,
        stop=stop,
        troubles=Troubles(),
    )
