"""A video file: every frame, with its own time stamp (variable frame rates stay what they are)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from engineworks.errors import DataError
from engineworks.runtime.sources import Frame, Source, SourceOptions, Troubles
from engineworks.runtime.sources.decoder import Decoder
from engineworks.runtime.sources.wholeness import cut

LIVE = False
LOCAL = True
USES = ("hardware",)


def fits(address: str) -> bool:
    """Whatever no other kind takes."""
    return True


def files(address: str) -> list[Path]:
    """The video itself."""
    return [Path(address)]


#: FFmpeg's names of containers whose header counts frames; of others it counts what is there.
_COUNTING = ("mov,mp4,m4a,3gp,3g2,mj2", "avi")


class FileSource:
    """A file that FFmpeg can read; a whole video at an http address is one as well."""

    live = False

    def __init__(self, decoder: Decoder, after_s: float | None) -> None:
        self._decoder, self._after_s = decoder, after_s
        self.troubles = decoder.troubles
        self.fps = decoder.fps
        if decoder.container.format.name in _COUNTING:
            self.troubles.counted = decoder.stream.frames
        self.troubles.estimated = not decoder.stream.frames
        duration_s = decoder.duration_s
        self.frames = decoder.stream.frames or (
            round(duration_s * self.fps) if duration_s else None
        )

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        if self._after_s is not None:
            number = self._skip(self._after_s)
        for pixels, time_s in self._decoder:
            if self._after_s is not None and time_s <= self._after_s + 1e-6:
                continue
            yield Frame(
                pixels=pixels,
                number=number,
                time_s=time_s,
                pixel_aspect=self._decoder.pixel_aspect,
            )
            number += 1

    def _skip(self, after_s: float) -> int:
        """Go to the last key frame before a time; how many frames lie up to it (not decoded)."""
        container, stream = self._decoder.container, self._decoder.stream
        start, unit = stream.start_time or 0, stream.time_base
        assert unit is not None  # noqa: S101 - a stream of a file has a clock
        limit = start + round((after_s + 1e-6) / float(unit))
        times = (packet.pts for packet in container.demux(stream))
        number = sum(1 for pts in times if pts is not None and pts <= limit)
        container.seek(limit, stream=stream, backward=True)
        return number

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()


def open_source(address: str, options: SourceOptions, stop: threading.Event) -> Source:
    """Open a video file.

    Raises:
        DataError: Missing, empty, or no video.
    """
    path = Path(address)
    if not path.is_file():
        raise DataError(f"there is no file or folder {address}", hint="check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{address} is empty (0 bytes)", hint="record or copy it again")
    decoder = Decoder(
        address,
        hardware=options.hardware,
        troubles=Troubles(cut=cut(path)),
        max_pixels=options.max_pixels,
    )
    return FileSource(decoder, options.after_s)
