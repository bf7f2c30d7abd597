"""A picture is read as it is, or refused by its header before it costs memory or time."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engineworks.errors import DataError
from engineworks.runtime import read_image
from engineworks.runtime.picture_header import read_header
from engineworks.runtime.pictures import DepthCheck, decode_picture, read_picture
from tests import builders

HOSTILE = builders.ROOT / "tests" / "cases" / "hostile"


def png(width, height, bits=8, color=2, rows=b""):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(width=37, height=23):
    pixels = np.random.default_rng(3).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8
    )
    return Image.fromarray(cv2.resize(pixels, (width, height)))


FILES = {
    "jpg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True, "quality": 95, "subsampling": 0}),
    "exif": ("JPEG", {"exif": b"Exif\0\0" + b"MM\0*\0\0\0\x08" + b"\0" * 6 + b"x" * 30_000}),
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "animated": ("WEBP", {"save_all": True, "append_images": [photo()], "lossless": True}),
    "tif": ("TIFF", {}),
    "deflated": ("TIFF", {"compression": "tiff_deflate"}),
    "big": ("TIFF", {"big_tiff": True}),
    "ppm": ("PPM", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_the_size_that_the_picture_has(name):
    kind, options = FILES[name]
    data = saved(photo(), kind, **options)
    header = read_header(data)
    assert (header.width, header.height, header.bits, header.scans > 1) == (
        37, 23, 8, name == "progressive",
    )  # fmt: skip
    image = decode_picture(data, name).image
    if kind == "GIF":
        return  # of 256 colours
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., ::-1]
    assert np.abs(image.astype(int) - expected).max() <= (2 if kind in ("JPEG", "WEBP") else 0)


def test_every_header_of_pillow_is_understood_when_it_is_cut_anywhere():
    for kind, options in FILES.values():
        data = saved(photo(), kind, **options)
        for end in range(0, min(len(data), 400), 3):
            header = read_header(data[:end])
            assert header is None or (header.width, header.height) == (37, 23)


@pytest.fixture
def never_decoded(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bomb_decl_60000.png", "60000x60000"),
        ("bomb_real_20000_1bit.png", "20000x20000"),
        ("forged_jpg_30000.jpg", "30000x30000"),
    ],
)
def test_an_absurd_header_is_refused_by_name_at_once(name, words, never_decoded):
    with pytest.raises(DataError, match=name) as caught:
        read_image(HOSTILE / name)
    assert words in caught.value.message
    assert "--max-pixels" in caught.value.hint


def test_no_picture_of_the_largest_size_costs_more_than_a_gibibyte():
    """Progressive without subsampling is what costs most: 9 bytes a pixel, as measured here."""
    made = (
        "import io, resource, sys\n"
        "from PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.new('RGB', (8192, 8192), 'red').save(\n"
        "    file, 'JPEG', progressive=True, subsampling=0)\n"
        "sys.stdout.buffer.write(file.getvalue())\n"
    )
    read = (
        "import sys\n"
        "from engineworks.runtime.pictures import decode_picture\n"
        "image = decode_picture(sys.stdin.buffer.read(), 'large').image\n"
        "assert image[8000, 8000].tolist()[::2] == [0, 254], image[8000, 8000]\n"
        # Not `getrusage`: its figure starts at the size of the parent that forked this process.
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(peak.split()[1]) // 1024)\n"
    )
    data = subprocess.run([sys.executable, "-c", made], capture_output=True, check=True).stdout
    told = subprocess.run([sys.executable, "-c", read], input=data, capture_output=True, check=True)
    assert int(told.stdout) < 1024


def test_the_limit_can_be_raised_and_lowered():
    data = png(100, 100, rows=(b"\0" + b"\x07" * 300) * 100)
    assert (decode_picture(data, "a.png", max_pixels=10_000).image == 7).all()
    with pytest.raises(DataError, match="more than the 9,999 that are read"):
        decode_picture(data, "a.png", max_pixels=9_999)


def test_a_tile_larger_than_its_picture_counts():
    # Width and height 16, one tile of 65536 x 65536: all of it would be held.
    tags = [(256, 16), (257, 16), (258, 8), (322, 65_536), (323, 65_536)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(DataError, match="65536x65536"):
        decode_picture(data, "tile.tif")


def test_a_jpeg_of_thousands_of_scans_is_refused(never_decoded):
    data = saved(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 1)
    bomb = data[:second] + data[first:second] * 2000 + data[second:]
    with pytest.raises(DataError, match="scans"):
        decode_picture(bomb, "scans.jpg")


def test_a_jpeg_of_millions_of_segments_is_refused_soon():
    begun = time.thread_time()  # of the CPU: 0.15 s where each run of bytes is read at once
    for filler in (b"\xff\xe0\0\x02", b"\xff", b"\0"):
        with pytest.raises(DataError):
            decode_picture(b"\xff\xd8\xff\xe0\0\x02" + filler * 10_000_000, "filled.jpg")
    assert time.thread_time() - begun < 5


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"\0\0\0\x20ftypheic", "HEIC"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"#?RADIANCE\n", "Radiance HDR"),
    ],
)
def test_another_format_is_named(start, name):
    with pytest.raises(DataError, match=f"{name} is not read") as caught:
        decode_picture(start + bytes(100), "photo")
    assert "convert" in caught.value.hint


class TestFilesThatAreNone:
    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(DataError, match="is a pipe"):
            read_image(tmp_path / "pipe.png")

    def test_a_device_without_an_end_is_refused(self, tmp_path):
        (tmp_path / "zero.png").symlink_to("/dev/zero")
        with pytest.raises(DataError, match="is a device"):
            read_image(tmp_path / "zero.png")

    def test_a_folder_and_a_zero_byte_in_the_name(self, tmp_path):
        with pytest.raises(DataError, match="is a folder"):
            read_image(tmp_path)
        with pytest.raises(DataError, match="zero byte"):
            read_image(tmp_path / "a\0b.png")

    def test_a_name_that_is_too_long(self, tmp_path):
        with pytest.raises(DataError, match="too long"):
            read_image(tmp_path / ("n" * 300 + ".png"))

    def test_a_huge_file_is_refused_before_it_is_read(self, tmp_path):
        path = tmp_path / "huge.png"
        path.write_bytes(png(8, 8))
        os.truncate(path, 2**40)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DataError, match="1,099,511,627,776 bytes"):
            read_image(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


RAMP = np.array([[0, 255, 256, 4095, 4096, 32_767, 32_768, 65_535]], np.uint16)


class TestDepth:
    """Whatever the depth, black is 0 and white is 255."""

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_of_16_bits_the_upper_8_are_kept(self, tmp_path, suffix, channels):
        suffix = ".ppm" if suffix == ".pgm" and channels == 3 else suffix
        ramp = RAMP if channels == 1 else np.repeat(RAMP[..., None], 3, 2)
        assert cv2.imwrite(str(tmp_path / f"a{suffix}"), ramp)
        found = read_picture(tmp_path / f"a{suffix}")
        assert found.bits == 16
        assert found.image.dtype == np.uint8
        assert found.image[0, :, 1].tolist() == (RAMP[0] // 256).tolist()

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_few_bits_fill_the_range(self, bits):
        data = png(8 // bits, 1, bits=bits, color=0, rows=b"\0\x1b")
        values = [0x1B >> (8 - bits * (i + 1)) & (2**bits - 1) for i in range(8 // bits)]
        expected = [value * 255 // (2**bits - 1) for value in values]
        assert decode_picture(data, "a.png").image[0, :, 0].tolist() == expected

    @pytest.mark.parametrize("white", [1, 15, 100, 200, 255, 1023, 4095, 65_535])
    def test_a_pnm_says_itself_what_white_is(self, white):
        samples = [0, white // 3, white]
        packed = struct.pack(">3H" if white > 255 else ">3B", *samples)
        data = b"P5\n# made by hand\n3 1\n%d\n" % white + packed
        expected = [0, 255 * (white // 3) / white, 255]
        image = decode_picture(data, "a.pgm").image
        assert np.abs(image[0, :, 0] - np.array(expected)).max() < 1

    @pytest.mark.parametrize("dtype", [np.float32, np.int16])
    def test_samples_without_a_white_are_refused(self, tmp_path, dtype):
        assert cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((4, 4), dtype))
        with pytest.raises(DataError, match=r"a\.tif: its samples are floating-point or signed"):
            read_image(tmp_path / "a.tif")

    def test_twelve_bits_in_sixteen_are_said_of_a_set(self, tmp_path):
        dark, bright, usual = (tmp_path / name for name in ("dark.png", "bright.png", "usual.png"))
        cv2.imwrite(str(dark), np.full((4, 4), 4095, np.uint16))
        cv2.imwrite(str(bright), np.full((4, 4), 4096, np.uint16))
        cv2.imwrite(str(usual), np.zeros((4, 4), np.uint8))
        assert "all 1 16-bit" in told(dark, usual)
        assert told(usual) == ""
        assert told(dark, bright, usual) == ""


def told(*paths: Path) -> str:
    check = DepthCheck()
    for path in paths:
        check.see(read_picture(path))
    return check.warning


def test_a_chunk_of_a_png_that_is_longer_than_its_file_is_given_no_room():
    """OpenCV makes room for what the chunk says, 4 GiB, before it looks for it."""
    import subprocess
    import sys

    code = """
import resource, sys
import cv2, numpy as np
from engineworks.errors import DataError
from engineworks.runtime.pictures import decode_picture
_, data = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
data = data.tobytes()
decode_picture(data, "whole")
decode_picture(data + b"something behind", "whole, and more")
bomb = data[:-12] + b"\\xf0\\0\\0\\0tEXt" + data[-12:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for broken in (bomb, data[:-30]):
    try:
        decode_picture(broken, "broken")
    except DataError as error:
        assert "the PNG ends before its picture does" in error.message, error
    else:
        sys.exit("it was read")
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
"""
    subprocess.run([sys.executable, "-c", code], check=True)


TIGHT = """
import resource, sys
from pathlib import Path
from engineworks.runtime.pictures import read_picture
import cv2
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, resource.RLIM_INFINITY))
try:
    read_picture(Path(sys.argv[1]))
except MemoryError:
    print("memory")
print(read_picture(Path(sys.argv[2])).image.shape)
"""


def test_memory_that_ends_is_no_damaged_picture(tmp_path):
    Image.new("L", (7000, 7000)).save(tmp_path / "large.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "small.png")
    done = subprocess.run(
        [sys.executable, "-c", TIGHT, tmp_path / "large.png", tmp_path / "small.png"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["memory", "(30, 40, 3)"], done.stderr
