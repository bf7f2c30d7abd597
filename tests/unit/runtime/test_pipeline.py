"""Streams through a real engine: what is written, what is counted, what happens when it breaks."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engineworks import runtime
from engineworks.errors import DataError, StoreError
from engineworks.runtime import Detections, Detector, read_image
from engineworks.runtime.batching import FairQueue
from engineworks.runtime.drawing import draw
from engineworks.runtime.heads.detection import to_json
from engineworks.runtime.metrics import Recorder
from engineworks.runtime.pipeline import Pipeline
from engineworks.runtime.sinks import Closed, JsonLines, MotText, VideoSink
from engineworks.runtime.sources import SourceOptions, open_source
from engineworks.runtime.stream import StreamJob
from engineworks.runtime.tracking import ByteTrack
from engineworks.runtime.video_file import VideoFile
from engineworks.specs import TaskSpec
from engineworks.store import LocalStore
from tests import builders
from tests.clips import panned, read_clip, write_clip
from tests.streams import CuttingServer


@pytest.fixture(scope="module")
def session(yolox_onnx, tmp_path_factory):
    store = LocalStore(tmp_path_factory.mktemp("engine"))
    with runtime.open(builders.put_engine(store, yolox_onnx).uri, threads=2) as session:
        yield session


@pytest.fixture
def detector(session):
    return Detector(session, confidence=0.1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """30 frames over the bear."""
    return write_clip(tmp_path_factory.mktemp("clip") / "bear.mp4", panned(30))


PEOPLE = TaskSpec(kind="detection", labels=("person",))


def job(address, folder=None, *, name="clip", sinks=None, **options):
    def open_sinks(source):
        if sinks is not None:
            return sinks
        if folder is None:
            return []
        return [
            VideoSink(VideoFile(folder / f"{name}.mp4", fps=source.fps)),
            JsonLines(folder / f"{name}.jsonl", lambda found: to_json(found, PEOPLE)),
            MotText(folder / f"{name}.txt"),
        ]

    return StreamJob(
        name=name,
        open=lambda stop: open_source(str(address), SourceOptions(**options), stop),
        sinks=open_sinks,
        tracker=lambda fps: ByteTrack(fps=fps, high=0.3),
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Watching:
    """A sink that looks on."""

    pictures = False

    def __init__(self, each=lambda frame: None):
        self.frames, self._each, self.closed = [], each, False

    def write(self, frame, detections):
        self._each(frame)
        self.frames.append((frame.number, detections))

    def close(self):
        self.closed = True


def test_a_clip_comes_out_drawn_tracked_and_listed(detector, clip, tmp_path):
    (report,) = Pipeline(detector).run([job(clip, tmp_path)])
    assert (report.outcome, report.reason, report.frames) == ("whole", "", 30)
    assert (report.dropped, report.damaged, report.tracks) == (0, 0, 1)
    assert set(report.stages_ms) == {
        "decode", "preprocess", "infer", "postprocess", "track", "draw", "write",
    }  # fmt: skip
    rows = lines(tmp_path / "clip.jsonl")
    assert [row["frame"] for row in rows] == list(range(30))
    assert [row["time_s"] for row in rows] == pytest.approx(np.arange(30) / 25, abs=1e-5)
    ids = {found["track_id"] for row in rows for found in row["detections"]}
    assert ids == {1}
    video = read_clip(tmp_path / "clip.mp4")
    assert [time_s for time_s, _ in video] == pytest.approx(np.arange(30) / 25, abs=1e-4)
    plain = read_clip(clip)
    drawn = np.abs(video[20][1].astype(int) - plain[20][1]).max(axis=2) > 60
    assert 200 < drawn.sum() < drawn.size / 3, "a box and a name, and the rest as it was"
    assert len((tmp_path / "clip.txt").read_text().splitlines()) == report.detections
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.jsonl",
        "clip.mp4",
        "clip.txt",
    ]


def test_the_pipeline_finds_what_the_detector_finds(session, clip):
    detector = Detector(session, confidence=0.3)
    sink = Watching()
    untracked = StreamJob(
        name="c", open=lambda stop: open_source(str(clip)), sinks=lambda source: [sink]
    )
    Pipeline(detector).run([untracked])
    with_times = list(open_source(str(clip)))
    assert len(sink.frames) == len(with_times)
    for (number, found), frame in zip(sink.frames, with_times, strict=True):
        wanted = detector(frame.pixels)
        assert number == frame.number
        np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.1)


def test_many_streams_share_one_engine_and_keep_to_themselves(detector, clip, tmp_path):
    photos = [write_clip(tmp_path / f"{n}.mp4", panned(12, photo=n)) for n in range(4)]
    alone = {}
    for path in photos:
        sink = Watching()
        Pipeline(detector).run([job(path, sinks=[sink])])
        alone[path] = sink.frames
    together = {path: Watching() for path in photos}
    jobs = [job(path, name=path.stem, sinks=[together[path]]) for path in photos]
    reports = Pipeline(detector, at_once=4).run(jobs)
    assert [report.name for report in reports] == ["0", "1", "2", "3"]
    for path in photos:
        for (number, found), (_, wanted) in zip(together[path].frames, alone[path], strict=True):
            assert found.track_id.tolist() == wanted.track_id.tolist(), (path.name, number)
            np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.1)


def test_several_sessions_of_an_engine_keep_the_order(yolox_onnx, session, clip, tmp_path):
    alone, together = Watching(), Watching()
    Pipeline(Detector(session, confidence=0.1)).run([job(clip, sinks=[alone])])
    with runtime.open(
        builders.put_engine(LocalStore(tmp_path / "store"), yolox_onnx).uri, threads=1
    ) as second:
        detectors = [Detector(each, confidence=0.1) for each in (session, second)]
        (report,) = Pipeline(detectors, depth=4).run([job(clip, sinks=[together])])
    assert (report.outcome, report.frames) == ("whole", 30)
    for (number, found), (wanted_number, wanted) in zip(together.frames, alone.frames, strict=True):
        assert number == wanted_number
        assert found.track_id.tolist() == wanted.track_id.tolist()


def test_the_end_of_the_last_stream_is_the_end(detector, clip, monkeypatch):
    take = FairQueue.take
    monkeypatch.setattr(
        FairQueue, "take", lambda queue, most, wait_s=0.0: take(queue, most, wait_s, idle_s=600)
    )
    pipeline = Pipeline([detector, detector])
    runner = threading.Thread(target=pipeline.run, args=([job(str(clip))],), daemon=True)
    runner.start()
    runner.join(120)
    assert not runner.is_alive()


def test_sixteen_streams_go_on_side_by_side(detector, tmp_path):
    paths = [write_clip(tmp_path / f"{n}.mp4", panned(10, (96, 128))) for n in range(16)]
    counts, spread = dict.fromkeys(range(16), 0), []
    lock = threading.Lock()

    def counted(number):
        def each(frame):
            with lock:
                counts[number] += 1
                if min(counts.values()) >= 1 and max(counts.values()) < 10:
                    spread.append(max(counts.values()) - min(counts.values()))

        return each

    begin = threading.Barrier(16)

    def together(plain):
        def open_(stop):
            begin.wait(120)  # that none has ended before another begins
            return plain.open(stop)

        return dataclasses.replace(plain, open=open_)

    jobs = [
        together(job(path, name=path.stem, sinks=[Watching(counted(n))]))
        for n, path in enumerate(paths)
    ]
    reports = Pipeline(detector, at_once=16).run(jobs)
    assert [report.frames for report in reports] == [10] * 16
    assert spread
    assert np.median(spread) <= 4, "no stream runs ahead: 2 frames wait and 2 are under way"


def test_one_bad_video_does_not_sink_the_others(detector, clip, tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:900])
    out = tmp_path / "out"
    out.mkdir()
    jobs = [job(path, out, name=path.stem) for path in (empty, clip, cut)]
    reports = Pipeline(detector, at_once=2).run(jobs)
    assert [report.outcome for report in reports] == ["failed", "whole", "failed"]
    assert "0 bytes" in reports[0].reason
    assert "cut.mp4" in reports[2].reason
    assert sorted(path.name for path in out.glob("*.mp4")) == ["bear.mp4"]


def test_a_file_that_was_cut_is_not_called_whole(detector, tmp_path):
    path = write_clip(tmp_path / "clip.avi", panned(40), codec="mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (report,) = Pipeline(detector).run([job(path, tmp_path, name="out")])
    assert report.outcome == "lost"
    assert 0 < report.frames < 36
    assert len(read_clip(tmp_path / "out.mp4")) == report.frames


def test_frames_that_change_their_size(detector, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shapes = set()
    for number, photo in enumerate(builders.photos()[:6]):
        (folder / f"{number}.jpg").write_bytes(photo.read_bytes())
        shapes.add(read_image(photo).shape)
    assert len(shapes) > 1
    (report,) = Pipeline(detector).run([job(folder, tmp_path)])
    assert (report.outcome, report.frames) == ("whole", 6)
    rows = lines(tmp_path / "clip.jsonl")
    assert {tuple(row["size"]) for row in rows} == {shape[:2] for shape in shapes}
    assert len({image.shape for _, image in read_clip(tmp_path / "clip.mp4")}) == 1


def test_stopping_finishes_what_was_begun(detector, clip, tmp_path):
    pipeline = Pipeline(detector)
    stopper = Watching(lambda frame: pipeline.stop() if frame.number == 4 else None)
    file = VideoFile(tmp_path / "out.mp4", fps=25)
    (report,) = pipeline.run([job(clip, sinks=[VideoSink(file), stopper]), job(clip)])
    assert report.outcome == "stopped"
    assert 5 <= report.frames < 30
    assert len(read_clip(tmp_path / "out.mp4")) == report.frames == len(stopper.frames)


def test_whoever_closes_the_window_ends_the_stream(detector, clip):
    def leave(frame):
        if frame.number == 3:
            raise Closed

    (report,) = Pipeline(detector).run([job(clip, sinks=[Watching(leave)])])
    assert report.outcome == "stopped"


def test_a_window_is_refreshed_by_whoever_runs_the_pipeline(detector, clip):
    """Window systems want the main thread; a window opened elsewhere hangs."""
    threads, watching = set(), Watching(lambda frame: time.sleep(0.005))

    def refresh():
        threads.add(threading.get_ident())
        time.sleep(0.001)

    (report,) = Pipeline(detector, refresh=refresh).run([job(clip, sinks=[watching])])
    assert report.outcome == "whole"
    assert report.frames == len(watching.frames) > 0
    assert threads == {threading.get_ident()}


def test_an_output_that_breaks_ends_its_stream_and_is_named(detector, clip, tmp_path):
    def full(frame):
        if frame.number == 3:
            raise StoreError("the disk is full", hint="make room")

    other = Watching()
    jobs = [job(clip, sinks=[Watching(full), VideoSink(VideoFile(tmp_path / "o.mp4", fps=25))]),
            job(clip, name="other", sinks=[other])]  # fmt: skip
    broken, fine = Pipeline(detector, at_once=2).run(jobs)
    assert (broken.outcome, broken.frames) == ("failed", 3)
    assert "disk is full" in broken.reason
    assert len(read_clip(tmp_path / "o.mp4")) == 3
    assert (fine.outcome, len(other.frames)) == ("whole", 30)


class Dying:
    """A detector whose engine stops working."""

    def __init__(self, detector, good):
        self._detector, self._good = detector, good

    def __getattr__(self, name):
        return getattr(self._detector, name)

    def infer(self, rows):
        self._good -= len(rows)
        if self._good < 0:
            raise RuntimeError("the device is gone")
        return self._detector.infer(rows)


def test_an_engine_that_dies_ends_all_streams_with_whole_outputs(detector, clip, tmp_path):
    jobs = [job(clip, tmp_path, name=f"s{n}") for n in range(3)]
    reports = Pipeline([Dying(detector, 20)], at_once=2).run(jobs)
    assert [report.outcome for report in reports] == ["failed", "failed"]
    assert all("the device is gone" in report.reason for report in reports)
    for report in reports:
        if report.frames:
            assert len(read_clip(tmp_path / f"{report.name}.mp4")) == report.frames


class Counting(Recorder):
    def __init__(self):
        self.images, self.left_out, self.errors = 0, 0, []

    def inference(self, stream, stage_ms, detections_by_class, status="ok", **facts):
        if status == "ok":
            self.images += 1
        else:
            self.errors.append((stream, facts["error"]))

    def dropped(self, stream, n=1):
        self.left_out += n


def test_an_engine_that_hangs_ends_all_streams_with_whole_outputs(session, clip, tmp_path):
    """It cannot be ended, but nobody waits for it for ever, and what came before is kept."""
    released = threading.Event()

    class Hanging(Detector):
        def infer(self, rows):
            if self.calls == 5:
                released.wait()
            self.calls += 1
            return super().infer(rows)

    detector = Hanging(session, confidence=0.1)
    detector.calls = 0
    try:
        (report,) = Pipeline(detector, limit_s=3).run([job(clip, tmp_path)])
    finally:
        released.set()
    assert report.outcome == "failed"
    assert "it hangs" in report.reason
    assert len(lines(tmp_path / "clip.jsonl")) == len(read_clip(tmp_path / "clip.mp4")) == 5


def test_a_live_stream_is_counted_cut_and_finished(detector, tmp_path):
    data = write_clip(tmp_path / "clip.ts", panned(60)).read_bytes()
    recorder = Counting()
    slow = Watching(lambda frame: time.sleep(0.02))
    with CuttingServer(data, keep=0.9, connections=2) as server:
        live = job(server.address, sinks=[slow], give_up_s=3, timeout_s=1)
        (report,) = Pipeline(detector, recorder=recorder).run([live])
    assert report.outcome == "lost"
    assert "is lost" in report.reason
    assert report.reconnects >= 1
    assert report.dropped > 0, "the sender is faster than the engine"
    assert recorder.left_out == report.dropped
    assert recorder.images == report.frames == len(slow.frames)
    assert [stream for stream, _ in recorder.errors] == ["clip"]
    assert isinstance(recorder.errors[0][1], DataError)


def test_what_is_drawn_stays_inside_the_picture():
    image = np.zeros((60, 80, 3), np.uint8)
    boxes = np.array([[-50, -50, 20, 20], [70, 50, 500, 500], [10, 10, 10, 10]], np.float32)
    found = Detections(
        xyxy=boxes,
        confidence=np.full(3, 0.5, np.float32),
        class_id=np.array([0, 7, 0]),
        track_id=np.array([1, 2, 3]),
    )
    draw(image, found, ("a very long name of a class that is wider than the picture",))
    assert image.any()
    draw(np.zeros((3, 3, 3), np.uint8), found, ())


def test_nothing_is_left_running(detector, clip):
    before = threading.active_count()
    Pipeline(detector, at_once=3).run([job(clip, name=str(n)) for n in range(3)])
    assert threading.active_count() == before
    assert Path(clip).exists()
