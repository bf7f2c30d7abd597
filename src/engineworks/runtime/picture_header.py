"""What a picture's first bytes say: its format, its size, the depth of its samples.

Read before anything is decoded, since a picture of 69 bytes can declare 10 GB of pixels. Knows
the formats that are read, and decodes none of them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Segments of a JPEG before its picture begins; a real one has some dozens.
_SEGMENTS = 65_536

#: Chunks of a PNG: a picture of the largest size in pieces of 8 KiB has 25,000.
_CHUNKS = 2**16

#: What else OpenCV may know, by how it begins. Their codecs need many times the memory of the
#: picture, or decode another size than the file declares first.
_OTHERS = (
    (rb"....ftyp(avi[fs]|mif1|miaf)", "AVIF"),
    (rb"....ftyp(hei[cfmsx]|hev[cmsx]|msf1)", "HEIC"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (rb"#\?R(ADIANC|GB)E", "Radiance HDR"),
    (rb"P[Ff]\s", "PFM"),
    (rb"P7\n", "PAM"),
    (rb"\x59\xa6\x6a\x95", "Sun raster"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
)

#: JPEG: markers without a segment (TEM, RST0..RST7), and those that begin a frame (SOF0..SOF15
#: without DHT, JPG and DAC); ITU-T T.81, table B.1.
_ALONE = frozenset([0x01, *range(0xD0, 0xD8)])
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKER = re.compile(rb"\xff([\x01-\xfe])")

#: PNM: magic, width, height, and the value of white but for bitmaps; comments run to a line's end.
_PNM = re.compile(rb"P([1-6])" + rb"(?:\s+|\s*#[^\n]{0,1000}\n)+(\d{1,9})" * 2)
_PNM_WHITE = re.compile(rb"(?:\s+|\s*#[^\n]{0,1000}\n)+(\d{1,9})")

#: TIFF 6.0: ImageWidth, ImageLength, BitsPerSample, TileWidth, TileLength, SampleFormat.
_WIDTH, _HEIGHT, _BITS, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLES = 256, 257, 258, 322, 323, 339
#: Its types of whole numbers: bytes of a value, and how struct calls it.
_TIFF_TYPES = {1: (1, "B"), 3: (2, "H"), 4: (4, "I"), 16: (8, "Q")}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture says of itself. Sizes in pixels, before it is turned by its EXIF."""

    format: str
    width: int
    height: int
    bits: int = 8
    """Bits of a sample as stored."""
    white: int = 0
    """The sample that stands for white where the file says so; 0: all of its bits set."""
    whole: bool = True
    """Samples are whole numbers from 0; else floating-point or signed."""
    scans: int = 1
    """How often a decoder goes over the picture."""
    cut: bool = False
    """It ends before its picture does, by its own word; known of JPEG (ITU-T T.81, annex B) and PNG
    (a chunk that is longer than the file)."""


def read_header(data: bytes) -> Header | None:
    """The header of a picture file's bytes; None for none of these formats, or a broken one."""
    for signature, parse in _FORMATS:
        if signature.match(data):
            try:
                return parse(data)
            except (struct.error, IndexError, ValueError, KeyError):
                return None
    return None


def other_format(data: bytes) -> str:
    """The name of a picture format that is not read; empty for what is none."""
    return next((name for start, name in _OTHERS if re.match(start, data, re.DOTALL)), "")


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    at = 8
    for _ in range(_CHUNKS):
        if at + 8 > len(data) or data[at + 4 : at + 8] == b"IEND":
            break
        at += 12 + struct.unpack_from(">I", data, at)[0]
    else:
        return None
    # A decoder makes room for what a chunk says it holds: 285 bytes may ask for 4 GiB.
    cut = at - 4 > len(data)
    return Header(format="PNG", width=width, height=height, bits=bits, cut=cut)


def _jpeg(data: bytes) -> Header | None:
    at, frame = 2, (0, 0, 0)
    for _ in range(_SEGMENTS):
        # What lies between segments is skipped, as libjpeg does.
        segment = _MARKER.search(data, at)
        if segment is None:
            return None
        marker, at = segment[1][0], segment.end()
        if marker == 0xDA:
            # In a scan 0xFF is stuffed: what looks like a marker is one. Before the first scan an
            # embedded thumbnail has scans and an end of its own.
            bits, height, width = frame
            return Header(
                format="JPEG", width=width, height=height, bits=bits,
                scans=1 + _scans(data, at), cut=data.rfind(b"\xff\xd9", at) < 0,
            )  # fmt: skip
        if marker in _FRAMES:
            frame = struct.unpack_from(">BHH", data, at + 2)
        if marker not in _ALONE:
            at += struct.unpack_from(">H", data, at)[0]
    return None


def _scans(data: bytes, at: int) -> int:
    """How many more scans begin; `bytes.count` takes five times as long."""
    samples = np.frombuffer(data, np.uint8)[at:]
    marks = np.flatnonzero(samples[:-1] == 0xFF)
    return int(np.count_nonzero(samples[marks + 1] == 0xDA))


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header(format="BMP", width=abs(width), height=abs(height))


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header(format="GIF", width=width, height=height)


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width, height = (
            1 + int.from_bytes(data[place : place + 3], "little") for place in (24, 27)
        )
    else:
        return None
    return Header(format="WebP", width=width, height=height)


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, first)
    entry, begin, inside = (20, first + 8, 8) if big else (12, first + 2, 4)
    tags: dict[int, int] = {}
    for number in range(min(count, 4096)):
        place = begin + number * entry
        tag, kind = struct.unpack_from(order + "HH", data, place)
        (many,) = struct.unpack_from(order + ("Q" if big else "I"), data, place + 4)
        if tag not in (_WIDTH, _HEIGHT, _BITS, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLES):
            continue
        size, code = _TIFF_TYPES[kind]
        place += 4 + inside
        if many * size > inside:
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
        # Of one value for each channel the first: those that differ, no codec here reads.
        tags.setdefault(tag, struct.unpack_from(order + code, data, place)[0])
    # A tile is held whole, however little of it the picture uses.
    tiled = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0) > tags[_WIDTH] * tags[_HEIGHT]
    return Header(
        format="TIFF",
        width=tags[_TILE_WIDTH] if tiled else tags[_WIDTH],
        height=tags[_TILE_HEIGHT] if tiled else tags[_HEIGHT],
        bits=tags.get(_BITS, 1),
        whole=tags.get(_SAMPLES, 1) in (1, 4),
    )


def _pnm(data: bytes) -> Header | None:
    header = _PNM.match(data)
    if header is None:
        return None
    width, height = int(header[2]), int(header[3])
    if header[1] in b"14":
        return Header(format="PNM", width=width, height=height, bits=1)
    white = _PNM_WHITE.match(data, header.end())
    if white is None or not 0 < int(white[1]) < 65536:
        return None
    bits = 8 if int(white[1]) < 256 else 16
    return Header(format="PNM", width=width, height=height, bits=bits, white=int(white[1]))


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header | None]], ...] = tuple(
    (re.compile(signature, re.DOTALL), parse)
    for signature, parse in (
        (rb"\x89PNG\r\n\x1a\n", _png),
        (rb"\xff\xd8\xff", _jpeg),
        (rb"BM", _bmp),
        (rb"GIF8[79]a", _gif),
        (rb"RIFF....WEBP", _webp),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", _tiff),
        (rb"P[1-6][\s#]", _pnm),
    )
)
