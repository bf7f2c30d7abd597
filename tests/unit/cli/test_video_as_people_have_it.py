"""Videos as people have them: covers, mirrors, oblong pixels, odd names, cut files.

The boxes are those of pure colours, known from the clips' making or computed from the picture as
PyAV gives it; `tests/oracle.py` finds them to the pixel of a 320-pixel input.
"""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engineworks.cli import main
from engineworks.runtime.sources import open_source
from engineworks.runtime.sources.upright import signs
from tests.clips import panned, write_clip

CASES = Path(__file__).parents[2] / "cases" / "video"

#: The red box of the clips, in the picture as it is stored: left, top, right, bottom.
RED = (20, 32, 60, 80)
SIZE = (240, 320)


def rows(engine, source, tmp_path, *more):
    out = tmp_path / "rows.jsonl"
    command = ["video", engine, source, "--jsonl", out, "--overwrite", *more]
    code = main([*map(str, command)])
    return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def red(row):
    (found,) = [found["xyxy"] for found in row["detections"] if found["label"] == "red"]
    return found


@pytest.mark.parametrize("name", ["cover_first.mp4", "cover_last.mp4"])
def test_a_cover_picture_is_not_the_video(oracle_engine, tmp_path, name):
    code, told = rows(oracle_engine, CASES / name, tmp_path)
    assert (code, len(told), told[0]["size"]) == (0, 10, [240, 320])
    assert red(told[0]) == pytest.approx(RED, abs=1.5)


def test_music_with_a_cover_is_no_video(oracle_engine, tmp_path, capsys):
    assert rows(oracle_engine, CASES / "song.m4a", tmp_path) == (2, [])
    assert "only a cover picture" in capsys.readouterr().err


def seen(box, matrix, size):
    """The box of a picture after a display matrix, by the rule of FFmpeg's display.h alone."""
    a, b, c, d = matrix
    height, width = size
    points = np.array([(box[0], box[1]), (box[2], box[3]), (0, 0), (width, height)])
    moved = points @ np.array([[a, b], [c, d]])
    low = moved[2:].min(axis=0)
    moved = moved - low
    left, top = moved[:2].min(axis=0)
    right, bottom = moved[:2].max(axis=0)
    return [left, top, right, bottom]


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("hflip.mp4", (260, 32, 300, 80)),
        ("vflip.mp4", (20, 160, 60, 208)),
        ("rot180.mp4", (260, 160, 300, 208)),
        ("rot90.mp4", (160, 20, 208, 60)),
    ],
)
def test_turned_and_mirrored_videos_are_upright(oracle_engine, tmp_path, name, box):
    code, told = rows(oracle_engine, CASES / name, tmp_path)
    assert code == 0
    assert red(told[0]) == pytest.approx(box, abs=1.5)


ALL = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [
    (0, b, c, 0) for b in (1, -1) for c in (1, -1)
]


def with_matrix(path, matrix):
    """The clip with another display matrix in its track header."""
    data = bytearray((CASES / "hflip.mp4").read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    assert data[place - 40] == 0  # version 0
    a, b, c, d = (value << 16 for value in matrix)
    values = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    data[place : place + 36] = np.array(values, ">i4").tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix", ALL)
def test_all_eight_ways_to_turn_and_mirror(oracle_engine, tmp_path, matrix):
    clip = with_matrix(tmp_path / "clip.mp4", matrix)
    code, told = rows(oracle_engine, clip, tmp_path, "-o", tmp_path / "out.mp4")
    assert code == 0
    assert red(told[0]) == pytest.approx(seen(RED, matrix, SIZE), abs=1.5)
    size = list(SIZE if matrix[0] else SIZE[::-1])
    assert told[0]["size"] == size
    with av.open(str(tmp_path / "out.mp4")) as out:  # drawn upright: it needs no matrix
        frame = next(out.decode(video=0))
        assert [frame.height, frame.width] == size


def test_angles_between_go_to_the_nearest():
    tilted = np.array([65000, 5000, 0, -5000, 65000, 0, 0, 0, 1 << 30], np.int32)
    assert signs(tilted.tobytes()) == (1, 0, 0, 1)


@pytest.mark.parametrize("name", ["sar.mp4", "sar.mkv"])
def test_oblong_pixels_stay_oblong(oracle_engine, tmp_path, name):
    """Boxes and what the network sees are in stored pixels; players stretch both alike."""
    out = tmp_path / "out.mp4"
    code, told = rows(oracle_engine, CASES / name, tmp_path, "-o", out, "--video-height", "120")
    assert code == 0
    assert told[0]["pixel_aspect"] == pytest.approx(4 / 3)
    with av.open(str(CASES / name)) as source, av.open(str(out)) as written:
        before, after = source.streams.video[0], written.streams.video[0]
        assert before.sample_aspect_ratio == after.sample_aspect_ratio == Fraction(4, 3)
        assert before.display_aspect_ratio == after.display_aspect_ratio == Fraction(16, 9)


def test_pixels_of_a_turned_video_are_oblong_the_other_way(tmp_path):
    data = bytearray((CASES / "sar.mp4").read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = np.array(
        [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4"
    ).tobytes()
    (tmp_path / "turned.mp4").write_bytes(data)
    source = open_source(str(tmp_path / "turned.mp4"))
    assert next(iter(source)).pixel_aspect == Fraction(3, 4)
    source.close()


@pytest.mark.parametrize(
    "name", ["2024-11-14T22:57:44.mp4", "http:x.mp4", "pipe:1.mp4", "a?b%20#c.mp4", "-.mp4"]
)
def test_a_name_is_a_name_and_no_protocol(oracle_engine, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CASES / "plain.mp4", name)
    written = ["-o", "cam1:front.mp4", "--jsonl", "2024-11-14T22:58.jsonl"]
    assert main(["video", str(oracle_engine), "--", name]) == 0
    assert main(["video", str(oracle_engine), *written, "--", name]) == 0
    with av.open(f"file:{tmp_path}/cam1:front.mp4") as out:
        assert sum(1 for _ in out.decode(video=0)) == 10
    assert len((tmp_path / "2024-11-14T22:58.jsonl").read_text().splitlines()) == 10
    assert main(["video", str(oracle_engine), *written, "--resume", "--", name]) == 0
    assert main(["videos", str(oracle_engine), ".", "-o", "out"]) == 0
    assert (tmp_path / "out" / f"{Path(name).stem}.jsonl").is_file()


@pytest.mark.parametrize("address", ["concatf://x", "subfile,,start,0,end,9,,://x", "crypto://x"])
def test_what_is_no_kind_of_stream_is_refused(oracle_engine, tmp_path, capsys, address):
    assert rows(oracle_engine, address, tmp_path) == (2, [])
    assert "no kind of stream" in capsys.readouterr().err


def test_a_title_in_latin_1_is_no_obstacle(oracle_engine, tmp_path):
    code, told = rows(oracle_engine, CASES / "latin1_title.avi", tmp_path)
    with av.open(str(CASES / "latin1_title.avi"), metadata_errors="ignore") as clip:
        assert (code, len(told)) == (0, sum(1 for _ in clip.decode(video=0)))


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        *[(ending, "libx264") for ending in ("mp4", "mov", "mkv", "flv", "ts", "m2ts")],
        ("avi", "mpeg4"),
        ("3gp", "mpeg4"),
        ("wmv", "mpeg4"),
        ("gif", "gif"),
        ("ogv", "libtheora"),
        ("webm", "libvpx"),
    ],
)
def test_a_file_that_is_cut_is_not_called_whole(oracle_engine, tmp_path, capsys, ending, codec):
    whole = tmp_path / f"whole.{ending}"
    try:
        write_any(whole, codec)
    except (ValueError, av.error.FFmpegError) as error:
        pytest.skip(f"this FFmpeg cannot write it: {error}")
    data = whole.read_bytes()
    outcomes = []
    for share in (1, 0.99, 0.95, 0.8, 0.5):
        clip = tmp_path / f"clip.{ending}"
        clip.write_bytes(data[: round(len(data) * share) - (share < 1)])
        main(["video", str(oracle_engine), str(clip), "--json"])
        told = json.loads(capsys.readouterr().out or "{}")
        outcomes.append((told["outcome"], bool(told["reason"] or told["notes"])))
    assert outcomes[0] == ("whole", False)
    assert all(told for _, told in outcomes[1:]), outcomes
    assert all(outcome in ("lost", "failed") for outcome, _ in outcomes[2:]), outcomes


@pytest.mark.parametrize("ending", ["mkv", "flv", "mp4", "ts"])
def test_a_sound_that_goes_on_is_no_cut(oracle_engine, tmp_path, capsys, ending):
    """The length that MKV and FLV tell of is that of the file, not of its pictures."""
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 120, 160, "yuv420p"
        sound = container.add_stream("aac", rate=48_000)
        sound.layout = "mono"
        for image in panned(25, (120, 160)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(video.encode(None))
        for number in range(120):  # 2.56 s, beside 1 s of pictures
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 48_000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert main(["video", str(oracle_engine), str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with av.open(str(path)) as container:
        assert told["frames"] == sum(1 for _ in container.decode(video=0)) == 25
    assert (told["outcome"], told["reason"]) == ("whole", "")


def write_any(path, codec):
    images = panned(60, (120, 160))
    if codec == "libx264":
        return write_clip(path, images)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = {"gif": "rgb8"}.get(codec, "yuv420p")
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_every_ending_of_a_video_is_found(oracle_engine, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for ending in ("mts", "M2TS", "3gp", "h264", "gif"):
        written = write_any(tmp_path / f"x.{ending.lower()}", "gif" if ending == "gif" else
                            "mpeg4" if ending == "3gp" else "libx264")  # fmt: skip
        written.rename(folder / f"{ending}.{ending}")
    assert main(["videos", str(oracle_engine), str(folder), "-o", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [video["frames"] for video in summary["videos"]] == [60] * 5
