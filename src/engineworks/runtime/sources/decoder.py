"""Video decoding by PyAV, shared by files and network streams.

Knows containers and codecs; neither reconnects nor numbers frames.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engineworks import hosts
from engineworks.errors import DataError, MissingDependency
from engineworks.runtime.pictures import MAX_PIXELS, check_pixels
from engineworks.runtime.planes import Planes
from engineworks.runtime.sources import Troubles
from engineworks.runtime.sources.upright import STRAIGHT, Signs, signs, transposed, upright

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

#: Kind of device -> what is there on a machine that has it.
_DEVICES = {"cuda": "/dev/nvidiactl", "vaapi": "/dev/dri/renderD128", "qsv": "/dev/dri/renderD128"}

#: FFmpeg's numbers of colour matrices (AVColorSpace). What says nothing is taken for BT.601, as by
#: OpenCV and FFmpeg's own converter.
_MATRICES = {1: "bt709", 2: "bt601", 5: "bt601", 6: "bt601"}
_FULL_RANGE = 2

#: Undecodable packets in a row after which a source counts as broken.
_HOPELESS = 250


def import_av() -> Any:
    """PyAV.

    Raises:
        MissingDependency: It is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "video needs the package 'av' (PyAV)", hint="pip install 'engineworks[video]'"
        ) from error
    return av


class Decoder:
    """The first video of a container (a cover is none), as upright pictures with their times.

    Frames come as the planes that the codec has where those are plain 8-bit 4:2:0, else as BGR.

    Args:
        address: A path or URL that FFmpeg understands.
        hardware: `auto`, `none` or a device kind; where it fails, software decodes.
        timeout_s: For opening and for each read of a network address; None: wait for ever.
        options: FFmpeg's options for the container.
        max_pixels: Of a frame; larger ones are refused before they are decoded.
        troubles: Where damaged packets are counted.

    Raises:
        DataError: No video in it, or its codec is not known here.
        MissingDependency: PyAV is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        hardware: str,
        troubles: Troubles,
        timeout_s: float | None = None,
        options: Mapping[str, str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        av = import_av()
        self._limit = max_pixels
        self._av, self._address, self.troubles = av, address, troubles
        # FFmpeg decodes a few frames when it opens a file: the limit must hold there, too.
        limit = {"max_pixels": str(max_pixels)}
        self.container = self._open(hardware, timeout_s, {**(options or {}), **limit})
        try:
            self.stream = self._video()
        except BaseException:
            self.container.close()
            raise
        # A persistent converter: PyAV would otherwise set one up for every frame.
        self._convert = av.video.reformatter.VideoReformatter()
        self._previous_s, self._shift_s = float("-inf"), 0.0
        self._turn = STRAIGHT

    def _open(self, hardware: str, timeout_s: float | None, options: dict[str, str]) -> Any:
        av = self._av
        acceleration = _acceleration(hardware)
        for device in (acceleration, None) if acceleration else (None,):
            try:
                return av.open(
                    _url(self._address),
                    timeout=timeout_s,
                    options=options,
                    hwaccel=device,
                    metadata_errors="replace",  # titles in Latin-1 and the like
                )
            except (av.error.FFmpegError, OSError, ValueError, NotImplementedError) as error:
                if device is None:
                    raise self._refusal(error) from error
                log.warning("no hardware decoding of %s (%s)", self._address, _words(error))
        raise AssertionError("the last try has no device")

    def _refusal(self, error: BaseException) -> DataError:
        path = Path(self._address)
        size = path.stat().st_size if path.is_file() else None
        size_text = f" ({size} bytes)" if size is not None else ""
        return DataError(
            f"{self._address}{size_text} cannot be opened as a video: {_words(error)}",
            hint="check the address; a file must be a whole video that ffprobe can read",
        )

    def _video(self) -> av.VideoStream:
        streams = self.container.streams.video
        if not streams:
            kinds = sorted({stream.type for stream in self.container.streams}) or ["nothing"]
            raise DataError(
                f"{self._address} holds no video, only {', '.join(kinds)}",
                hint="give a file or stream with a picture",
            )
        cover = self._av.stream.Disposition.attached_pic
        moving = [stream for stream in streams if not stream.disposition & cover]
        if not moving:
            raise DataError(
                f"{self._address} holds no video, only a cover picture",
                hint="give a file or stream with a moving picture",
            )
        known = [stream for stream in moving if stream.codec_context is not None]
        stream: av.VideoStream = (known or moving)[0]
        if len(moving) > 1:
            self.troubles.note(f"it holds {len(moving)} videos: stream {stream.index} is read")
        if stream.codec_context is None:
            raise DataError(
                f"{self._address}: its codec is not known to this FFmpeg",
                hint="convert it to H.264 with ffmpeg, or install a PyAV with that codec",
            )
        check_pixels(
            stream.codec_context.height or 1,
            stream.codec_context.width or 1,
            self._address,
            self._limit,
        )
        stream.codec_context.options = {"max_pixels": str(self._limit)}
        stream.thread_type = "AUTO"  # the default decodes slices only, 20 to 30 % slower
        # A thread more than is needed costs a tenth of the decoder's time, and frames of delay.
        stream.codec_context.thread_count = max(1, hosts.cores() // 2)
        return stream

    @property
    def fps(self) -> float:
        """Average frames per second, 25 where the container does not say."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate and 0 < rate <= 1000 else 25.0

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel by its height, as the last frame is seen; 1 where nothing is said."""
        aspect = Fraction(self.stream.sample_aspect_ratio or 1)
        if not Fraction(1, 16) <= aspect <= 16:
            return Fraction(1)
        return 1 / aspect if transposed(self._turn) else aspect

    @property
    def duration_s(self) -> float | None:
        """Length, where the container knows it."""
        stream = self.stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return self.container.duration / 1e6 if self.container.duration else None

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        """Pixels as in `Frame.pixels` and seconds since the stream's start.

        Raises:
            DataError: Reading failed, or nothing can be decoded.
        """
        av, in_a_row = self._av, 0
        try:
            for packet in self.container.demux(self.stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    self.troubles.damaged += 1
                    in_a_row += 1
                    if in_a_row >= _HOPELESS:
                        raise
                    continue
                for frame in frames:
                    in_a_row = 0
                    yield self._pixels(frame), self._time_s(frame)
        except (av.error.FFmpegError, OSError) as error:
            for frame in self._held_back():
                yield self._pixels(frame), self._time_s(frame)
            message = _words(error)
            if not self.stream.codec_context.width:
                message += f" (do its pictures have more than {self._limit:,} pixels?)"
            raise DataError(
                f"{self._address} broke off: {message}",
                hint="check the connection or the file; what came before is kept",
            ) from error

    def _held_back(self) -> list[av.VideoFrame]:
        """Frames that the decoder still holds: it runs some frames behind its input."""
        try:
            return self.stream.codec_context.decode(None)
        except (self._av.error.FFmpegError, OSError):
            return []

    def _pixels(self, frame: av.VideoFrame) -> Any:
        matrix = _MATRICES.get(int(frame.colorspace))
        plain = frame.format.name == "yuv420p" and int(frame.color_range) != _FULL_RANGE
        odd = frame.width % 2 or frame.height % 2
        self._turn = self._turn_of(frame)
        if matrix and plain and not odd and self._turn == STRAIGHT:
            frame.make_writable()  # the decoder may still need it for the frames to come
            y, u, v = (_view(plane) for plane in frame.planes)
            return Planes(y=y, u=u, v=v, matrix=matrix, owner=frame)
        image = self._convert.reformat(frame, format="bgr24").to_ndarray()
        return image if self._turn == STRAIGHT else upright(image, self._turn)

    def _turn_of(self, frame: av.VideoFrame) -> Signs:
        matrix: Any = frame.side_data.get(self._av.sidedata.sidedata.Type.DISPLAYMATRIX)
        return STRAIGHT if matrix is None else signs(bytes(matrix))

    def _time_s(self, frame: av.VideoFrame) -> float:
        if frame.pts is None or frame.time_base is None:
            time_s = max(0.0, self._previous_s + 1 / self.fps)
        else:
            time_s = float((frame.pts - (self.stream.start_time or 0)) * frame.time_base)
            time_s += self._shift_s
            if time_s < self._previous_s - 1e-6:  # a stream joined to another begins anew
                self._shift_s += self._previous_s + 1 / self.fps - time_s
                time_s = self._previous_s + 1 / self.fps
        self._previous_s = time_s
        return time_s

    def close(self) -> None:
        """Free the container."""
        self.container.close()


def file_url(path: Path | str) -> str:
    """What FFmpeg takes for this path, whatever its name; a colon would make a protocol of it."""
    return f"file:{path}"


def _url(address: str) -> str:
    return address if "://" in address else file_url(address)


def _acceleration(wanted: str) -> Any:
    from av.codec.hwaccel import HWAccel, hwdevices_available

    if wanted == "none":
        return None
    known = hwdevices_available()
    if wanted != "auto":
        if wanted not in known:
            raise DataError(
                f"hardware decoding by {wanted!r} is not in this FFmpeg, which has "
                f"{', '.join(known) or 'none'}",
                hint="use --hardware auto or none",
            )
        return HWAccel(device_type=wanted, allow_software_fallback=True)
    for kind in known:
        mac = kind == "videotoolbox" and platform.system() == "Darwin"
        if mac or Path(_DEVICES.get(kind, "/nonexistent")).exists():
            return HWAccel(device_type=kind, allow_software_fallback=True)
    return None


def _view(plane: Any) -> np.ndarray[Any, Any]:
    """uint8 (height, width) on the plane's own memory."""
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__
