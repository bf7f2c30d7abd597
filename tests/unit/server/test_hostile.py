"""What careless and hostile clients send: a clear refusal, no harm to others, no growth."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import re
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import servers

PHOTO = servers.picture()
RED = [("red", [8.0, 16.0, 40.0, 48.0])]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    engines = (servers.oracle_engine(folder / "oracle"), servers.total_engine(folder / "total"))
    with servers.serving(
        folder, *map(str, engines), "--max-body", "1048576", "--max-pixels", "1000000",
        "--head-s", "1", "--body-s", "1", "--connections", "40",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(server):
    """Afterwards the server must still answer right, and be the same process."""
    workers = server.workers()
    with server.client() as client:
        yield client
        assert boxes(client.post("/detect", content=PHOTO)) == RED
    assert server.workers() == workers
    assert "Traceback" not in server.said()


def boxes(answer):
    assert answer.status_code == 200, answer.text
    return [(d["label"], d["xyxy"]) for d in answer.json()["detections"]]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def red_box(mode="RGB"):
    array = np.zeros((64, 64, 3), np.uint8)
    array[16:48, 8:40, 0] = 255
    return Image.fromarray(array).convert(mode)


def png_of_size(width, height):
    """A PNG whose header, with a right checksum, promises this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg_of_size(width, height):
    data = bytearray(encoded(red_box(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


JPEG = encoded(red_box(), "JPEG", quality=95)

BODIES = {
    "empty": (b"", 400),
    "one byte": (b"\xff", 415),
    "text": (b"hello", 415),
    "html": (b"<!doctype html><img src=x>", 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
    "pdf": (b"%PDF-1.7\n", 415),
    "zip": (b"PK\3\4" + b"\0" * 100, 415),
    "pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0", 415),
    "zeros": (b"\0" * 5000, 415),
    "a PNG's signature alone": (b"\x89PNG\r\n\x1a\n", 415),
    "half a PNG": (PHOTO[: len(PHOTO) // 2], 400),
    "a JPEG without its end": (JPEG[:-60], 400),
    "a JPEG's first bytes": (JPEG[:20], 415),
    "a PNG of 100000x100000": (png_of_size(100000, 100000), 413),
    "a PNG of 0x10": (png_of_size(0, 10), (400, 415)),
    "a PNG of 2^31-1": (png_of_size(2**31 - 1, 2**31 - 1), 413),
    "a JPEG of 65500x65500": (jpeg_of_size(65500, 65500), 413),
    "a PNG with less than it promises": (png_of_size(900, 900), 400),
    "a PNG with a chunk of 4 GiB": (PHOTO[:-12] + b"\xf0\0\0\0tEXt" + PHOTO[-12:], 400),
    "a bomb of zeros": (encoded(Image.new("RGB", (2000, 2000)), "PNG"), 413),
    "an open brace": (b"{", 400),
    "JSON without image": (b"{}", 400),
    "an image that is a number": (b'{"image": 7}', 400),
    "no base64": (b'{"image": "!!!"}', 400),
    "base64 of text": (b'{"image": "aGVsbG8="}', 415),
    "a blank for a plus": (b'{"image": "iVBO Rw0K"}', 400),
    "an unknown option": (b'{"image": "aGVsbG8=", "nms": 1}', 415),
    "deep JSON": (b"[" * 100_000, 415),
    "deep JSON in an object": (b'{"image":' + b"[" * 100_000, 400),
    "an endless number": (b'{"image": ' + b"9" * 100_000 + b"}", 400),
    "not a number": (b'{"image": NaN}', 400),
    "half of a surrogate": (b'{"image": "\\ud800"}', 400),
    "no UTF-8": (b'{"image": "\xff\xfe"}', 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_picture_is_refused_with_a_reason(client, name):
    body, wanted = BODIES[name]
    answer = client.post("/detect", content=body)
    assert answer.status_code in (wanted if isinstance(wanted, tuple) else (wanted,)), answer.text
    assert answer.json()["error"]
    assert answer.json()["hint"]
    assert answer.elapsed.total_seconds() < 2


def test_pictures_of_every_kind_mean_the_same(client):
    sixteen = np.zeros((64, 64), np.uint16)
    grey = Image.fromarray(np.zeros((64, 64), np.uint8))
    for data in (
        encoded(red_box(), "GIF"),
        encoded(red_box("P"), "PNG"),
        encoded(red_box("RGBA"), "PNG"),
        encoded(red_box(), "TIFF", compression="tiff_lzw"),
        encoded(red_box(), "WEBP", lossless=True),
        JPEG,
        encoded(red_box(), "JPEG", progressive=True, quality=95),
    ):
        ((label, xyxy),) = boxes(client.post("/detect", content=data))
        assert label == "red"
        np.testing.assert_allclose(xyxy, RED[0][1], atol=1.5)
    for nothing in (encoded(grey, "PNG"), encoded(Image.fromarray(sixteen), "PNG")):
        assert boxes(client.post("/detect", content=nothing)) == []


def test_a_turned_photo_is_answered_as_it_is_shown(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    answer = client.post("/detect", content=encoded(red_box(), "JPEG", exif=exif, quality=95))
    ((_, xyxy),) = boxes(answer)
    np.testing.assert_allclose(xyxy, [16, 8, 48, 40], atol=1.5)


def test_sixteen_bits_mean_what_eight_mean(client):
    """The right boxes, not a clipped picture."""
    import cv2

    image = np.zeros((64, 64, 3), np.uint16)
    image[16:48, 8:40, 2] = 65535
    _, data = cv2.imencode(".png", image)
    assert boxes(client.post("/detect", content=data.tobytes())) == RED


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, b"x"),
        ({"content-type": "multipart/form-data; boundary=b"}, b""),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\n"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\n\r\n\r\n--b--"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"--b\r\n" * 500 + b"--b--"),
        ({"content-type": "multipart/form-data; boundary=" + "b" * 500}, b"--b--"),
        ({"content-type": "application/json"}, b"\x89PNG"),
        ({"content-type": "application/json"}, b"[1]"),
    ],
)
def test_broken_forms_and_json_are_refused(client, headers, body):
    assert client.post("/detect", content=body, headers=headers).status_code == 400


def test_a_form_of_two_files_is_refused(client):
    files = [("file", ("a.png", PHOTO)), ("file", ("b.png", PHOTO))]
    answer = client.post("/detect", files=files)
    assert answer.status_code == 400
    assert "2 files" in answer.json()["error"]


@pytest.mark.parametrize("packing", ["gzip", "br", "zstd", "deflate", "gzip, gzip"])
def test_packed_bodies_are_not_unpacked(client, packing):
    bomb = gzip.compress(b"\0" * 2**20)
    answer = client.post("/detect", content=bomb, headers={"content-encoding": packing})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "query",
    ["confidence=nan", "confidence=inf", "confidence=1", "confidence=-1", "confidence=x", "iou=0",
     "iou=1e309", "timeout_ms=0", "timeout_ms=-5", "timeout_ms=1e99", "priority=now", "top=0",
     "top=1e9", "model=" + "x" * 200],
)  # fmt: skip
def test_options_out_of_range_are_refused(client, query):
    answer = client.post(f"/detect?{query}", content=PHOTO)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    ["/detect/../admin", "/%2e%2e/%2e%2e/etc/passwd", "/v2/models/..%2f..%2fetc/infer",
     "/v2/models/a%00b", "/v2/models/" + "x" * 5000, "/detect%00", "/\\..\\..", "/%ff%fe"],
)  # fmt: skip
def test_strange_paths_lead_nowhere(client, path):
    assert client.get(path).status_code in (400, 404, 405)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_other_methods_are_refused(client, method):
    assert client.request(method, "/detect").status_code == 405


def address(server):
    host, port = re.match(r"http://([\d.]+):(\d+)", server.url).groups()
    return host, int(port)


def raw(server, *parts, pause_s=0.0, wait_s=60.0):
    """Send bytes as they are; what came back until the server closed or was silent."""
    with socket.create_connection(address(server), timeout=wait_s) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            while data := connection.recv(65536):
                received += data
        except (TimeoutError, ConnectionError):
            pass
        return received


HEAD = b"POST /detect HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    ("request_", "codes"),
    [
        (b"\x16\x03\x01\x02\x00\x01", (400,)),  # TLS where none is
        (b"GET / HTTP/9.9\r\n\r\n", (400,)),
        (b"GARBAGE\r\n\r\n", (400,)),
        (b"GET  /  HTTP/1.1\r\n\r\n", (400, 421)),
        (HEAD + b"Content-Length: -5\r\n\r\n", (400,)),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", (400,)),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", (400, 413)),
        (HEAD + b"Content-Length: 999999999999\r\n\r\n", (413,)),
        (HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", (400, 408)),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx", (400, 408, 413)),
        (HEAD + b"bad header\r\n\r\n", (400,)),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: elsewhere\r\n\r\n", (400, 421)),
        (b"GET /health/live HTTP/1.1\r\n\r\n", (400, 421)),  # no Host
        (b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 40000 + b"\r\n\r\n",
         (431,)),
        (b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 10000, (431,)),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n", (400, 431)),
    ],
)  # fmt: skip
def test_malformed_http_is_refused(client, server, request_, codes):
    received = raw(server, request_)
    found = re.match(rb"HTTP/1.1 (\d+)", received)
    assert found, received
    assert int(found[1]) in codes


def test_who_sends_too_slowly_is_told_and_let_go(client, server):
    assert b" 408 " in raw(server, b"POST /detect HT")
    assert b" 408 " in raw(server, b"")  # says nothing at all
    late = raw(server, HEAD + b"Content-Length: 500\r\n\r\n", b"slow")
    assert b" 408 " in late
    drop = raw(server, *[b"G", b"E", b"T", b" ", b"/"], pause_s=0.15)
    assert b" 408 " in drop


def test_a_kept_connection_has_the_same_limit_for_its_next_head(client, server):
    first = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    received = raw(server, first, b"GET /health", pause_s=0.2)
    assert received.count(b" 200 OK") == 1
    assert b" 408 " in received


def test_chunks_are_counted_as_they_come(client, server):
    chunk = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
    received = raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40)
    assert b" 413 " in received
    tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in PHOTO) + b"0\r\n\r\n"
    received = raw(server, HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", tiny)
    assert b" 200 " in received
    assert b'"red"' in received


def test_many_small_requests_in_one_go_are_each_answered(client, server):
    one = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert raw(server, one * 500 + last).count(b"HTTP/1.1 200 OK") == 501


def test_a_flood_of_connections_turns_the_last_away_and_ends(client, server):
    flood = [socket.create_connection(address(server)) for _ in range(120)]
    try:
        turned_away = 0
        for connection in flood:  # the others are told 408, for they say nothing
            connection.settimeout(60)
            turned_away += connection.recv(100).startswith(b"HTTP/1.1 503")
        assert turned_away >= 60
    finally:
        for connection in flood:
            connection.close()
    servers.until(lambda: client.get("/health/live").status_code == 200)


def test_large_bodies_that_never_end_do_not_fill_the_memory(client, server):
    """Each is below its own limit; together they are 27 MB, and 16 may be held."""
    head = HEAD + b"Content-Length: 1000000\r\n\r\n"
    before = resident(server)
    flood = [socket.create_connection(address(server), timeout=60) for _ in range(30)]
    try:
        largest = 0
        for connection in flood:
            with contextlib.suppress(OSError):
                connection.sendall(head + b"\xff" * 900_000)
            largest = max(largest, resident(server))
        answers = b""
        for connection in flood:
            with contextlib.suppress(OSError):
                answers += connection.recv(12)
            largest = max(largest, resident(server))
        assert largest - before < 30 * 2**20
        # How many, depends on how many have been given up meanwhile.
        assert answers.count(b" 503") >= 1
        assert answers.count(b" 408") >= 8
    finally:
        for connection in flood:
            connection.close()


def resident(server):
    """Bytes of memory of the worker."""
    (worker,) = server.workers()
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    return pages * 4096


def test_thousands_of_hostile_requests_make_it_no_larger(client, server):
    """Bits flipped in every kind of body, with a good request after every 20."""
    rng = random.Random(0)
    bodies = [PHOTO, JPEG, b'{"inputs": [{"name": "x"}]}', *(body for body, _ in BODIES.values())]

    def round_(count):
        for number in range(count):
            body = bytearray(rng.choice(bodies))
            for _ in range(rng.randint(0, 8) if body else 0):
                body[rng.randrange(min(len(body), 400))] = rng.randrange(256)
            path = rng.choice(["/detect", "/classify", "/v2/models/total/infer", "/detect?iou=2"])
            kind = rng.choice(["image/png", "application/json", "multipart/form-data; boundary=b"])
            answer = client.post(path, content=bytes(body), headers={"content-type": kind})
            assert answer.status_code < 500 or answer.status_code == 503, (path, bytes(body)[:99])
            if number % 20 == 19:
                assert boxes(client.post("/detect", content=PHOTO)) == RED

    round_(600)
    before = resident(server)
    round_(1400)
    assert resident(server) - before < 20 * 2**20
