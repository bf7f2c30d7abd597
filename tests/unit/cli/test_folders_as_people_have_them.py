"""Folders of images among other files, links that lead nowhere and names without end."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from engineworks.cli import main

LONG = "n" * 245 + ".png"


@pytest.fixture
def folder(tmp_path):
    """Two pictures."""
    (tmp_path / "in").mkdir()
    for name in ("a.png", "z.png"):
        assert cv2.imwrite(str(tmp_path / "in" / name), np.zeros((20, 30, 3), np.uint8))
    return tmp_path / "in"


def names(text):
    return [json.loads(line)["image"].rpartition("/")[2] for line in text.splitlines()]


def test_every_format_that_is_read_is_searched_for(oracle_engine, folder, capsys):
    image = Image.new("RGB", (30, 20), "red")
    for ending, kind in (("jfif", "JPEG"), ("JPE", "JPEG"), ("pnm", "PPM"), ("gif", "GIF")):
        image.save(folder / f"b.{ending}", kind)
    image.save(folder / "b.ppm")
    image.convert("L").save(folder / "b.pgm")
    image.convert("1").save(folder / "b.pbm")
    out = folder.parent / "out"
    assert main(["detect", str(oracle_engine), str(folder), "--json", "-o", str(out)]) == 0
    told = capsys.readouterr()
    assert len(names(told.out)) == 9
    assert "left out" not in told.err
    assert len([Image.open(path).load() for path in out.iterdir()]) == 9


def test_other_endings_are_counted(oracle_engine, folder, capsys):
    for name in ("b.heic", "c.HEIC", "d.avif", "plain", ".hidden"):
        (folder / name).write_bytes(b"something")
    assert main(["detect", str(oracle_engine), str(folder), "--json"]) == 0
    told = capsys.readouterr()
    assert names(told.out) == ["a.png", "z.png"]
    assert "no image that is read ends so: 1 .avif, 2 .heic, 1 without ending\n" in told.err
    assert main(["video", str(oracle_engine), str(folder), "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "1 .avif, 2 .heic, 1 without ending" in note


def test_only_other_endings_are_no_images_and_are_counted(oracle_engine, tmp_path, capsys):
    (tmp_path / "a.heic").write_bytes(b"something")
    for command in ("detect", "video"):
        assert main([command, str(oracle_engine), str(tmp_path)]) == 2
        assert "there are 1 .heic" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["loop.png", "n" * 255])
def test_a_link_that_leads_nowhere_is_named_and_the_others_go_on(
    oracle_engine, folder, capsys, target
):
    (folder / "loop.png").symlink_to(target)
    assert main(["detect", str(oracle_engine), str(folder), "--json"]) == 1
    told = capsys.readouterr()
    assert names(told.out) == ["a.png", "loop.png", "z.png"]
    assert "loop.png cannot be read" in told.err


def test_videos_go_on_beside_a_link_to_itself(oracle_engine, folder, capsys):
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "loop.png").symlink_to("loop.png")
    out = str(folder.parent / "out")
    Image.new("RGB", (32, 32), "red").save(folder / "one.gif")
    assert main(["videos", str(oracle_engine), str(folder), "-o", out, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {video["name"]: video["outcome"] for video in found["videos"]} == {
        "loop.mp4": "failed",
        "one.gif": "whole",
    }
    assert found["left_out"] == {".png": 3}


@pytest.mark.parametrize("long", [LONG, "n" * 251 + ".jp", "\u00e9" * 125 + ".png"])
def test_a_long_name_is_written_and_the_others_go_on(oracle_engine, folder, long):
    other = folder.parent / "other"
    other.mkdir()
    for place in (folder, other):
        (place / long).write_bytes((folder / "a.png").read_bytes())
    out = folder.parent / "out"
    given = [str(folder), str(folder / long), str(other / long)]
    assert main(["detect", str(oracle_engine), *given, "-o", str(out)]) == 0
    written = sorted(path.name for path in out.iterdir())
    assert len(written) == 5 - long.endswith(".jp")
    assert {"a.png", "z.png"} < set(written)
    assert max(len(os.fsencode(name)) for name in written) <= 255


def test_of_one_image_the_output_may_be_the_file_itself(oracle_engine, folder, tmp_path, capsys):
    one, out = str(folder / "a.png"), tmp_path / "drawn.jpg"
    assert main(["detect", str(oracle_engine), one, "-o", str(out)]) == 0
    assert Image.open(out).size == (30, 20)
    for given, name in ((str(folder), "b.jpg"), (one, "b.gif"), (one, "in/a.png")):
        assert main(["detect", str(oracle_engine), given, "-o", str(tmp_path / name)]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.jpg", "in"]


def test_a_long_name_of_a_video_does_not_stop_the_others(oracle_engine, tmp_path):
    for name in ("a/" + "n" * 251 + ".gif", "b/" + "n" * 251 + ".gif", "c.gif"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), "red").save(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert main(["videos", str(oracle_engine), str(tmp_path / "in"), "-o", str(out)]) == 0
    assert len(list(out.glob("*.mp4"))) == len(list(out.glob("*.jsonl"))) == 3
