"""`make soak-video MINUTES=60`: a looped clip through the whole chain; memory and frames counted.

Frames come at the clip's own pace where the machine keeps up with it. The bars: memory grows by
less than 10 MB after the first minute, and every frame that was read is written.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from benchmarks._bars import Bar, finish
from engineworks import runtime
from engineworks.runtime.pipeline import Pipeline
from engineworks.runtime.sinks import JsonLines, VideoSink
from engineworks.runtime.sources import Frame, Troubles, open_source
from engineworks.runtime.stream import StreamJob
from engineworks.runtime.tracking import ByteTrack
from engineworks.runtime.video_file import VideoFile
from engineworks.store import LocalStore
from tests import builders
from tests.clips import panned, write_clip

WARM_UP_S = 60.0


class Looped:
    """A file that begins again when it ends, opened anew each time, for so many seconds."""

    live = False
    frames: int | None = None

    def __init__(self, clip: Path, seconds: float) -> None:
        self._clip, self._until = clip, time.monotonic() + seconds
        self.troubles, self.fps, self.read = Troubles(), 25.0, 0

    def __iter__(self) -> Iterator[Frame]:
        begin = time.monotonic()
        while True:
            source = open_source(str(self._clip))
            for frame in source:
                if time.monotonic() > self._until:
                    source.close()
                    return
                due = begin + self.read / self.fps
                time.sleep(max(0.0, due - time.monotonic()))
                yield Frame(pixels=frame.pixels, number=self.read, time_s=self.read / self.fps)
                self.read += 1
            source.close()

    def close(self) -> None:
        """Nothing stays open."""


def main(arguments: list[str]) -> int:
    """Soak for so many minutes."""
    minutes = float(arguments[0]) if arguments else 60.0
    process, resident = psutil.Process(), []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            resident.append(process.memory_info().rss / 1e6)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        clip = write_clip(out / "clip.mp4", panned(250, (240, 320)))
        onnx = builders.export_yolox(out / "nano.onnx")
        engine = builders.put_engine(LocalStore(out / "store"), onnx).uri
        looped = Looped(clip, minutes * 60)
        with runtime.open(engine, threads=1) as session:
            detector = runtime.Detector(session, confidence=0.1)
            job = StreamJob(
                name="soak",
                open=lambda stop: looped,
                sinks=lambda source: [
                    VideoSink(VideoFile(out / "out.mp4", fps=source.fps)),
                    JsonLines(out / "out.jsonl", detector.to_json),
                ],
                tracker=lambda fps: ByteTrack(fps=fps, high=0.3),
            )
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            (report,) = Pipeline(detector, depth=4).run([job])
            over.set()
            watcher.join()
    warm = min(int(WARM_UP_S), len(resident) // 3)
    tail = len(resident) // 10 or 1
    growth_mb = float(np.median(resident[-tail:]) - np.median(resident[warm : warm + tail]))
    missing = looped.read - report.frames + report.dropped
    details = {
        "minutes": minutes,
        "frames": report.frames,
        "fps": report.fps,
        "tracks": report.tracks,
        "resident_mb": resident[:: max(1, len(resident) // 60)],
    }
    return finish(
        "soak_video",
        [
            Bar("memory growth", growth_mb, "MB", 10.0),
            Bar("frames not written", float(missing), "", 0.0),
        ],
        details,
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
