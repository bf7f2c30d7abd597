"""`POST /video`: each frame's box where it was drawn, limits, hostile files, clients that leave."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from tests import browser, servers
from tests.servers.video import moving_box


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    engines = (servers.oracle_engine(folder / "oracle"), servers.total_engine(folder / "total"))
    with servers.serving(
        folder, *map(str, engines), "--max-video", "300000", "--max-video-s", "20",
        "--max-pixels", "1000000", "--threads", "1",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(server):
    """Afterwards nothing is left of a video, and the server is the same process."""
    workers = server.workers()
    with server.client() as client:
        yield client
        until = time.monotonic() + 20
        while list(Path(tempfile.gettempdir()).glob("engineworks-video-*")):
            assert time.monotonic() < until, "a video is left behind"
            time.sleep(0.05)
    assert server.workers() == workers
    assert "Traceback" not in server.said()


def asked(client, data, **query):
    answer = client.post("/video", params={"model": "oracle", **query}, content=data)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_every_frame_has_its_own_box(client):
    about, *frames, end = asked(client, moving_box(12, fps=10), per_s=60)
    assert about["video"]["duration_s"] == pytest.approx(1.2, abs=0.05)
    assert end == {"end": {"frames": 12}}
    for number, frame in enumerate(frames):
        assert frame["frame"] == number
        assert frame["time_s"] == pytest.approx(number / 10, abs=2e-3)
        assert (frame["height"], frame["width"]) == (64, 64)
        (box,) = frame["detections"]
        assert (box["label"], box["xyxy"]) == ("red", [2.0 * number, 16, 2.0 * number + 24, 48])
        assert frame["model"]["name"] == "oracle"


def test_frames_are_thinned_by_time(client):
    frames = asked(client, moving_box(12, fps=10), per_s=2.5)[1:-1]
    assert [frame["frame"] for frame in frames] == [0, 4, 8]
    assert len(asked(client, moving_box(12, fps=10), per_s=2.5, confidence=0.95)) == 5


@pytest.mark.parametrize(
    ("query", "content", "status", "words"),
    [
        ({}, b"no video at all", 415, "cannot be opened as a video"),
        ({}, b"", 400, "no bytes"),
        ({}, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "cannot be opened"),
        ({}, b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "cannot be opened"),
        ({"per_s": 0}, b"x", 400, "per_s"),
        ({"model": "total"}, b"x", 400, "tensors only"),
        ({"model": "absent"}, b"x", 404, "absent"),
        ({"top": 3}, b"x", 400, "top"),
    ],
)
def test_what_is_no_video_or_no_request_is_refused(client, query, content, status, words):
    answer = client.post("/video", params={"model": "oracle", **query}, content=content)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert answer.json()["hint"]


def test_too_many_bytes_seconds_and_pixels_are_413(client):
    def parts():
        for _ in range(40):
            yield bytes(10_000)

    for content in (bytes(300_001), parts()):
        answer = client.post("/video?model=oracle", content=content)
        assert answer.status_code == 413, answer.text
    for data in (moving_box(3, fps=0.1), moving_box(1, side=1024)):
        answer = client.post("/video?model=oracle", content=data)
        assert answer.status_code == 413 or "pixels" in answer.text, answer.text


def test_a_cut_video_gives_what_it_has_and_says_how_it_ended(client):
    data = moving_box(30, fps=10)
    lines = asked(client, data[: len(data) * 2 // 3], per_s=60)
    frames, end = lines[1:-1], lines[-1]["end"]
    assert 1 <= len(frames) < 30
    assert end["frames"] == len(frames)
    assert all(frame["detections"][0]["xyxy"][0] == 2.0 * frame["frame"] % 32 for frame in frames)


def test_one_at_a_time_for_a_client_and_it_may_leave(server, client):
    data = moving_box(190, fps=10)
    with client.stream("POST", "/video?model=oracle&per_s=60", content=data) as first:
        lines = first.iter_lines()
        assert "video" in json.loads(next(lines))
        second = client.post("/video?model=oracle", content=data)
        assert second.status_code == 429, second.text
        photo = client.post("/detect?model=oracle", content=servers.picture())
        assert photo.json()["detections"][0]["label"] == "red"
    until = time.monotonic() + 20  # the one that was left makes room by itself
    while client.post("/video?model=oracle", content=b"x").status_code == 429:
        assert time.monotonic() < until
        time.sleep(0.05)
    text = client.get("/metrics").text
    assert 'outcome="limited",route="/video"' in text.replace(", ", ",") or "/video" in text


def test_videos_can_be_switched_off(tmp_path, server):
    engine = servers.null_engine(tmp_path / "null")
    with servers.serving(tmp_path, str(engine), "--max-video", "0") as running:
        answer = httpx.post(f"{running.url}/video", content=b"x", trust_env=False)
    assert answer.status_code in (403, 413)


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed here")
def test_the_page_shows_the_boxes_of_the_frame_that_it_stands_at(server, tmp_path):
    path = tmp_path / "box.webm"
    path.write_bytes(moving_box(12, fps=10))
    with browser.browser(tmp_path / "profile") as page:
        page.go(f"{server.url}/", 1000, 800)
        page.until("document.getElementById('engine').options.length >= 1")
        page.choose("#files", path)
        page.until("document.getElementById('progress').hidden && photos[0].done")
        page.until("document.querySelector('#rows td')?.textContent == 'red'")
        page.ask("photos[0].video.currentTime = 0.85; undefined")
        page.until("document.querySelector('#rows').textContent.endsWith('16 16 40 48')")
        assert page.ask("photos[0].frames.length") == 12
        assert page.errors == []
