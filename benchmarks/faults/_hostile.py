"""Hostile pictures, videos, recipes and manifests, made from a seed. Knows no command."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.clips import write_clip

#: Pictures whose headers declare what no machine holds: (width, height, bits, colour type).
_DECLARED = [
    (60_000, 60_000, 8, 2), (2**31 - 1, 1, 8, 0), (1, 2**31 - 1, 8, 0), (20_000, 20_000, 1, 0),
    (30_000, 30_000, 16, 6), (0, 10, 8, 2), (10, 0, 8, 2), (2**32 - 1, 2**32 - 1, 16, 6),
]  # fmt: skip


def good_picture(seed: int) -> Image.Image:
    """A red area on white: the oracle engine finds exactly one object."""
    pixels = np.full((96, 128, 3), 255, np.uint8)
    pixels[10 + seed % 20 : 60, 20:80] = (255, 0, 0)
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image file's bytes, by Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, color: int, more: bytes = b"") -> bytes:
    """A PNG whose header declares a size, with hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + pixels + chunk(b"IEND", b"")


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Bytes with one kind of damage: flipped, cut, zeroed, doubled, or moved."""
    out, size = bytearray(data), len(data)
    kind, place = dice.randrange(5), dice.randrange(max(1, size - 8))
    length = dice.randrange(1, max(2, size // 8))
    if kind == 0:
        for _ in range(dice.randrange(1, 40)):
            out[dice.randrange(size)] ^= 1 << dice.randrange(8)
    elif kind == 1:
        del out[place:]
    elif kind == 2:
        out[place : place + length] = bytes(len(out[place : place + length]))
    elif kind == 3:
        out[place:place] = out[place : place + length]
    else:
        part = bytes(out[place : place + length])
        del out[place : place + length]
        out[place // 2 : place // 2] = part
    return bytes(out)


def pictures(folder: Path, dice: random.Random) -> Iterator[Path]:
    """60 hostile pictures."""
    image, made = good_picture(3), dict[str, bytes]()
    for number, (width, height, bits, color) in enumerate(_DECLARED):
        made[f"declared{number}.png"] = png(width, height, bits, color)
    jpeg = saved(image.resize((640, 480)), "JPEG", progressive=True)
    frame = jpeg.index(b"\xff\xc2") + 5
    for number, (high, wide) in enumerate(
        ((65_500, 65_500), (30_000, 30_000), (0, 500), (8192, 8192))
    ):
        forged = jpeg[:frame] + struct.pack(">HH", high, wide) + jpeg[frame + 4 :]
        made[f"forged{number}.jpg"] = forged
    first = jpeg.index(b"\xff\xda")
    second = jpeg.index(b"\xff\xda", first + 1)
    made["scans.jpg"] = jpeg[:second] + jpeg[first:second] * 50_000 + jpeg[second:]
    made["segments.jpg"] = b"\xff\xd8" + b"\xff\xe0\0\x02" * 2_000_000
    made["fill.jpg"] = b"\xff\xd8" + b"\xff" * 20_000_000
    made["largest.jpg"] = saved(
        Image.new("RGB", (8192, 8192), "red"), "JPEG", progressive=True, subsampling=0
    )
    made["largest.tif"] = saved(Image.new("L", (8192, 8192)), "TIFF", compression="tiff_deflate")
    for name, kind in (("a.bmp", "BMP"), ("a.webp", "WEBP"), ("a.tif", "TIFF")):
        forged_sizes = bytearray(saved(image, kind))
        at = {"BMP": 18, "WEBP": 26, "TIFF": 8}[kind]
        forged_sizes[at : at + 8] = b"\xff" * 8
        made[f"sizes_{name}"] = bytes(forged_sizes)
    made["empty.png"], made["text.jpg"], made["nul.png"] = b"", b"no picture at all", bytes(4096)
    made["huge.ppm.png"] = b"P6 99999 99999 255\n" + bytes(100)
    made["avif.png"] = b"\0\0\0\x20ftypavif" + bytes(200)
    made["zip.png"] = b"PK\x03\x04" + bytes(100)
    kinds = [
        ("PNG", ".png"),
        ("JPEG", ".jpg"),
        ("WEBP", ".webp"),
        ("TIFF", ".tif"),
        ("BMP", ".bmp"),
    ]
    number = 0
    while len(made) < 55:
        kind, suffix = kinds[number % len(kinds)]
        made[f"damaged{number}{suffix}"] = damaged(saved(image, kind), dice)
        number += 1
    for name, data in made.items():
        path = folder / name
        path.write_bytes(data)
        yield path
    (folder / "pipe.png").unlink(missing_ok=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    sparse = folder / "sparse.png"
    sparse.write_bytes(png(8, 8, 8, 2))
    os.truncate(sparse, 2**40)
    long = folder / ("n" * 250 + ".png")
    long.write_bytes(b"long name")
    yield from (folder / n for n in ("pipe.png", "zero.png", "gone.png", "sparse.png"))
    yield long


def videos(folder: Path, dice: random.Random) -> Iterator[Path]:
    """70 hostile videos: damaged ones of five containers, and some that declare absurd frames."""
    frames = [np.full((96, 128, 3), 255, np.uint8) for _ in range(25)]
    for number, frame in enumerate(frames):
        frame[10:60, 20 + number : 80 + number] = (0, 0, 255)
    whole = {}
    for suffix, codec in ((".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"),
                          (".avi", "mpeg4"), (".mov", "mpeg4")):  # fmt: skip
        whole[suffix] = write_clip(folder / f"source{suffix}", frames, codec=codec).read_bytes()
        (folder / f"source{suffix}").unlink()
    for number in range(66):
        suffix = list(whole)[number % len(whole)]
        path = folder / f"damaged{number}{suffix}"
        path.write_bytes(damaged(whole[suffix], dice))
        yield path
    for name, data in (
        ("empty.mp4", b""), ("text.avi", b"no video at all"), ("nul.mkv", bytes(100_000)),
        ("boxes.mp4", struct.pack(">I", 8) + b"moov" + (struct.pack(">I", 8) + b"trak") * 10_000),
    ):  # fmt: skip
        (folder / name).write_bytes(data)
        yield folder / name


def recipes(folder: Path) -> Iterator[Path]:
    """15 hostile recipes."""
    body = (
        "name: a\nmodel: {source: 'model:build', input: {size: [32, 32]}}\n"
        "targets: [{target: onnxruntime-cpu}]\n"
    )
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    texts = [
        "", bomb, "name: " + "[" * 100_000, "{" * 50_000, "a: &a [*a]", "a: &a {b: *a}",
        'name: "a\\0b"', "name: " + "9" * 5000, "name: !!python/object/apply:os.system [ls]",
        body + "data: {images: .}\n" * 2, body.replace("[32, 32]", "[1000000000, 1000000000]"),
        body.replace("[32, 32]", "[-1, .nan]"), body + "limits: {build_s: .inf}\n", "#" * 2**22,
    ]  # fmt: skip
    for number, text in enumerate(texts):
        path = folder / f"recipe{number}.yaml"
        path.write_text(text, encoding="utf-8")
        yield path
    os.mkfifo(folder / "pipe.yaml")
    yield folder / "pipe.yaml"


def manifests(engine: Path, folder: Path) -> Iterator[Path]:
    """Engines with 15 hostile manifests."""
    data = json.loads((engine / "manifest.json").read_text(encoding="utf-8"))
    data.pop("checksum", None)

    def with_value(*place: Any) -> str:
        changed = copy.deepcopy(data)
        at = changed
        for part in place[:-2]:
            at = at[part]
        at[place[-2]] = place[-1]
        return json.dumps(changed)

    texts = [
        "", "[" * 100_000, "null", "[]", '{"schema": 1}', '{"schema": ' + "9" * 5000 + "}",
        with_value("inputs", 0, "shape", ["batch", 3, 10**9, 10**9]),
        with_value("inputs", 0, "shape", ["batch", 3, 8192, 8192]),
        with_value("inputs", 0, "shape", []), with_value("outputs", []),
        with_value("files", 0, "path", "model\0.onnx"),
        with_value("files", 0, "path", "../../../etc/passwd"),
        with_value("inputs", 0, "dtype", "os.system"),
        with_value("preprocess", "scale", 10**400),
        with_value("task", "labels", ["x" * 10**6] * 3),
    ]  # fmt: skip
    for number, text in enumerate(texts):
        changed = folder / f"engine{number}"
        shutil.copytree(engine, changed)
        (changed / "manifest.json").write_text(text, encoding="utf-8")
        yield changed
