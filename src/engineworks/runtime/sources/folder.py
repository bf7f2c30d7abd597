"""A folder of images in the order of their names; unreadable ones are named and left out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from engineworks import folders
from engineworks.errors import DataError
from engineworks.runtime.pictures import DepthCheck, read_picture
from engineworks.runtime.sources import Frame, Source, SourceOptions, Troubles

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}

LIVE = False
LOCAL = True


def fits(address: str) -> bool:
    """A folder that exists."""
    return Path(address).is_dir()


def files(address: str) -> list[Path]:
    """The images in it, in the order of their names."""
    found = folders.find(Path(address), _SUFFIXES, deep=False)
    return [Path(address, name) for name in found.files]


class FolderSource:
    """Images as frames, `fps` of them a second."""

    live = False

    def __init__(self, paths: list[Path], options: SourceOptions) -> None:
        self._paths, self._options = paths, options
        self.fps = options.fps
        self.frames: int | None = len(paths)
        self.troubles = Troubles()

    def __iter__(self) -> Iterator[Frame]:
        after_s, depth = self._options.after_s, DepthCheck()
        for number, path in enumerate(self._paths):
            time_s = number / self.fps
            if after_s is not None and time_s <= after_s + 1e-6:
                continue
            try:
                picture = read_picture(path, max_pixels=self._options.max_pixels)
            except DataError as error:
                self.troubles.damaged += 1
                self.troubles.note(error.message)
                continue
            depth.see(picture)
            yield Frame(pixels=picture.image, number=number, time_s=time_s)
        if depth.warning:
            self.troubles.note(depth.warning)

    def close(self) -> None:
        """Nothing is open between images."""


def open_source(address: str, options: SourceOptions, stop: threading.Event) -> Source:
    """Open a folder.

    Raises:
        DataError: There is no image in it.
    """
    paths = files(address)
    if not paths:
        raise DataError(
            f"{address} holds no image ({', '.join(sorted(_SUFFIXES))})",
            hint="give a folder with images; for videos use: engineworks videos",
        )
    return FolderSource(paths, options)
