"""RTSP from a real server on loopback, which stops and comes back."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from engineworks.errors import DataError
from engineworks.runtime.sources import SourceOptions, open_source
from tests import rtsp_server
from tests.clips import panned, write_clip


def _interpreter():
    """One that has GStreamer's bindings, or None."""
    for python in ("/usr/bin/python3", shutil.which("python3"), sys.executable):
        if python and Path(python).exists():
            tried = subprocess.run(
                [python, "-c", rtsp_server.NEEDS + "; from gi.repository import GstRtspServer"],
                capture_output=True,
                check=False,
            )
            if tried.returncode == 0:
                return python
    return None


PYTHON = _interpreter()

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="no Python with GStreamer's RTSP server (gir1.2-gst-rtsp-server-1.0)"
)


class Server:
    """The server in a process of its own."""

    def __init__(self, clip, port=None):
        if port is None:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
        self.port, self.address = port, f"rtsp://127.0.0.1:{port}/live"
        self._process = subprocess.Popen(
            [PYTHON, rtsp_server.__file__, str(clip), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "listening\n"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", panned(50))


def test_a_stream_is_read_with_its_pictures_and_times(clip):
    with Server(clip) as server:
        source = open_source(server.address)
        frames = [frame for frame, _ in zip(source, range(30), strict=False)]
        source.close()
    assert source.live
    assert [frame.number for frame in frames] == list(range(30))
    steps = np.diff([frame.time_s for frame in frames])
    assert np.median(steps) == pytest.approx(1 / 25, abs=0.002)
    best = min(np.abs(frames[3].image.astype(int) - image).mean() for image in panned(50))
    assert best < 12


def test_a_server_that_goes_away_and_comes_back(clip):
    first = Server(clip)
    second = []

    def come_back():
        second.append(Server(clip, first.port))

    try:
        options = SourceOptions(give_up_s=60, timeout_s=2)
        source = open_source(first.address, options)
        frames = []
        for frame in source:
            frames.append(frame)
            if len(frames) == 10:
                first.__exit__()
                threading.Timer(1.5, come_back).start()
            if len(frames) == 70:  # more than the clip has
                break
        source.close()
    finally:
        first.__exit__()
        for server in second:
            server.__exit__()
    assert source.troubles.reconnects >= 1
    times_s = [frame.time_s for frame in frames]
    assert times_s == sorted(times_s)
    assert max(np.diff(times_s)) > 1, "the time without a picture is part of the stream's time"


def test_an_address_that_the_server_does_not_have(clip):
    with Server(clip) as server, pytest.raises(DataError, match="cannot be opened") as refusal:
        open_source(server.address + "-not", SourceOptions(timeout_s=5))
    assert refusal.value.hint
