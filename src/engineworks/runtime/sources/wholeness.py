"""Whether a file is as long as its own header says, which tells a video that was cut.

Reads a few bytes of the container, no frame. What makes no claim about its length (MPEG program
streams, bare H.264) is never said to be cut. Knows no decoder.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

#: How much of a file's begin and end is looked at.
_NEAR = 65_536

_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

#: Boxes of an MP4 that hold pictures, or what is needed to find them.
_NEEDED = (b"mdat", b"moov", b"moof")


def cut(path: Path) -> str:
    """How a file is cut, in words; empty when it is whole or makes no claim.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_NEAR)
        told = _told_size(file, head, size)
        if told is not None and told > size:
            return f"the file is cut: its header tells of {told} bytes, {size} are there"
        return _open_end(file, head, size)


def _told_size(file: BinaryIO, head: bytes, size: int) -> int | None:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
        return _boxes(file, size)
    if head[:4] == b"RIFF":
        return _riff(file, size)
    if head[:4] == _MATROSKA:
        return _matroska(head)
    if head[:3] == b"FLV":
        return _after(head, b"\x00\x08filesize\x00", ">d")
    if head[:16] == _ASF:
        return _after(head, _ASF_FILE, "<Q", skip=24)
    return None


def _boxes(file: BinaryIO, size: int) -> int | None:
    """End of the last box. Source: ISO/IEC 14496-12, 4.2."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8:
            return None  # up to the end of the file, or nothing that is known
        place += length
        if place > size:
            return place if kind in _NEEDED else None
    return None


def _riff(file: BinaryIO, size: int) -> int | None:
    """End of the last chunk of an AVI; long ones have several."""
    place = 0
    while place + 12 <= size:
        file.seek(place)
        kind, length, _ = struct.unpack("<4sI4s", file.read(12))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            return None
        place += 8 + length + length % 2
    return place - 1 if place == size + 1 else place  # the last padding may be missing


def _matroska(head: bytes) -> int | None:
    """End of the segment. Source: RFC 8794, 4 and RFC 9559, 5."""
    place = 4
    for expected in (b"", _SEGMENT):
        place += len(expected)
        if expected and head[place - 4 : place] != expected:
            return None
        if place >= len(head) or not head[place]:
            return None
        width = 9 - head[place].bit_length()
        value = int.from_bytes(head[place : place + width], "big") & ((1 << 7 * width) - 1)
        if value == (1 << 7 * width) - 1:
            return None  # not known when it was written
        place += width + value
    return place


def _after(head: bytes, key: bytes, form: str, skip: int = 0) -> int | None:
    start = head.find(key)
    place = start + len(key) + skip
    if start < 0 or place + struct.calcsize(form) > len(head):
        return None
    return int(struct.unpack_from(form, head, place)[0]) or None


def _open_end(file: BinaryIO, head: bytes, size: int) -> str:
    """What makes no claim about its length, but about how it ends."""
    for first, length in ((0, 188), (4, 192)):  # MPEG-TS, and as cameras write it
        if head[first::length][:8] == b"\x47" * 8 and size % length:
            return "the file is cut: it ends inside a packet"
    file.seek(max(0, size - _NEAR))
    tail = file.read()
    if head[:4] == b"OggS":
        last = tail.rfind(b"OggS")
        if last < 0 or last + 5 >= len(tail) or not tail[last + 5] & 4:
            return "the file is cut: it has no last page"
    if head[:4] == b"GIF8" and b"\x3b" not in tail[-16:]:
        return "the file is cut: it has no end"
    return ""
