"""No command destroys what it reads, by whatever name it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import pytest

from engineworks.cli import main
from engineworks.errors import StoreError
from engineworks.runtime.outputs import make_folder, write_text
from tests import builders
from tests.clips import panned, write_clip


@pytest.fixture(scope="module")
def bytes_of_clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "bear.mp4", panned(5)).read_bytes()


@pytest.fixture
def place(tmp_path, bytes_of_clip, monkeypatch):
    """A folder with the clip under many names, as the working folder."""
    (tmp_path / "clip.mp4").write_bytes(bytes_of_clip)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "clip.mp4")
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    # The name under which `out.jsonl` is written leads to the clip.
    (tmp_path / ".trap.writing.jsonl").symlink_to("clip.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments, capsys, code=2):
    assert main([*map(str, arguments)]) == code
    return capsys.readouterr().err


@pytest.mark.parametrize("more", [["--overwrite"], ["--resume"], ["--resume", "--track"]])
@pytest.mark.parametrize(
    "written",
    [
        ["-o", "clip.mp4"],
        ["-o", "./folder/../clip.mp4"],
        ["-o", "link.mp4"],
        ["-o", "hard.mp4"],
        ["-o", "linked/clip.mp4"],
        ["--jsonl", "clip.mp4"],
        ["--jsonl", "hard.mp4"],
        ["--jsonl", "trap.jsonl"],
        ["-o", "new.mp4", "--jsonl", "new.jsonl", "--log", "link.mp4"],
    ],
)
@pytest.mark.parametrize("read", ["clip.mp4", "link.mp4", "hard.mp4", "file://{}/clip.mp4"])
def test_the_source_is_never_an_output(
    yolox_engine, place, capsys, bytes_of_clip, read, written, more
):
    command = ["video", yolox_engine, read.format(place), *written, *more]
    assert "it would be destroyed" in refused(command, capsys)
    assert (place / "clip.mp4").read_bytes() == bytes_of_clip
    assert (place / "link.mp4").is_symlink()
    assert not (place / "new.mp4").exists()


def test_a_name_in_other_case_is_the_same_file_where_the_disk_says_so(
    yolox_engine, place, capsys, bytes_of_clip
):
    upper = place / "CLIP.MP4"
    if not upper.exists():  # a disk that tells them apart: stands for one that does not
        os.link(place / "clip.mp4", upper)
    command = ["video", yolox_engine, "clip.mp4", "-o", "CLIP.MP4", "--overwrite"]
    assert "it would be destroyed" in refused(command, capsys)
    assert (place / "clip.mp4").read_bytes() == bytes_of_clip


def test_images_of_a_folder_are_never_an_output(yolox_engine, tmp_path, capsys):
    image = builders.picture(tmp_path / "photos" / "a.jpg")
    before = image.read_bytes()
    command = ["video", yolox_engine, image.parent, "--jsonl", image, "--overwrite"]
    assert "a.jpg" in refused(command, capsys)
    assert image.read_bytes() == before


def test_a_part_of_a_video_that_is_the_source_is_not_taken_for_a_part(
    yolox_engine, place, capsys, bytes_of_clip
):
    (place / "out.mp4").write_bytes(bytes_of_clip)
    (place / "out.part2.mp4").write_bytes(bytes_of_clip)
    command = ["video", yolox_engine, "out.part2.mp4", "-o", "out.mp4", "--resume"]
    assert "out.part2.mp4" in refused(command, capsys)


def test_the_engine_is_never_an_output(yolox_engine, place, capsys):
    manifest = yolox_engine / "manifest.json"
    before = manifest.read_bytes()
    for path, words in ((manifest, "it would be destroyed"), ("new.jsonl", "inside the engine")):
        command = ["video", yolox_engine, "clip.mp4", "--jsonl", yolox_engine / path]
        assert words in refused([*command, "--overwrite"], capsys)
    assert manifest.read_bytes() == before
    assert not (yolox_engine / "new.jsonl").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "folder/../A.JSONL", "linked/a.jsonl"])
def test_two_outputs_of_one_name_are_refused(yolox_engine, place, capsys, name):
    command = ["video", yolox_engine, "clip.mp4", "--track", "--jsonl", "a.jsonl"]
    assert "one name" in refused([*command, "--mot", name], capsys)
    assert "one name" in refused([*command, "--log", name], capsys)
    assert not (place / "a.jsonl").exists()


def test_standard_streams_do_not_go_into_the_source(yolox_engine, place, bytes_of_clip):
    command = [sys.executable, "-m", "engineworks.cli", "video", str(yolox_engine)]
    with (place / "clip.mp4").open("ab") as clip:
        told = subprocess.run(
            [*command, "clip.mp4", "--jsonl", "-"], stdout=clip, stderr=subprocess.PIPE, text=True
        )
    assert (told.returncode, "standard output" in told.stderr) == (2, True)
    with (place / "clip.mp4").open("rb") as clip:
        raw = [*command, "-", "--raw-size", "8x8", "--jsonl", "clip.mp4", "--overwrite"]
        told = subprocess.run(raw, stdin=clip, capture_output=True, text=True)
    assert (told.returncode, "standard input" in told.stderr) == (2, True)
    assert (place / "clip.mp4").read_bytes() == bytes_of_clip


def test_many_videos_into_their_own_folder(yolox_engine, place, capsys, bytes_of_clip):
    for source, words in (("clip.mp4", "it would be destroyed"), (".", "the folder to read")):
        command = ["videos", yolox_engine, source, "-o", ".", "--overwrite"]
        assert words in refused(command, capsys)
    # The output of one is the input of another.
    (place / "folder" / "clip.mp4").write_bytes(bytes_of_clip)
    command = ["videos", yolox_engine, "clip.mp4", "folder/clip.mp4", "-o", "folder", "--overwrite"]
    assert "folder/clip.mp4" in refused(command, capsys)
    assert (place / "folder" / "clip.mp4").read_bytes() == bytes_of_clip
    assert (place / "clip.mp4").read_bytes() == bytes_of_clip


def test_names_of_outputs_differ_on_every_disk_and_are_told(
    yolox_engine, tmp_path, capsys, bytes_of_clip
):
    for name in ("a/Clip.mp4", "b/clip.mkv", "b/clip.part2.mp4", "c/clip-2.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes_of_clip)
    (tmp_path / "b" / "notes.txt").write_text("no video")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    out = tmp_path / "out"
    given = [tmp_path / name for name in "abc"]
    assert main(["videos", str(yolox_engine), *map(str, given), "-o", str(out)]) == 0
    assert "1 .txt" in capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["left_out"] == {".txt": 1}
    told = {video["source"]: video["outputs"] for video in summary["videos"]}
    files = [path for outputs in told.values() for path in outputs]
    assert len(told) == 4
    assert len({path.lower() for path in files}) == len(files) == 8
    assert {str(path) for path in out.iterdir()} == {*files, str(out / "summary.json")}
    assert told[str(tmp_path / "a/loop/b/clip.part2.mp4")][0] == str(out / "clip-part2.mp4")


def test_pictures_that_a_link_leads_to_are_not_overwritten(yolox_engine, tmp_path, capsys):
    image = builders.picture(tmp_path / "real" / "a.jpg")
    before = image.read_bytes()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.jpg").symlink_to(image)
    command = ["detect", yolox_engine, tmp_path / "links" / "a.jpg", "-o", image.parent]
    assert "it would be destroyed" in refused(command, capsys)
    log = ["detect", yolox_engine, image, "--log", tmp_path / "links" / "a.jpg"]
    assert "it would be destroyed" in refused(log, capsys)
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (["--jsonl", "folder"], "is a folder"),
        (["--jsonl", "/dev/null"], "no ordinary file"),
        (["--jsonl", "pipe"], "no ordinary file"),
        (["--jsonl", "x" * 250 + ".jsonl"], "too long"),
        (["-o", "x" * 252 + ".mp4"], "too long"),
        (["--jsonl", "/proc/out.jsonl"], "cannot be written"),
        (["-o", "/proc/out.mp4"], "cannot be written"),
        (["--jsonl", "/sys/kernel/profiling", "--overwrite"], "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_noticed_before_the_first_frame(
    yolox_engine, place, capsys, output, words
):
    os.mkfifo(place / "pipe")
    before = sorted(place.iterdir())
    told = refused(["video", yolox_engine, "clip.mp4", *output], capsys)
    assert words in told
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("name", ["clip.mp4", "/proc/new"])
def test_a_folder_for_outputs_that_takes_none(yolox_engine, place, capsys, name):
    assert "folder for -o" in refused(["videos", yolox_engine, "link.mp4", "-o", name], capsys)
    photo = builders.picture(place / "photo.jpg")
    assert "folder for -o" in refused(["detect", yolox_engine, photo, "-o", name], capsys)


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "a.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(StoreError, match="cannot be written"):
        write_text(tmp_path / "no" / "a.json", "{}")
    make_folder(tmp_path / "new" / "er")
    assert list((tmp_path / "new" / "er").iterdir()) == []


def test_a_picture_that_lies_there_already_is_replaced(yolox_engine, tmp_path):
    image = builders.picture(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("old")
    given = ["detect", str(yolox_engine), str(image), "-o", str(tmp_path / "out")]
    assert main(given) == 0
    assert cv2.imread(str(tmp_path / "out" / "a.png")).shape == (24, 32, 3)
