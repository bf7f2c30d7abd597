"""`engineworks video` and `videos`: whole command lines on a real engine and real clips."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from engineworks.cli import main
from engineworks.cli._progress import line
from engineworks.runtime.outputs import temporary_name
from engineworks.runtime.stream import StreamReport
from tests import builders
from tests.clips import panned, read_clip, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """40 frames over the bear."""
    return write_clip(tmp_path_factory.mktemp("clip") / "bear.mp4", panned(40))


def lines(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_a_clip_becomes_a_video_and_lists(yolox_engine, clip, tmp_path, capsys):
    out, rows, mot = tmp_path / "out.mp4", tmp_path / "out.jsonl", tmp_path / "out.txt"
    command = ["video", str(yolox_engine), str(clip), "-o", str(out), "--track"]
    assert main([*command, "--jsonl", str(rows), "--mot", str(mot)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("bear.mp4  whole  40 frames")
    assert ", 1 track\n" in told
    assert "ms per frame: decode" in told
    assert len(read_clip(out)) == len(lines(rows)) == 40
    assert {found["label"] for row in lines(rows) for found in row["detections"]} == {"bear"}
    table = np.loadtxt(mot, delimiter=",")
    assert table.shape[1] == 10
    assert set(table[:, 1]) == {1}


def test_json_tells_everything(yolox_engine, clip, capsys):
    assert main(["video", str(yolox_engine), str(clip), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["frames"], told["expected_frames"]) == ("whole", 40, 40)
    assert told["stages_ms"]["infer"] > 0


def test_lines_go_to_standard_output_and_the_summary_beside_them(yolox_engine, clip, capsys):
    assert main(["video", str(yolox_engine), str(clip), "--jsonl", "-"]) == 0
    told = capsys.readouterr()
    assert [json.loads(text)["frame"] for text in told.out.splitlines()] == list(range(40))
    assert "40 frames" in told.err


def test_a_folder_of_images_is_a_video(yolox_engine, tmp_path, capsys):
    folder = builders.photos()[0].parent
    out = tmp_path / "out.mp4"
    assert main(["video", str(yolox_engine), str(folder), "-o", str(out), "--fps", "5"]) == 0
    times_s = [time_s for time_s, _ in read_clip(out)]
    assert times_s == pytest.approx(np.arange(len(builders.photos())) / 5)


def test_a_source_that_is_not_there_is_refused(yolox_engine, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert main(["video", str(yolox_engine), str(tmp_path / "no.mp4"), "-o", str(out)]) == 2
    assert "no.mp4" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--mot", "tracks.txt"], "--track"),
        (["-o", "out.avi"], ".mp4"),
        (["-o", "nowhere/out.mp4"], "nowhere"),
        (["-o", "new.mp4", "--resume"], "nothing to go on from"),
        (["--hardware", "tpu"], "tpu"),
        (["--jsonl", "nowhere/out.jsonl"], "nowhere"),
        (["--workers", "0"], "from 1 to 1024"),
        (["--workers", "99999999999999999999999"], "from 1 to 1024"),
        (["--video-height", "99999"], "from 2 to 8192"),
        (["--video-height", "-1"], "from 2 to 8192"),
        (["--fps", "0"], "above 0 and up to 1000"),
        (["--fps", "nan"], "above 0 and up to 1000"),
        (["--fps", "inf"], "above 0 and up to 1000"),
        (["--give-up", "nan"], "above 0"),
        (["--batch", "0"], "from 1 to 1024"),
        (["--batch", "\u0663"], "from 1 to 1024"),  # an Arabic digit
        (["--threads", "-1"], "from 0 to 1024"),
        (["--raw-size", "0x5"], "640x480"),
        (["--raw-size", "9" * 5000 + "x5"], "640x480"),
        (["--max-pixels", "0"], "from 1"),
        (["--max-pixels", "100"], "320x240 pixels, more than the 100 that are read"),
        (["--metrics-port", "99999999"], "65535"),
        (["--raw-size", "640x480"], "raw frames on standard input (SRC -), and"),
        (["--fps", "10"], "--fps does nothing here"),
        (["--give-up", "5"], "of cameras and streams"),
        (["--overlay", "--jsonl", "-"], "none is written"),
        (["--video-height", "64", "--jsonl", "-"], "none is written"),
    ],
)
def test_what_cannot_be_done_is_refused(
    yolox_engine, clip, tmp_path, monkeypatch, capsys, more, words
):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["video", str(yolox_engine), str(clip), *more])
    except SystemExit as refusal:  # by argparse
        code = refusal.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(bool(cv2.currentUIFramework()), reason="this OpenCV has windows")
def test_without_windows_none_can_be_shown(yolox_engine, clip, capsys):
    assert main(["video", str(yolox_engine), str(clip), "--show"]) == 2
    assert "opencv-python" in capsys.readouterr().err


def test_an_absurd_camera_is_refused(yolox_engine, capsys):
    assert main(["video", str(yolox_engine), "9" * 5000]) == 2
    assert "there is no camera 9999" in capsys.readouterr().err


def test_absurd_raw_frames_are_refused_before_one_is_read(yolox_engine, tmp_path, capsys):
    assert main(["video", str(yolox_engine), "-", "--raw-size", "100000x100000"]) == 2
    assert "--raw-size: 100000x100000 pixels" in capsys.readouterr().err


def test_a_video_of_absurd_size_is_not_begun(yolox_engine, clip, tmp_path, capsys):
    wide = write_clip(tmp_path / "wide.mp4", [np.zeros((16, 1600, 3), np.uint8)] * 3)
    out = tmp_path / "out.mp4"
    more = ["-o", str(out), "--video-height", "8192"]
    assert main(["video", str(yolox_engine), str(wide), *more]) == 2
    assert "819200x8192 pixels" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wide.mp4"]


def test_an_output_is_not_replaced_unasked(yolox_engine, clip, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    out.write_text("precious")
    command = ["video", str(yolox_engine), str(clip), "-o", str(out)]
    assert main(command) == 2
    assert out.read_text() == "precious"
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(read_clip(out)) == 40


def command(engine, source, folder):
    return [
        sys.executable, "-m", "engineworks.cli", "video", str(engine), str(source), "--track",
        "--threads", "1", "-o", str(folder / "out.mp4"), "--jsonl", str(folder / "out.jsonl"),
        "--mot", str(folder / "out.txt"),
    ]  # fmt: skip


def when_written(running, output, frames):
    """Wait until so many frames are on the disk, or the process has ended."""
    written = temporary_name(output)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and running.poll() is None:
        if written.exists() and written.read_text().count("\n") >= frames:
            return
        time.sleep(0.005)


def interrupted(command, folder, number, frames=60):
    """Run until so many frames are on the disk, then send the signal."""
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    when_written(running, folder / "out.jsonl", frames)
    os.kill(running.pid, number)
    out, err = running.communicate(timeout=300)
    return running.returncode, out + err


def test_an_overlay_tells_the_rate(yolox_engine, clip, tmp_path, monkeypatch):
    from engineworks.runtime.predictor import Predictor

    asked = []
    real = Predictor.draw

    def watched(self, picture, found, overlay=None):
        asked.append(overlay)
        real(self, picture, found, overlay)

    monkeypatch.setattr(Predictor, "draw", watched)
    words = ["video", str(yolox_engine), str(clip), "-o", str(tmp_path / "o.mp4"), "--track"]
    assert main([*words, "--overlay"]) == 0
    assert len(asked) == 40
    assert asked[0] == ""
    assert all(float(text.removesuffix(" fps")) > 0 for text in asked[1:])
    asked.clear()
    assert main([*words, "--overwrite"]) == 0
    assert set(asked) == {None}


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", panned(300))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_stopped(yolox_engine, long_clip, tmp_path, number):
    words = command(yolox_engine, long_clip, tmp_path)
    code, told = interrupted(words, tmp_path, number)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 128 + number, told
        assert "stopped" in told
        first = read_clip(tmp_path / "out.mp4")
        assert 0 < len(first) < 300
        assert len(lines(tmp_path / "out.jsonl")) == len(first)
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = lines(tmp_path / "out.jsonl")
    assert [row["frame"] for row in rows] == list(range(300))
    first, second = read_clip(tmp_path / "out.mp4"), read_clip(tmp_path / "out.part2.mp4")
    if number == signal.SIGKILL:
        assert 300 <= len(first) + len(second) <= 300 + 26, "at most a second comes twice"
    else:
        assert len(first) + len(second) == 300
    mot = np.loadtxt(tmp_path / "out.txt", delimiter=",")
    assert len(mot) == sum(len(row["detections"]) for row in rows)
    split = len(first)
    before = {f["track_id"] for row in rows[: split - 26] for f in row["detections"]}
    after = {f["track_id"] for row in rows[split:] for f in row["detections"]}
    assert before
    assert after
    assert not before & after, "a resumed run gives new numbers"
    again = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert len(lines(tmp_path / "out.jsonl")) == 300


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_second_interruption_ends_at_once_and_can_be_resumed(yolox_engine, long_clip, tmp_path):
    words = command(yolox_engine, long_clip, tmp_path)
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    when_written(running, tmp_path / "out.jsonl", 60)
    for _ in range(2):
        running.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["frame"] for row in lines(tmp_path / "out.jsonl")] == list(range(300))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_many_interrupted_videos_have_whole_outputs(yolox_engine, long_clip, tmp_path, number):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "engineworks.cli", "videos", str(yolox_engine), str(long_clip)]
    running = subprocess.Popen(
        [*words, "-o", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    when_written(running, out / "long.jsonl", 20)
    running.send_signal(number)
    told, err = running.communicate(timeout=300)
    assert running.returncode == 128 + number, err
    assert "1 videos: 1 stopped" in told
    (video,) = json.loads((out / "summary.json").read_text())["videos"]
    assert 20 <= video["frames"] < 300
    assert len(read_clip(out / "long.mp4")) == len(lines(out / "long.jsonl")) == video["frames"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_where_ctrl_c_is_ignored_it_stays_so(yolox_engine, clip, tmp_path):
    """As in the background of a script, whose user interrupts something else."""
    words = [sys.executable, "-m", "engineworks.cli", "video", str(yolox_engine), str(clip)]
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]
    running = subprocess.Popen([*shell, "--jsonl", str(tmp_path / "out.jsonl")])
    when_written(running, tmp_path / "out.jsonl", 2)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=300) == 0
    assert len(lines(tmp_path / "out.jsonl")) == 40


def test_many_videos_each_with_its_outcome(yolox_engine, clip, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "deep" / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.avi").write_text("no video")
    command = ["videos", str(yolox_engine), str(tmp_path), "-o", str(out), "--track"]
    assert main([*command, "--at-once", "3"]) == 1
    told = capsys.readouterr().out
    assert "4 videos: 2 whole, 2 failed" in told
    summary = json.loads((out / "summary.json").read_text())
    by_name = {}
    for video in summary["videos"]:
        by_name.setdefault(video["name"], []).append(video["outcome"])
    assert by_name == {"a.mp4": ["whole"] * 2, "empty.mp4": ["failed"], "text.avi": ["failed"]}
    assert sorted(path.name for path in out.glob("*.mp4")) == ["a-2.mp4", "a.mp4"]
    assert lines(out / "a.jsonl") == lines(out / "a-2.jsonl")
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--resume", "--json"]) == 1
    again = json.loads(capsys.readouterr().out)
    assert again["outcomes"]["whole"] == 2
    assert [video["frames"] for video in again["videos"] if video["outcome"] == "whole"] == [0, 0]


def test_a_folder_without_videos_is_refused(yolox_engine, tmp_path, capsys):
    assert main(["videos", str(yolox_engine), str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "holds no video" in capsys.readouterr().err


def test_metrics_and_log_lines_of_a_video(yolox_engine, clip, tmp_path):
    log = tmp_path / "log.jsonl"
    assert main(["video", str(yolox_engine), str(clip), "--log", str(log)]) == 0
    frames = [row for row in lines(log) if row["event"] == "inference"]
    assert [row["frame"] for row in frames] == list(range(40))
    assert frames[0]["stream"] == "bear.mp4"
    assert set(frames[0]["stage_ms"]) >= {"decode", "preprocess", "infer", "postprocess", "write"}


def report(**changes):
    values = {
        "name": "clip.mp4", "outcome": "whole", "reason": "", "frames": 200,
        "expected_frames": 800, "dropped": 0, "damaged": 0, "reconnects": 0, "detections": 0,
        "tracks": 0, "source_s": 8.0, "elapsed_s": 4.0, "fps": 50.0, "stages_ms": {"infer": 17.2},
    }  # fmt: skip
    return StreamReport(**{**values, **changes})


def test_the_progress_line():
    assert line([report()]) == (
        "clip.mp4 [#####...............] 200/800  50.0 fps  0:12 left  infer 17 ms"
    )
    assert line([report(), report(expected_frames=None, dropped=3)]) == (
        "2 streams 400 frames  100.0 fps  3 dropped  infer 17 ms"
    )
    assert line([]) == "starting"
