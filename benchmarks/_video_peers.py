"""The same clip through the same engine by other people's loops, in their own interpreter.

`PYTHON benchmarks/_video_peers.py KIND ENGINE.onnx CLIP OUT CONFIDENCE`: for each line on standard
input the whole clip once, and a line of JSON. Started by `Peer`; the packages are no part of this
project (Ultralytics is AGPL). Imports nothing of it, so that it runs without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Kind -> (title, environment variable with an interpreter that has the packages).
KINDS = {
    "supervision": ("supervision, trackers, VideoSink", "SUPERVISION_PYTHON"),
    "ultralytics-predict": ("Ultralytics predict, save", "ULTRALYTICS_PYTHON"),
    "ultralytics-track": ("Ultralytics track, save", "ULTRALYTICS_PYTHON"),
}

SIZE = 640


class Peer:
    """A peer's process, warm after its first pass."""

    def __init__(self, kind: str, engine: Path, clip: Path, out: Path, confidence: float) -> None:
        python = os.environ[KINDS[kind][1]]
        words = [python, __file__, kind, str(engine), str(clip), str(out), str(confidence)]
        quiet = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
        self._process = subprocess.Popen(
            words, cwd=out, env={**os.environ, **quiet},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.once()

    def once(self) -> dict[str, float]:
        """One pass over the clip: milliseconds, frames, CPU milliseconds, detections."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended with {self._process.wait()}")
        result: dict[str, float] = json.loads(line)
        return result

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


def _supervision(engine: str, clip: str, out: str, confidence: float) -> Callable[[], Any]:
    """The loop of supervision's guides; since its 0.31 the tracker comes from `trackers`."""
    import cv2
    import numpy as np
    import onnxruntime as ort
    import supervision as sv
    from trackers import ByteTrackTracker

    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(engine, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    boxes, labels = sv.BoxAnnotator(), sv.LabelAnnotator()

    def detect(image: Any) -> Any:
        height, width = image.shape[:2]
        scale = min(SIZE / height, SIZE / width)
        inner = cv2.resize(image, (int(width * scale), int(height * scale)))
        canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
        canvas[: inner.shape[0], : inner.shape[1]] = inner
        row = cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        (raw,) = session.run(None, {name: np.ascontiguousarray(row.transpose(2, 0, 1))[None]})
        rows = raw[0].T
        scores = rows[:, 4:].max(axis=1)
        rows, scores = rows[scores > confidence], scores[scores > confidence]
        half = rows[:, 2:4] / 2
        return sv.Detections(
            xyxy=np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1) / scale,
            confidence=scores,
            class_id=rows[:, 4:].argmax(axis=1),
        ).with_nms(threshold=0.65)

    def once() -> Iterator[int]:
        tracker = ByteTrackTracker()
        info = sv.VideoInfo.from_video_path(clip)
        with sv.VideoSink(f"{out}/supervision.mp4", info) as sink:
            for image in sv.get_video_frames_generator(clip):
                found = tracker.update(detect(image))
                words = [str(number) for number in found.tracker_id]
                image = boxes.annotate(image, found)
                sink.write_frame(labels.annotate(image, found, labels=words))
                yield len(found)

    return once


def _ultralytics(way: str, engine: str, clip: str, out: str, confidence: float) -> Any:
    from ultralytics import YOLO

    model = YOLO(engine, task="detect")  # a graph of fixed size: rect=False below

    def once() -> Iterator[int]:
        options = {"tracker": "bytetrack.yaml"} if way == "track" else {}
        results = getattr(model, way)(
            source=clip, stream=True, save=True, conf=confidence, imgsz=SIZE, rect=False,
            verbose=False, project=out, name=way, exist_ok=True, **options,
        )  # fmt: skip
        for result in results:
            yield len(result.boxes)

    return once


def main(arguments: list[str]) -> None:
    """Serve passes until standard input ends."""
    kind, engine, clip, result, words = arguments
    confidence = float(words)
    out, sys.stdout = sys.stdout, sys.stderr  # their own words are not ours
    if kind == "supervision":
        once = _supervision(engine, clip, result, confidence)
    else:
        once = _ultralytics(kind.partition("-")[2], engine, clip, result, confidence)
    for _ in sys.stdin:
        begin, cpu = time.perf_counter(), time.process_time()
        counts = list(once())
        spent = {"ms": time.perf_counter() - begin, "cpu_ms": time.process_time() - cpu}
        row = {what: seconds * 1e3 for what, seconds in spent.items()}
        row |= {"frames": len(counts), "detections": sum(counts)}
        out.write(json.dumps(row) + "\n")
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
