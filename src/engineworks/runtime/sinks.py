"""Where results go: a drawn video, JSON Lines, MOTChallenge text, a window.

Text is written under a temporary name and renamed when it is closed, also after an interruption;
a resumed run goes on in the same file. Knows no engine and no tracker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from engineworks.errors import MissingDependency, StoreError
from engineworks.runtime.detections import Detections
from engineworks.runtime.outputs import refuse_unwritable, temporary_name
from engineworks.runtime.sources import Frame
from engineworks.runtime.video_file import VideoFile


class Closed(Exception):
    """Whoever watched has closed the window: no error, the stream ends here."""


class Sink(Protocol):
    """Takes the frames of one stream in order."""

    pictures: bool
    """Whether it wants the answer drawn into the frame's image."""

    def write(self, frame: Frame, answer: Any) -> None:
        """Take one frame.

        Raises:
            StoreError: It cannot be written.
            Closed: Nobody wants more.
        """
        ...

    def close(self) -> None:
        """Finish what was written."""
        ...


class VideoSink:
    """Frames with what was drawn into them, as a video."""

    pictures = True

    def __init__(self, file: VideoFile) -> None:
        self.file = file

    def write(self, frame: Frame, answer: Any) -> None:
        """See `Sink.write`."""
        self.file.write(frame.pixels, frame.time_s, frame.pixel_aspect)

    def close(self) -> None:
        """See `VideoFile.close`."""
        self.file.close()


class _TextSink:
    """Lines into a file, or to an open stream such as standard output."""

    pictures = False

    def __init__(self, target: Path | IO[str], *, append: bool = False) -> None:
        self._path = target if isinstance(target, Path) else None
        self._file: IO[str] | None = None if isinstance(target, Path) else target
        self._append = append
        if self._path is not None:
            refuse_unwritable(self._path, goes_on=append)

    def _lines(self, lines: Sequence[str]) -> None:
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.writelines(lines)
        except OSError as error:
            raise self._refusal(error) from error

    def _opened(self) -> IO[str]:
        path = self._path or Path()
        mode = "a" if self._append else "w"
        written = path if self._append else temporary_name(path)
        # Line by line, so that a killed process leaves whole lines.
        return written.open(mode, encoding="utf-8", buffering=1)

    def close(self) -> None:
        """Finish and give the file its name."""
        if self._file is None:
            return
        try:
            if self._path is None:
                self._file.flush()
                return
            self._file.close()
            if not self._append:
                temporary_name(self._path).replace(self._path)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path or 'the output'} cannot be written ({error.strerror})",
            hint="make room on the disk; what was written so far is kept",
        )


class JsonLines(_TextSink):
    """One JSON object for each frame: `frame`, `time_s`, `size`, and the answer.

    Args:
        target: A file, or an open stream.
        to_json: Gives an answer's keys: `Predictor.to_json`, `detections` for objects.
        stream: A name that every line begins with.
        append: Go on in the file.
    """

    def __init__(
        self,
        target: Path | IO[str],
        to_json: Callable[[Any], Mapping[str, Any]],
        *,
        stream: str | None = None,
        append: bool = False,
    ) -> None:
        super().__init__(target, append=append)
        self._to_json, self._head = to_json, {} if stream is None else {"stream": stream}

    def write(self, frame: Frame, answer: Any) -> None:
        """See `Sink.write`."""
        row = {
            **self._head,
            "frame": frame.number,
            "time_s": round(frame.time_s, 6),
            "size": list(frame.size),
            **({} if frame.pixel_aspect == 1 else {"pixel_aspect": float(frame.pixel_aspect)}),
            **self._to_json(answer),
        }
        self._lines([json.dumps(row, separators=(",", ":")) + "\n"])


class MotText(_TextSink):
    """Tracks as MOTChallenge wants them: frame from 1, id, left, top, width, height, confidence.

    Source: https://motchallenge.net/instructions/. Detections without a track are left out.
    """

    def write(self, frame: Frame, answer: Any) -> None:
        """See `Sink.write`."""
        if not isinstance(answer, Detections) or answer.track_id is None:
            return
        self._lines(
            [
                f"{frame.number + 1},{track},{left:.2f},{top:.2f},{right - left:.2f},"
                f"{bottom - top:.2f},{score:.4f},-1,-1,-1\n"
                for track, (left, top, right, bottom), score in zip(
                    answer.track_id.tolist(),
                    answer.xyxy.tolist(),
                    answer.confidence.tolist(),
                    strict=True,
                )
            ]
        )


class Window:
    """The drawn frames in a window; closing it or pressing q ends the stream.

    Window systems want the main thread: whoever owns it calls `refresh` over and over while others
    write. What comes faster than it can be shown is left out of the window alone.
    """

    pictures = True

    def __init__(self, title: str) -> None:
        import cv2

        self._title, self._open, self._gone = title, False, False
        self._newest: Any = None
        try:
            screen = cv2.currentUIFramework()
        except cv2.error:
            screen = ""
        if not screen:
            raise MissingDependency(
                "this OpenCV has no windows",
                hint="pip install 'engineworks[windows]' in a command of its own, after everything "
                "else (or pip install --force-reinstall --no-deps opencv-python), or write a video "
                "with -o",
            )

    def write(self, frame: Frame, answer: Any) -> None:
        """See `Sink.write`."""
        if self._gone:
            raise Closed
        self._newest = frame.image

    def refresh(self) -> None:
        """Show what came last and see whether somebody closed the window; 10 ms. Main thread."""
        import cv2

        image, self._newest = self._newest, None
        if image is not None and not self._gone:
            if not self._open:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL)
                cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
                self._open = True
            cv2.imshow(self._title, image)
        if not self._open or self._gone:
            time.sleep(0.01)
            return
        pressed = cv2.waitKey(10) & 0xFF
        closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        if pressed in (ord("q"), 27) or closed:
            self._gone = True
            if not closed:
                cv2.destroyWindow(self._title)

    def close(self) -> None:
        """Nothing more comes; the window goes with the process."""
