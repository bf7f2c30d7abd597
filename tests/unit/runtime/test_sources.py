"""Frames in: real files, folders, pipes and a server that cuts the line."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from engineworks.errors import DataError
from engineworks.runtime import read_image
from engineworks.runtime.sources import SourceOptions, open_source
from engineworks.runtime.sources.raw import RawSource
from tests import builders
from tests.clips import panned, write_clip
from tests.streams import CuttingServer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", panned(40))


def frames(address, **options):
    source = open_source(str(address), SourceOptions(**options))
    try:
        return source, list(source)
    finally:
        source.close()


def test_a_file_gives_every_frame_with_its_time(clip):
    source, found = frames(clip)
    assert [frame.number for frame in found] == list(range(40))
    np.testing.assert_allclose([f.time_s for f in found], np.arange(40) / 25, atol=1e-5)
    assert (source.live, source.fps, source.frames) == (False, 25, 40)
    assert np.abs(found[7].image.astype(int) - panned(40)[7]).mean() < 12


def test_frames_above_the_limit_are_refused_unseen(clip):
    with pytest.raises(DataError, match="320x240 pixels, more than the 76,799"):
        frames(clip, max_pixels=320 * 240 - 1)
    assert len(frames(clip, max_pixels=320 * 240)[1]) == 40


def test_what_grows_above_the_limit_is_left_out(tmp_path):
    small = write_clip(tmp_path / "small.ts", panned(12, (240, 320)))
    large = write_clip(tmp_path / "large.ts", panned(12, (480, 640)))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    source, found = frames(both, max_pixels=100_000)
    assert {frame.size for frame in found} == {(240, 320)}
    assert source.troubles.damaged >= 10


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
def test_a_rate_that_is_none_is_refused(fps):
    with pytest.raises(DataError, match="frames per second"):
        SourceOptions(fps=fps)


def test_a_folder_of_12_bit_pictures_is_warned_of(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8), 4095, np.uint16))
    source, found = frames(tmp_path)
    assert [frame.image.max() for frame in found] == [15, 15, 15]
    assert "all 3 16-bit pictures stay below 1/16" in source.troubles.notes[0]


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    times_s = [0.0, 0.04, 0.5, 0.511111, 2.0]
    _, found = frames(write_clip(tmp_path / "vfr.mp4", panned(5), times_s))
    np.testing.assert_allclose([frame.time_s for frame in found], times_s, atol=1e-5)


@pytest.mark.parametrize("after", [0, 9, 10, 23, 38])
def test_a_file_goes_on_after_a_time(clip, after):
    _, whole = frames(clip)
    _, rest = frames(clip, after_s=after / 25)
    assert [frame.number for frame in rest] == list(range(after + 1, 40))
    for one, other in zip(rest, whole[after + 1 :], strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_stream_that_changes_its_size_goes_on(tmp_path):
    wide = write_clip(tmp_path / "wide.ts", panned(12, (240, 320)))
    tall = write_clip(tmp_path / "tall.ts", panned(12, (320, 240)))
    path = tmp_path / "both.ts"
    path.write_bytes(wide.read_bytes() + tall.read_bytes())
    _, found = frames(path)
    shapes = [frame.image.shape for frame in found]
    assert shapes[0] == (240, 320, 3)
    assert shapes[-1] == (320, 240, 3)
    assert len(found) >= 22
    assert [frame.number for frame in found] == list(range(len(found)))
    steps_s = np.diff([frame.time_s for frame in found])
    np.testing.assert_allclose(steps_s, 0.04, atol=1e-4)


def test_nothing_is_left_after_the_end(clip):
    assert frames(clip, after_s=39 / 25)[1] == []


def test_a_damaged_file_gives_what_can_be_decoded(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(2000, len(data) - 3000, 60):
        data[position] ^= 0xFF
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    try:
        source, found = frames(path)
    except DataError as error:
        assert "damaged.mp4" in error.message
    else:
        assert len(found) + source.troubles.damaged >= 20


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"no video at all" * 100, "cannot be opened"), (None, "no file or folder")],
)
def test_a_file_that_is_no_video_is_named(tmp_path, content, words):
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as refusal:
        open_source(str(path))
    assert "broken.mp4" in refusal.value.message
    assert refusal.value.hint


def test_a_file_without_a_picture_is_named(tmp_path):
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="holds no video, only audio"):
        open_source(str(path))


def test_hardware_that_this_build_does_not_know_is_refused(clip):
    with pytest.raises(DataError, match="'tpu'"):
        open_source(str(clip), SourceOptions(hardware="tpu"))


def test_a_folder_gives_its_images_and_names_the_bad_one(tmp_path):
    for name in ("b.png", "a.png", "c.png"):
        builders.picture(tmp_path / name, seed=ord(name[0]))
    (tmp_path / "aa.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("left out")
    source, found = frames(tmp_path, fps=10)
    assert [frame.number for frame in found] == [0, 2, 3]
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.2, 0.3])
    np.testing.assert_array_equal(found[1].image, read_image(tmp_path / "b.png"))
    assert source.troubles.damaged == 1
    ending, bad = source.troubles.notes
    assert "1 .txt" in ending
    assert "aa.jpg" in bad


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no image"):
        open_source(str(tmp_path))


def test_raw_frames_come_through_a_pipe():
    code = (
        "from engineworks.runtime.sources import SourceOptions, open_source\n"
        "source = open_source('-', SourceOptions(raw_size=(4, 6), fps=5))\n"
        "print([(f.number, f.time_s, f.image.shape, int(f.image.sum())) for f in source],"
        " source.troubles.damaged)"
    )
    data = b"".join(bytes([value]) * (4 * 6 * 3) for value in (1, 2, 3)) + b"cut"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout.decode().strip() == (
        "[(0, 0.0, (4, 6, 3), 72), (1, 0.2, (4, 6, 3), 144), (2, 0.4, (4, 6, 3), 216)] 1"
    )


def test_raw_frames_that_do_not_come_are_not_waited_for_once_it_is_stopped():
    reading, writing = os.pipe()
    stop = threading.Event()
    options = SourceOptions(raw_size=(2, 2))
    with open(reading, "rb") as stream:  # noqa: PTH123 - a descriptor
        threading.Timer(0.3, stop.set).start()
        assert list(RawSource(stream, (2, 2), options, stop)) == []
    os.close(writing)


def test_raw_frames_need_a_size():
    with pytest.raises(DataError, match="size"):
        open_source("-")


def test_a_camera_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="camera 63"):
        open_source("63")


def test_a_stream_that_is_cut_comes_back(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", panned(40))
    with CuttingServer(clip.read_bytes(), keep=0.5) as server:
        source = open_source(server.address, SourceOptions(give_up_s=30))
        found = list(itertools.islice(source, 70))
        source.close()
    assert source.live
    assert server.connections >= 3
    assert source.troubles.reconnects >= 2
    assert [frame.number for frame in found] == list(range(70))
    times_s = [frame.time_s for frame in found]
    assert times_s == sorted(times_s)
    assert times_s[-1] >= 0.5, "the wait for the new connection is part of the time"


def test_a_stream_that_stays_away_is_given_up(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", panned(30))
    with CuttingServer(clip.read_bytes(), keep=1.0, connections=1) as server:
        source = open_source(server.address, SourceOptions(give_up_s=2, timeout_s=1))
        found = []
        with pytest.raises(DataError, match="is lost") as loss:
            found.extend(source)
            for frame in source:
                found.append(frame)
    assert loss.value.hint


def test_stopping_ends_the_wait_for_a_stream(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", panned(30))
    stop = threading.Event()
    with CuttingServer(clip.read_bytes(), keep=1.0, connections=1) as server:
        source = open_source(server.address, SourceOptions(give_up_s=600, timeout_s=1), stop)
        threading.Timer(2.0, stop.set).start()
        assert len(list(source)) > 0  # it ends, and long before it gives up


def test_a_video_at_a_web_address_is_read_to_its_end(clip):
    with CuttingServer(clip.read_bytes(), keep=1.0, length=True) as server:
        source, found = frames(server.address)
    assert not source.live
    assert len(found) == 40


def test_nobody_at_the_address_is_an_error_at_once():
    with pytest.raises(DataError, match="cannot be opened"):
        open_source("http://127.0.0.1:9/none.ts", SourceOptions(timeout_s=2))
