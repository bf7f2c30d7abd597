"""A folder of images in the order of their names; unreadable ones are named and left out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from engineworks import folders
from engineworks.errors import DataError
from engineworks.runtime.pictures import SUFFIXES, DepthCheck, read_picture
from engineworks.runtime.sources import Frame, Source, SourceOptions, Troubles

LIVE = False
LOCAL = True
USES = ("fps",)


def fits(address: str) -> bool:
    """A folder that exists."""
    return Path(address).is_dir()


def files(address: str) -> list[Path]:
    """The images in it, in the order of their names."""
    return [Path(address, name) for name in _found(address).files]


def _found(address: str) -> folders.Found:
    return folders.find(Path(address), SUFFIXES, deep=False)


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
    listing = _found(address)
    others = folders.by_ending(listing.others)
    if not listing.files:
        raise DataError(
            f"{address} holds no image ({', '.join(SUFFIXES)})"
            + (f"; there are {others}" if others else ""),
            hint="give a folder with images; for videos use: engineworks videos",
        )
    source = FolderSource([Path(address, name) for name in listing.files], options)
    if others:
        source.troubles.note(f"left out, since no image that is read ends so: {others}")
    return source
