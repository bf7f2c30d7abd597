"""A video's planes on their way from decoder to model, drawing and encoder."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.runtime.detections import Detections
from engineworks.runtime.drawing import draw
from engineworks.runtime.planes import Planes, split
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.sources import SourceOptions, open_source
from engineworks.runtime.video_file import VideoFile
from engineworks.specs import Preprocess
from tests.clips import panned, read_clip, write_clip

LABELS = ("person", "dog")


def clip_in(path, matrix, **codec):
    """A clip that says which colour matrix it has, made of the photo by FFmpeg alone."""
    import av
    from av.video.reformatter import Colorspace

    numbers = {"bt709": (1, Colorspace.ITU709), "bt601": (6, Colorspace.ITU601)}
    number, converter = numbers[matrix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, codec.get("pix_fmt", "yuv420p")
        stream.codec_context.colorspace, stream.codec_context.color_range = number, 1
        for image in panned(4):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=converter)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_colours_are_those_of_the_picture(tmp_path, matrix):
    frame = next(iter(open_source(str(clip_in(tmp_path / "c.mp4", matrix)))))
    assert isinstance(frame.pixels, Planes)
    assert frame.pixels.matrix == matrix
    assert frame.size == (240, 320)
    difference = frame.image.astype(int) - panned(1)[0]
    assert np.abs(difference).mean() < 3
    assert np.abs(difference.mean(axis=(0, 1))).max() < 2, "no cast of any colour"


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_there_and_back(matrix):
    colors = np.random.default_rng(0).integers(0, 256, (16, 3), np.uint8)
    for color in colors:
        y, u, v = split(np.full((4, 6, 3), color, np.uint8), matrix)
        assert (y.shape, u.shape, v.shape) == ((4, 6), (2, 3), (2, 3))
        assert 16 <= y[0, 0] <= 235
        back = Planes(y=y, u=u, v=v, matrix=matrix).bgr()
        assert np.abs(back.astype(int) - color).max() <= 3


@pytest.mark.parametrize("size", [(416, 416), (128, 640)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
def test_the_model_sees_the_same_by_either_way(tmp_path, resize, size):
    """Only colour at its edges differs: it is enlarged once instead of twice."""
    frame = next(iter(open_source(str(write_clip(tmp_path / "c.mp4", panned(4, (480, 640)))))))
    prepare = Preprocessor(Preprocess(resize=resize, scale=1.0), size)
    straight, place = prepare(frame.pixels)
    detour, other_place = prepare(frame.image)
    assert place == other_place
    assert np.abs(straight - detour).mean() < 0.8
    assert np.percentile(np.abs(straight - detour), 99) <= 6


def test_drawing_looks_the_same_by_either_way(tmp_path):
    frame = next(iter(open_source(str(write_clip(tmp_path / "c.mp4", panned(4, (720, 1280)))))))
    found = Detections(
        xyxy=np.array([[100, 100, 401, 303], [-20, -20, 90, 60], [1200, 700, 1400, 900]], "f4"),
        confidence=np.full(3, 0.9, "f4"),
        class_id=np.array([0, 1, 5]),
        track_id=np.array([7, 8, 9]),
    )
    before, image = frame.image, frame.image
    draw(image, found, LABELS)
    draw(frame.pixels, found, LABELS)
    drawn = frame.image
    changed = np.abs(drawn.astype(int) - before).max(axis=2) > 25
    wanted = np.abs(image.astype(int) - before).max(axis=2) > 25
    # Colour has half the pixels, so edges may lie one pixel further.
    assert (changed & wanted).sum() > 0.8 * wanted.sum()
    assert changed.sum() < 1.4 * wanted.sum()
    assert not changed[400:650, :1100].any(), "nothing is drawn elsewhere"
    inside = drawn[90:97, 104:120].reshape(-1, 3).astype(int)  # a name's plate
    as_image = np.median(image[90:97, 104:120], axis=(0, 1))
    assert np.abs(np.median(inside, axis=0) - as_image).max() < 25


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_a_written_video_keeps_colours_and_says_which(tmp_path, matrix):
    import av

    file = VideoFile(tmp_path / "out.mp4", fps=25)
    for frame in open_source(str(clip_in(tmp_path / "c.mp4", matrix))):
        file.write(frame.pixels, frame.time_s)
    file.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        next(container.decode(video=0))
        assert context.colorspace == {"bt709": 1, "bt601": 6}[matrix]
        assert context.color_range == 1
    again = next(iter(open_source(str(tmp_path / "out.mp4"))))
    assert np.abs((again.image.astype(int) - panned(1)[0]).mean(axis=(0, 1))).max() < 2


def test_key_frames_of_the_source_are_none_here(tmp_path):
    """The output has one a second; the source has one in ten frames."""
    import av

    clip = write_clip(tmp_path / "c.mp4", panned(40))
    file = VideoFile(tmp_path / "out.mp4", fps=25)
    for frame in open_source(str(clip)):
        file.write(frame.pixels, frame.time_s)
    file.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert keys == [0, 25]


def test_a_frame_belongs_to_whoever_has_it(tmp_path):
    """Drawing into one must not show in those that the decoder makes of it."""
    clip = write_clip(tmp_path / "c.mp4", panned(12))
    for number, frame in enumerate(open_source(str(clip), SourceOptions(hardware="none"))):
        assert np.abs(frame.image.astype(int) - panned(12)[number]).mean() < 12
        frame.pixels.y[:], frame.pixels.u[:], frame.pixels.v[:] = 255, 0, 0


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p", "yuv420p10le"])
def test_other_kinds_of_colour_come_as_bgr(tmp_path, pix_fmt):
    clip = clip_in(tmp_path / "c.mp4", "bt601", pix_fmt=pix_fmt)
    frame = next(iter(open_source(str(clip))))
    assert isinstance(frame.pixels, np.ndarray)
    assert np.abs(frame.image.astype(int) - panned(1)[0]).mean() < 4


def test_a_video_goes_on_with_planes_of_another_size(tmp_path):
    small = next(iter(open_source(str(write_clip(tmp_path / "s.mp4", panned(2, (120, 200)))))))
    large = next(iter(open_source(str(write_clip(tmp_path / "l.mp4", panned(2))))))
    file = VideoFile(tmp_path / "out.mp4", fps=25)
    for number, frame in enumerate((large, small, large)):
        file.write(frame.pixels, number / 25)
    file.close()
    assert file.refitted == 1
    assert [image.shape for _, image in read_clip(tmp_path / "out.mp4")] == [(240, 320, 3)] * 3


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("planar", [True, False])
def test_a_video_of_another_height(tmp_path, matrix, planar):
    file = VideoFile(tmp_path / "out.mp4", fps=25, height=100)
    for frame in open_source(str(clip_in(tmp_path / "c.mp4", matrix))):
        file.write(frame.pixels if planar else frame.image, frame.time_s)
    file.close()
    assert file.refitted == 0
    (back, *_) = open_source(str(tmp_path / "out.mp4"))
    assert back.size == (100, 134)
    wanted = panned(1)[0].mean(axis=(0, 1))
    assert np.abs(back.image.mean(axis=(0, 1)) - wanted).max() < 4


def test_bgr_frames_keep_their_colours_in_a_bt709_video(tmp_path):
    """A stream that changes to another kind of colour while it runs."""
    first = next(iter(open_source(str(clip_in(tmp_path / "c.mp4", "bt709")))))
    file = VideoFile(tmp_path / "out.mp4", fps=25)
    for number, pixels in enumerate((first.pixels, panned(1)[0], first.pixels)):
        file.write(pixels, number / 25)
    file.close()
    for frame in open_source(str(tmp_path / "out.mp4")):
        assert np.abs((frame.image.astype(int) - panned(1)[0]).mean(axis=(0, 1))).max() < 2.5
