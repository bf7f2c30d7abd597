"""Videos that are written: real files, real faults."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from engineworks.errors import DataError
from engineworks.runtime.outputs import temporary_name
from engineworks.runtime.video_file import VideoFile, last_time_s
from tests.clips import panned, read_clip

#: A variable frame rate: a pause, and two frames at one time.
TIMES_S = [0.0, 0.04, 0.08, 0.5, 0.533333, 0.533333, 1.7]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_come_back_with_their_own_times(tmp_path, codec):
    images = panned(len(TIMES_S))
    file = VideoFile(tmp_path / "out.mp4", fps=25, codec=codec)
    for image, time_s in zip(images, TIMES_S, strict=True):
        file.write(image, time_s)
    assert not (tmp_path / "out.mp4").exists(), "a name is given to finished files alone"
    file.close()
    back = read_clip(tmp_path / "out.mp4")
    np.testing.assert_allclose([time_s for time_s, _ in back], TIMES_S, atol=1e-4)
    for (_, found), image in zip(back, images, strict=True):
        assert np.abs(found.astype(int) - image).mean() < 12
    assert list(tmp_path.iterdir()) == [tmp_path / "out.mp4"]
    assert last_time_s(tmp_path / "out.mp4") == pytest.approx(1.7, abs=1e-4)


def test_h264_is_what_it_writes_by_itself(tmp_path):
    import av

    file = VideoFile(tmp_path / "out.mp4", fps=25)
    file.write(panned(1)[0], 0)
    file.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_a_part_remembers_where_in_its_source_it_begins(tmp_path):
    file = VideoFile(tmp_path / "out.mp4", fps=25)
    for number, image in enumerate(panned(5)):
        file.write(image, 61.2 + number / 25)
    file.close()
    assert read_clip(tmp_path / "out.mp4")[0][0] == 0
    assert last_time_s(tmp_path / "out.mp4") == pytest.approx(61.36, abs=1e-4)


def test_frames_of_other_and_of_odd_sizes_fit_into_the_first(tmp_path):
    images = [panned(1, (121, 161))[0], panned(1, (300, 100))[0], panned(1, (121, 161))[0]]
    file = VideoFile(tmp_path / "out.mp4", fps=25)
    for number, image in enumerate(images):
        file.write(image, number / 25)
    file.close()
    back = read_clip(tmp_path / "out.mp4")
    assert [image.shape for _, image in back] == [(122, 162, 3)] * 3
    assert file.refitted == 1
    assert back[1][1][:, 60:].max() < 40, "beside a narrow frame it is black"
    assert np.abs(back[2][1][:121, :161].astype(int) - images[2]).mean() < 12


def test_without_a_frame_there_is_no_file(tmp_path):
    VideoFile(tmp_path / "out.mp4", fps=25).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.avi", "out", "nowhere/out.mp4"])
def test_a_name_that_cannot_become_a_video_is_refused_at_once(tmp_path, name):
    with pytest.raises(DataError) as refusal:
        VideoFile(tmp_path / name, fps=25)
    assert refusal.value.hint


FAULT = """
import os, resource, sys
from pathlib import Path
import numpy as np
from engineworks.errors import StoreError
from engineworks.runtime.video_file import VideoFile

noise = np.random.default_rng(0)
file = VideoFile(Path(sys.argv[1]), fps=25)
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    for number in range(200):
        file.write(noise.integers(0, 256, (240, 320, 3), np.uint8), number / 25)
        if sys.argv[2] == "killed" and number == 120:
            os.kill(os.getpid(), 9)
except StoreError as error:
    print(error.message)
    file.close()
"""


def break_off(path, how):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FAULT), str(path), how],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_a_file_that_plays(tmp_path):
    path = tmp_path / "out.mp4"
    done = break_off(path, "full")
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert "too large" in done.stdout.lower()
    assert last_time_s(path) > 0.9


@pytest.mark.skipif(sys.platform == "win32", reason="needs a signal that cannot be caught")
def test_a_killed_process_leaves_a_file_that_plays(tmp_path):
    path = tmp_path / "out.mp4"
    break_off(path, "killed")
    assert not path.exists()
    assert last_time_s(temporary_name(path)) > 2.9
