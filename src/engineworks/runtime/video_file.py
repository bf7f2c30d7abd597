"""A drawn stream as an MP4 file that plays whatever happens to the process that writes it.

Written under a temporary name in fragments of a second, which make even a file playable that was
never finished; `close` turns it into an ordinary MP4 and gives it its name. Knows no detections.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import hosts
from engineworks.errors import DataError, MissingDependency, StoreError
from engineworks.runtime.outputs import refuse_unwritable, temporary_name
from engineworks.runtime.pictures import MAX_PIXELS
from engineworks.runtime.planes import Planes, split
from engineworks.runtime.sources.decoder import file_url, import_av

log = logging.getLogger(__name__)

#: Codecs by preference, each with FFmpeg's options and the clock it can hold. x264 is left out of
#: builds that must be free of GPL code; MPEG-4 part 2 plays as well, in larger files. A constant
#: quantiser spares x264 the look ahead that `crf` needs, 40 % of its time, at 43 to 45 dB.
_CODECS: dict[str, tuple[dict[str, str], int]] = {
    "libx264": ({"preset": "ultrafast", "qp": "23"}, 90_000),
    "mpeg4": ({"flags": "+qscale", "global_quality": str(4 * 118)}, 60_000),  # 118: FF_QP2LAMBDA
}

#: FFmpeg's numbers (AVColorSpace, AVColorRange): what a BGR image becomes here, and that of planes.
_MATRICES, _LIMITED_RANGE = {"bt601": 6, "bt709": 1}, 1

#: Cores for each thread of the encoder: the engine needs them more.
_CORES_PER_THREAD = 4

#: A file's own clock begins at 0; this comment in it tells where in its source that was.
_STARTS = "source time in s: "


def last_time_s(path: Path) -> float | None:
    """Source time of the last frame of a file written here; None when there is none that plays."""
    av = import_av()
    latest, start_s = None, 0.0
    try:
        with av.open(file_url(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            noted = container.metadata.get("comment", "").removeprefix(_STARTS)
            start_s = float(noted) if noted else 0.0
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size and not packet.is_corrupt:
                    time_s = float(packet.pts * stream.time_base)
                    latest = time_s if latest is None else max(latest, time_s)
    except (av.error.FFmpegError, OSError, IndexError, ValueError):
        pass  # what was readable before the damage counts
    return None if latest is None else start_s + latest


class VideoFile:
    """One MP4.

    Frames of another size than the first are fitted into it on black; times are kept, and where
    two are equal the later one is moved by the clock's smallest step.

    Args:
        path: Where it will lie.
        fps: For the player's information; frames carry their own times.
        height: Rows of the video, the width follows; None: as the first frame. Half the rows take
            the encoder a third of the time.
        codec: `libx264`, `mpeg4`, or None for the first that this FFmpeg can write.

    Raises:
        DataError: The folder is missing or the ending is not one of a video; at the first frame:
            with this height it would have more than `MAX_PIXELS`.
        StoreError: It cannot be written there.
        MissingDependency: PyAV, or every codec, is missing.
    """

    def __init__(
        self, path: Path, *, fps: float, height: int | None = None, codec: str | None = None
    ) -> None:
        if path.suffix.lower() not in (".mp4", ".mov", ".m4v"):
            raise DataError(f"{path.name} does not end in .mp4", hint="name the output out.mp4")
        refuse_unwritable(path)
        self.path = path
        self.codec = codec or _codec(import_av())
        self.refitted = 0
        self._fps, self._height = fps, height
        self._temporary = temporary_name(path)
        self._container: Any = None
        self._stream: Any = None
        self._size, self._matrix = (0, 0), "bt601"
        self._last_tick = -1
        self._failed = False

    def write(
        self,
        pixels: np.ndarray[Any, Any] | Planes,
        time_s: float,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        """Add a frame.

        Args:
            pixels: uint8 (height, width, 3) BGR, or planes, whose memory the encoder may keep.
            time_s: Its time, not before the last one's.
            pixel_aspect: Width of a pixel by its height; that of the first frame counts.

        Raises:
            StoreError: The disk is full or gone; what was written stays playable.
        """
        av = import_av()
        try:
            if self._container is None:
                self._open(av, pixels, time_s, pixel_aspect)
            frame = self._frame(av, pixels)
            clock = self._stream.codec_context.time_base
            self._last_tick = max(self._last_tick + 1, round(time_s / float(clock)))
            frame.pts, frame.time_base = self._last_tick, clock
            self._container.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise self._refusal(error) from error

    def _open(
        self,
        av: Any,
        pixels: np.ndarray[Any, Any] | Planes,
        time_s: float,
        pixel_aspect: Fraction,
    ) -> None:
        height, width = self._wanted(pixels)
        options, clock = _CODECS[self.codec]
        # Flushed, or the last seconds of a small picture wait in a buffer when a process dies.
        movie = {"movflags": "hybrid_fragmented", "flush_packets": "1"}
        self._container = av.open(file_url(self._temporary), "w", format="mp4", options=movie)
        self._container.metadata["comment"] = f"{_STARTS}{time_s:.6f}"
        rate = Fraction(self._fps).limit_denominator(1001)
        stream = self._container.add_stream(self.codec, rate=rate, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if isinstance(pixels, Planes):
            self._matrix = pixels.matrix
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.colorspace = _MATRICES[self._matrix]
        stream.codec_context.color_range = _LIMITED_RANGE
        stream.codec_context.thread_count = max(1, hosts.cores() // _CORES_PER_THREAD)
        stream.codec_context.time_base = Fraction(1, clock)
        stream.codec_context.gop_size = max(1, round(self._fps))  # a fragment is a second
        stream.codec_context.max_b_frames = 0  # no frame is held back when a process dies
        self._stream, self._size = stream, (height, width)

    def _wanted(self, pixels: np.ndarray[Any, Any] | Planes) -> tuple[int, int]:
        """Height and width of the video, both even: 4:2:0 colour has a sample for 2 x 2 pixels."""
        rows, columns = pixels.size if isinstance(pixels, Planes) else pixels.shape[:2]
        height, width = rows, columns
        if self._height is not None:
            height, width = self._height, max(1, round(columns * self._height / rows))
        if height * width > max(MAX_PIXELS, rows * columns):
            raise DataError(
                f"{self.path.name}: {width}x{height} pixels are no video that plays",
                hint="give fewer rows: --video-height 1080",
            )
        return height + height % 2, width + width % 2

    def _frame(self, av: Any, pixels: np.ndarray[Any, Any] | Planes) -> Any:
        """The decoder's own frame where it can be; else 4:2:0 by OpenCV."""
        if isinstance(pixels, Planes):
            if pixels.owner is not None and pixels.size == self._size:
                pixels.owner.pict_type = 0  # else the source's key frames become key frames here
                return pixels.owner
            if pixels.matrix == self._matrix and self._same_shape(pixels.size):
                return self._packed(av, (pixels.y, pixels.u, pixels.v))
            pixels = pixels.bgr()
        image = self._fit(pixels)
        if self._matrix == "bt601":  # OpenCV's own way, which knows no other matrix, is faster
            import cv2

            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
            return av.VideoFrame.from_ndarray(planes, format="yuv420p")
        return self._packed(av, split(image, self._matrix))

    def _same_shape(self, size: tuple[int, ...]) -> bool:
        """Whether scaling alone makes it fit, but for a pixel by rounding."""
        return abs(size[1] * self._size[0] / size[0] - self._size[1]) < 2

    def _packed(self, av: Any, planes: tuple[np.ndarray[Any, Any], ...]) -> Any:
        """A frame of these planes, scaled to the video's size."""
        import cv2

        height, width = self._size
        sizes = [(width, height)] + [(width // 2, height // 2)] * 2
        parts = [
            cv2.resize(plane, side, interpolation=cv2.INTER_AREA).reshape(-1)
            for plane, side in zip(planes, sizes, strict=True)
        ]
        rows = np.concatenate(parts).reshape(-1, width)
        return av.VideoFrame.from_ndarray(rows, format="yuv420p")

    def _fit(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        height, width = self._size
        h, w = image.shape[:2]
        if (h, w) == (height, width):
            return image
        import cv2

        if height - h not in (0, 1) or width - w not in (0, 1):
            self.refitted += not self._same_shape((h, w))
            scale = min(height / h, width / w)
            w, h = max(1, round(w * scale)), max(1, round(h * scale))
            image = np.asarray(cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA))
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[:h, :w] = image[:height, :width]
        return canvas

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left where no frame came.

        Raises:
            StoreError: It could not be finished, or not be renamed.
        """
        if self._container is None:
            return
        av = import_av()
        failure: Exception | None = None
        container, self._container = self._container, None
        try:
            if not self._failed:
                container.mux(self._stream.encode(None))
        except (av.error.FFmpegError, OSError) as error:
            failure = error
        try:
            container.close()
        except (av.error.FFmpegError, OSError) as error:
            failure = failure or error
        if self._last_tick < 0:
            self._temporary.unlink(missing_ok=True)
            return
        try:
            self._temporary.replace(self.path)
        except OSError as error:
            failure = failure or error
        if failure is not None and not self._failed:
            raise self._refusal(failure) from failure

    def _refusal(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or str(error)
        return StoreError(
            f"{self.path} cannot be written: {reason}",
            hint="make room on the disk; what was written so far plays, --resume goes on from it",
        )


def _codec(av: Any) -> str:
    for name in _CODECS:
        try:
            av.codec.Codec(name, "w")
        except (ValueError, av.error.FFmpegError):
            log.warning("this FFmpeg cannot write %s", name)
        else:
            return name
    raise MissingDependency(
        f"this PyAV can write none of {', '.join(_CODECS)}", hint="pip install --upgrade av"
    )
