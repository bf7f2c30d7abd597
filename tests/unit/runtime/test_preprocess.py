"""An image becomes exactly the input that the model was trained with, and boxes find back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.errors import DataError
from engineworks.runtime.pictures import read_image
from engineworks.runtime.preprocess import Preprocessor
from engineworks.specs import Preprocess
from tests.builders import picture

ASIS = {"scale": 1.0, "color": "bgr"}

sides = st.integers(1, 400)
inputs = st.tuples(st.integers(8, 160), st.integers(8, 160))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def where(mask):
    """left, top, right, bottom of the True cells."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@given(height=sides, width=sides, size=inputs, anchor=st.sampled_from(["center", "top_left"]))
def test_a_letterboxed_image_lies_where_its_placement_says(height, width, size, anchor):
    spec = Preprocess(resize="letterbox", anchor=anchor, pad=0, **ASIS)
    row, placed = Preprocessor(spec, size)(np.full((height, width, 3), 255, np.uint8))
    found = where(row[0] == 255)
    said = np.array([0, 0, width * placed.scale_x, height * placed.scale_y])
    said += [placed.offset_x, placed.offset_y] * 2
    np.testing.assert_allclose(said, found, atol=1e-9)
    left, top, right, bottom = found
    if anchor == "top_left":
        assert (left, top) == (0, 0)
    else:  # as much border on both sides
        assert abs(left - (size[1] - right)) <= 1
        assert abs(top - (size[0] - bottom)) <= 1
    assert right - left == size[1] or bottom - top == size[0]  # as large as it fits
    exact = min(size[1] / width, size[0] / height)  # rounded, as Ultralytics' LetterBox does
    assert abs(right - left - max(1, width * exact)) <= 0.5 + 1e-9
    assert abs(bottom - top - max(1, height * exact)) <= 0.5 + 1e-9


@pytest.mark.parametrize("pad", [0, 114, 255])
def test_the_border_has_the_pad_value(pad):
    spec = Preprocess(resize="letterbox", anchor="top_left", pad=pad, **ASIS)
    row, _ = Preprocessor(spec, (32, 32))(np.full((10, 20, 3), 77, np.uint8))
    assert (row[:, 16:] == pad).all()
    assert (row[:, :16] == 77).all()


def test_a_picture_leaves_no_trace_in_the_next_ones_border():
    prepare = Preprocessor(Preprocess(resize="letterbox", pad=9, **ASIS), (32, 32))
    prepare(noise(32, 32))
    row, _ = prepare(np.full((8, 32, 3), 200, np.uint8))
    assert set(np.unique(row)) == {9, 200}


def test_an_answer_is_not_overwritten_by_the_next_call():
    prepare = Preprocessor(Preprocess(resize="letterbox"), (16, 16))
    first, _ = prepare(noise(16, 16))
    kept = first.copy()
    prepare(noise(16, 16, seed=1))
    np.testing.assert_array_equal(first, kept)


@given(
    height=sides,
    width=sides,
    size=inputs,
    resize=st.sampled_from(["letterbox", "stretch", "center_crop"]),
    anchor=st.sampled_from(["center", "top_left"]),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_point_finds_back_to_the_source(height, width, size, resize, anchor, share):
    spec = Preprocess(resize=resize, anchor=anchor)
    _, placed = Preprocessor(spec, size)(noise(height, width))
    box = np.array(share) * [width, height, width, height]
    scale = np.array([placed.scale_x, placed.scale_y] * 2)
    offset = np.array([placed.offset_x, placed.offset_y] * 2)
    back = placed.to_source((box * scale + offset)[None].astype(np.float32))[0]
    np.testing.assert_allclose(back, box, atol=0.1)


def edges(row, placed):
    """Where the change from dark to bright lies in an input, (x, y), by counting its light.

    Along an axis each input pixel holds 0, 255 or a mixture, so the light up to the edge says
    where it is to a fraction of a pixel. Pixels of the border are not counted.
    """
    light = row.astype(np.float64) / 255
    left, top = max(0, round(placed.offset_x)), max(0, round(placed.offset_y))
    right = min(row.shape[2], round(placed.offset_x + placed.width * placed.scale_x))
    bottom = min(row.shape[1], round(placed.offset_y + placed.height * placed.scale_y))
    x = right - light[0, top, left:right].sum()
    y = bottom - light[1, top:bottom, left].sum()
    return np.array([[x, y, x, y]], np.float32), (left, top, right, bottom)


def assert_edges_find_back(height, width, size, resize, anchor, at):
    """A picture that turns bright at a known column (blue) and row (green), sent through."""
    image = np.zeros((height, width, 3), np.uint8)
    column, line = round(at[0] * width), round(at[1] * height)
    image[:, column:, 0], image[line:, :, 1] = 255, 255
    spec = Preprocess(resize=resize, anchor=anchor, pad=0, **ASIS)
    row, placed = Preprocessor(spec, size)(image)
    edge, (left, top, right, bottom) = edges(row, placed)
    back = placed.to_source(edge)[0]
    if left < edge[0, 0] < right:  # neither cut away nor at a side
        assert abs(back[0] - column) <= 0.5 / placed.scale_x + 1e-3
    if top < edge[0, 1] < bottom:
        assert abs(back[1] - line) <= 0.5 / placed.scale_y + 1e-3


@given(
    height=st.integers(1, 1500),
    width=st.integers(1, 1500),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    resize=st.sampled_from(["letterbox", "stretch", "center_crop"]),
    anchor=st.sampled_from(["center", "top_left"]),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_what_the_network_sees_finds_back_within_half_an_input_pixel(
    height, width, size, resize, anchor, at
):
    assert_edges_find_back(height, width, size, resize, anchor, at)


@pytest.mark.parametrize(
    ("width", "height"),
    [(3840, 1600), (1366, 768), (768, 1366), (303, 303), (2560, 1080), (1000, 333)],
)
def test_a_blob_near_the_far_corner_finds_back(width, height):
    """Its centre of gravity in the input, counted there, is where it was painted."""
    x, y = width * 0.93, height * 0.93
    spread = width / 100
    columns, lines = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    blob = 255 * np.exp(-((columns - x) ** 2 + (lines - y) ** 2) / (2 * spread**2))
    image = np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2)
    spec = Preprocess(resize="letterbox", pad=0, **ASIS)
    row, placed = Preprocessor(spec, (640, 640))(image)
    light = row[0].astype(np.float64)
    middle = np.arange(640) + 0.5
    gravity = light.sum(0) @ middle / light.sum(), light.sum(1) @ middle / light.sum()
    back = placed.to_source(np.array([[*gravity, *gravity]], np.float32))[0]
    assert np.abs(back[:2] - (x, y)).max() < 0.25


@pytest.mark.parametrize("shape", [(2, 60000), (60000, 2), (3, 30001)])
def test_a_strip_is_cut_before_it_is_enlarged(shape):
    """Enlarged as a whole, 2x60000 would be 19 million pixels wide: 37 GB."""
    image = np.zeros((*shape, 3), np.uint8)
    middle = tuple(side // 2 for side in shape)
    image[: middle[0], : middle[1]] = 255
    row, placed = Preprocessor(Preprocess(resize="center_crop", **ASIS), (640, 640))(image)
    edge = where(row[0] > 127)[2:]
    x, y = placed.to_source(np.array([[*edge, *edge]], np.float32))[0, :2]
    assert max(abs(x - middle[1]), abs(y - middle[0])) < 0.51


@pytest.mark.parametrize("side", [303, 333, 999, 1, 49])
def test_a_square_fills_a_square_input(side):
    """303 * (640 / 303) is 639.9999... in floating point."""
    spec = Preprocess(resize="letterbox", pad=0, **ASIS)
    row, placed = Preprocessor(spec, (640, 640))(np.full((side, side, 3), 255, np.uint8))
    assert (row == 255).all()
    assert (placed.offset_x, placed.offset_y) == (0, 0)


def test_boxes_are_clipped_to_the_source_image():
    _, placed = Preprocessor(Preprocess(resize="letterbox"), (64, 64))(noise(20, 40))
    boxes = np.array([[-50, -50, 500, 500], [0, 0, 64, 64]], np.float32)
    np.testing.assert_allclose(placed.to_source(boxes), [[0, 0, 40, 20]] * 2)
    assert placed.to_source(np.zeros((0, 4), np.float32)).shape == (0, 4)


@given(height=sides, width=sides, size=inputs)
def test_a_centre_crop_fills_the_input_and_keeps_the_middle(height, width, size):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    row, placed = Preprocessor(Preprocess(resize="center_crop", **ASIS), size)(image)
    assert row.shape == (3, *size)
    middle = np.array([[size[1] / 2, size[0] / 2] * 2], np.float32)
    x, y = placed.to_source(middle)[0, :2]
    assert abs(x - width / 2) <= 1 / placed.scale_x + 1e-3
    assert abs(y - height / 2) <= 1 / placed.scale_y + 1e-3
    exact = max(size[1] / width, size[0] / height)
    assert abs(placed.scale_x - exact) <= 0.5 / width + 1e-9
    assert abs(placed.scale_y - exact) <= 0.5 / height + 1e-9


def slow(image, spec, size):
    """The same by cv2 and plain arithmetic, in float64, for sizes that need no rounding."""
    if spec.resize == "stretch":
        placed = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    elif spec.resize == "center_crop":
        scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
        inner = round(image.shape[1] * scale), round(image.shape[0] * scale)
        larger = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        top, left = (inner[1] - size[0]) // 2, (inner[0] - size[1]) // 2
        placed = larger[top : top + size[0], left : left + size[1]]
    else:
        scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
        inner = round(image.shape[1] * scale), round(image.shape[0] * scale)
        top, left = 0, 0
        if spec.anchor == "center":
            top, left = (size[0] - inner[1]) // 2, (size[1] - inner[0]) // 2
        placed = np.full((*size, 3), spec.pad, np.uint8)
        resized = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        placed[top : top + inner[1], left : left + inner[0]] = resized
    if spec.color == "gray":
        placed = cv2.cvtColor(placed, cv2.COLOR_BGR2GRAY)[..., None]
    elif spec.color == "rgb":
        placed = placed[..., ::-1]
    value = (placed.astype(np.float64) * spec.scale - spec.mean) / spec.std
    return value.transpose(2, 0, 1)


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
@pytest.mark.parametrize("anchor", ["center", "top_left"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (1.0, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)),
    ],
)
def test_the_input_equals_a_slow_reference(resize, anchor, color, scale, mean, std):
    channels = 1 if color == "gray" else 3
    spec = Preprocess(
        resize=resize, anchor=anchor, color=color, scale=scale,
        mean=mean[:channels], std=std[:channels],
    )  # fmt: skip
    for image, size in ((noise(30, 60), (40, 40)), (noise(60, 30), (20, 40))):
        row, _ = Preprocessor(spec, size)(image)
        assert (row.dtype, row.shape) == (np.float32, (channels, *size))
        assert row.flags.c_contiguous
        np.testing.assert_allclose(row, slow(image, spec, size), atol=1e-5, rtol=1e-5)


def test_rgb_is_bgr_with_the_planes_turned_round():
    image = noise(8, 8)
    (bgr, _), (rgb, _) = (
        Preprocessor(Preprocess(color=color), (8, 8))(image) for color in ("bgr", "rgb")
    )
    np.testing.assert_array_equal(rgb, bgr[::-1])
    assert not np.array_equal(rgb, bgr)


class TestReadImage:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tiff"])
    def test_a_picture_is_read_as_bgr(self, tmp_path, suffix):
        blue = np.zeros((12, 20, 3), np.uint8)
        blue[..., 0] = 250
        assert cv2.imwrite(str(tmp_path / f"blue.{suffix}"), blue)
        image = read_image(tmp_path / f"blue.{suffix}")
        assert (image.dtype, image.shape) == (np.uint8, (12, 20, 3))
        assert np.abs(image.astype(int) - blue).max() < 12

    def test_a_gray_picture_gets_three_channels(self, tmp_path):
        cv2.imwrite(str(tmp_path / "gray.png"), np.full((5, 6), 90, np.uint8))
        assert (read_image(tmp_path / "gray.png") == np.full((5, 6, 3), 90)).all()

    def test_a_turned_jpeg_is_set_upright(self, tmp_path):
        path = picture(tmp_path / "a.jpg", 16, 40)
        # EXIF with one entry: orientation (0x0112) 6, turned by 90 degrees.
        tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        block = b"Exif\0\0" + tiff
        header = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
        data = path.read_bytes()
        path.write_bytes(data[:2] + header + data[2:])
        assert read_image(path).shape == (40, 16, 3)

    @pytest.mark.parametrize("share", [0.3, 0.7, 0.95, 0.999])
    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    def test_a_cut_picture_is_named(self, tmp_path, share, suffix):
        path = picture(tmp_path / f"cut.{suffix}", 100, 120)
        os.truncate(path, int(path.stat().st_size * share))
        with pytest.raises(DataError, match=rf"cut\.{suffix}") as caught:
            read_image(path)
        assert "on_bad_image: skip" in caught.value.hint

    @pytest.mark.parametrize("trailer", [2, 64, 4096])
    def test_a_jpeg_with_bytes_after_its_picture_is_read(self, tmp_path, trailer):
        path = picture(tmp_path / "phone.jpg")
        whole = read_image(path)
        with path.open("ab") as stream:
            stream.write(bytes(trailer))
        np.testing.assert_array_equal(read_image(path), whole)

    @pytest.mark.parametrize("content", [b"", b"not a picture\n", b"\xff\xd8\xff\xd9"])
    def test_a_file_that_is_no_picture_is_named(self, tmp_path, content):
        (tmp_path / "fake.jpg").write_bytes(content)
        with pytest.raises(DataError, match=r"fake\.jpg"):
            read_image(tmp_path / "fake.jpg")

    @pytest.mark.parametrize("name", ["gone.jpg", "."])
    def test_a_missing_file_is_named(self, tmp_path, name):
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path) in caught.value.message


def plain(image, spec, size):
    """(float32 row, uint8 pixels) as one would write them down: new arrays, whole canvases."""
    height, width = image.shape[:2]
    if spec.resize == "stretch":
        placed = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    elif spec.resize == "center_crop":
        scale = max(size[0] / height, size[1] / width)
        inner = max(size[1], round(width * scale)), max(size[0], round(height * scale))
        larger = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        left, top = (inner[0] - size[1]) // 2, (inner[1] - size[0]) // 2
        placed = larger[top : top + size[0], left : left + size[1]]
    else:
        scale = min(size[0] / height, size[1] / width)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        left = top = 0
        if spec.anchor == "center":
            left, top = (size[1] - inner[0]) // 2, (size[0] - inner[1]) // 2
        placed = np.full((*size, 3), spec.pad, np.uint8)
        placed[top : top + inner[1], left : left + inner[0]] = cv2.resize(
            image, inner, interpolation=cv2.INTER_LINEAR
        )
    pixels = placed
    if spec.color == "gray":
        placed = cv2.cvtColor(placed, cv2.COLOR_BGR2GRAY)[..., None]
    elif spec.color == "rgb":
        placed = placed[..., ::-1]
    value = (placed.astype(np.float64) * spec.scale - spec.mean) / spec.std
    return value.transpose(2, 0, 1).astype(np.float32), pixels


@st.composite
def specs(draw):
    color = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    channels = 1 if color == "gray" else 3
    mean, std = draw(st.sampled_from([(0.0, 1.0), (0.45, 0.225)]))
    return Preprocess(
        color=color,
        resize=draw(st.sampled_from(["letterbox", "stretch", "center_crop"])),
        anchor=draw(st.sampled_from(["center", "top_left"])),
        pad=draw(st.integers(0, 255)),
        mean=tuple(mean + 0.01 * c for c in range(channels)),
        std=tuple(std + 0.01 * c for c in range(channels)),
    )


@given(spec=specs(), height=sides, width=sides, size=inputs, seed=st.integers(0, 9))
def test_every_path_equals_the_plain_one(spec, height, width, size, seed):
    """1e-6 relative: float32 with a factor of scale / std, against float64 in the written order."""
    image = noise(height, width, seed)
    wanted, pixels = plain(image, spec, size)
    row, _ = Preprocessor(spec, size)(image)
    np.testing.assert_allclose(row, wanted, rtol=1e-6, atol=1e-6)
    raw, _ = Preprocessor(spec, size, uint8=True)(image)
    assert (raw.dtype, raw.shape) == (np.uint8, (*size, 3))
    np.testing.assert_array_equal(raw, pixels)


@given(spec=specs(), frames=st.lists(st.tuples(sides, sides), min_size=2, max_size=4), size=inputs)
def test_frames_that_change_size_leave_no_trace_in_each_other(spec, frames, size):
    prepare, out = Preprocessor(spec, size), None
    for height, width in frames:
        image = noise(height, width)
        out = np.full(prepare.shape, np.nan, np.float32) if out is None else out
        row, placed = prepare(image, out)
        assert row is out
        wanted, placed_alone = Preprocessor(spec, size)(image)
        np.testing.assert_array_equal(row, wanted)
        assert placed == placed_alone


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 64), (7, 5), (33, 31)])
def test_one_pixel_and_odd_sizes_are_images_too(resize, size):
    image = np.full((1, 1, 3), 200, np.uint8)
    row, placed = Preprocessor(Preprocess(resize=resize, scale=1.0), size)(image)
    assert row.shape == (3, *size)
    assert 200 in row
    whole = np.array([[-1e4, -1e4, 1e4, 1e4]], np.float32)
    assert placed.to_source(whole).tolist() == [[0, 0, 1, 1]]


def test_threads_may_share_a_preprocessor():
    prepare = Preprocessor(Preprocess(resize="letterbox", anchor="top_left"), (64, 64))
    images = [noise(40 + seed, 90 - seed, seed) for seed in range(8)]
    wanted = [prepare(image)[0] for image in images]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: prepare(images[i % 8])[0], range(400)))
    for position, row in enumerate(got):
        np.testing.assert_array_equal(row, wanted[position % 8])


def test_a_row_of_a_batch_can_be_written_in_place():
    prepare = Preprocessor(Preprocess(resize="letterbox"), (32, 48))
    batch = np.zeros((3, *prepare.shape), prepare.dtype)
    prepare(noise(20, 20), batch[1])
    np.testing.assert_array_equal(batch[1], prepare(noise(20, 20))[0])
    assert not batch[[0, 2]].any()
    with pytest.raises(ValueError, match=r"out must be float32 \(3, 32, 48\)"):
        prepare(noise(20, 20), batch)


def test_a_view_of_a_larger_image_is_an_image():
    image = noise(60, 80)
    prepare = Preprocessor(Preprocess(resize="letterbox"), (32, 32))
    for view in (image[5:40, 7:50], image[::-1], image[:, :, ::-1], image[::2, ::3]):
        np.testing.assert_array_equal(prepare(view)[0], prepare(view.copy())[0])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        [[1, 2, 3]],
        None,
    ],
    ids=["gray", "bgra", "planes first", "float", "empty", "batch", "list", "none"],
)
def test_what_is_no_source_image_is_refused(image):
    with pytest.raises(DataError, match="an image is"):
        Preprocessor(Preprocess(), (8, 8))(image)
