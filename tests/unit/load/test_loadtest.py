"""The load generator against a server whose every delay is known, by a clock of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from engineworks.errors import DataError
from engineworks.load import knee, poisson
from engineworks.load.wire import Client, target


class Known:
    """Answers one request at a time, each after `takes_s`; more than `room` wait gets 503."""

    def __init__(self, takes_s, room=1000, status=200, stall=(0.0, 0.0), cut=False):
        self.takes_s, self.room, self.status = takes_s, room, status
        self.stall, self.cut, self.seen = stall, cut, []
        self._waiting = 0

    async def __aenter__(self):
        self._one = asyncio.Lock()
        self._begun = asyncio.get_running_loop().time()
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/detect?x=1"

    async def _client(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.seen.append((head, await reader.readexactly(length)))
                status = await self._served()
                if self.cut:
                    break
                body = b"x" * 100
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\n" % status + body)
        writer.close()

    async def _served(self):
        if self._waiting >= self.room:
            return 503
        self._waiting += 1
        async with self._one:
            loop = asyncio.get_running_loop()
            at, lasts = self.stall
            if lasts and loop.time() - self._begun >= at:
                self.stall = (0.0, 0.0)
                await asyncio.sleep(lasts)
            await asyncio.sleep(self.takes_s)
        self._waiting -= 1
        return self.status


class Clocked(asyncio.SelectorEventLoop):
    """A loop whose time passes only while all wait: figures then depend on no machine's speed."""

    def __init__(self):
        self.now = 0.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout=None):
                ready = super().select(0 if timeout == 0 else 0.001)  # what was sent arrives
                if not ready and timeout:
                    loop.now += timeout
                return ready

        super().__init__(Selector())

    def time(self):
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The generator reads the time of the loop that it runs in."""
    shown = types.SimpleNamespace(perf_counter=lambda: asyncio.get_running_loop().time())
    for module in (poisson, knee):
        monkeypatch.setattr(module, "time", shown)


def with_server(server, use):
    async def run():
        async with server:
            client = Client(target(server.url, b"photo", content_type="image/png"))
            try:
                return await use(client)
            finally:
                client.close()
                while connections := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait(connections)

    loop = Clocked()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def send(server, rate, seconds=1.0, limit_s=0.5, give_up_s=5.0):
    return with_server(
        server,
        lambda client: poisson.send(client, rate, seconds, limit_s=limit_s, give_up_s=give_up_s),
    )


def test_moments_are_those_of_a_poisson_process():
    found = np.array(poisson.moments(200, 50, seed=1))
    gaps = np.diff(found)
    assert len(found) == pytest.approx(10_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential gaps
    counts = np.bincount(found.astype(int), minlength=50)
    assert counts.var() == pytest.approx(200, rel=0.5)
    assert poisson.moments(200, 5, seed=1) == poisson.moments(200, 5, seed=1)


@pytest.mark.parametrize("share", [1, 50, 95, 99, 100])
@pytest.mark.parametrize("count", [1, 2, 99, 100, 101])
def test_percentiles_are_numpys_nearest_rank(share, count):
    values = np.random.default_rng(count).random(count)
    wanted = np.percentile(values, share, method="inverted_cdf")
    assert poisson.percentile(list(values), share) == wanted


def test_what_is_sent_is_a_whole_request():
    server = Known(0.0)
    with_server(server, lambda client: client.ask())
    head, body = server.seen[0]
    assert head.startswith(b"POST /detect?x=1 HTTP/1.1\r\n")
    assert b"Content-Type: image/png\r\n" in head
    assert body == b"photo"


def test_every_request_is_counted_once_by_how_it_ended():
    good = send(Known(0.001), 100)
    assert good.sent == good.ok == len(poisson.moments(100, 1, seed=0))
    assert good.well
    assert (good.late, good.refused, good.wrong, good.unanswered) == (0, 0, 0, 0)
    assert 1 <= good.p50_ms <= good.p95_ms <= good.p99_ms < 6  # few have to wait for others
    assert good.p50_ms == pytest.approx(1)
    assert good.generator_p99_ms == pytest.approx(0)
    wrong = send(Known(0.001, status=418), 50)
    assert wrong.sent == wrong.wrong
    assert not wrong.well
    cut = send(Known(0.001, cut=True), 50)
    assert cut.sent == cut.unanswered
    full = send(Known(0.1, room=1), 50)
    assert full.refused + full.ok + full.late == full.sent
    assert full.refused > full.sent / 2
    slow = send(Known(0.05), 40, limit_s=0.06)
    assert slow.late > 0
    given_up = send(Known(0.4), 20, give_up_s=0.2)
    assert given_up.unanswered > 0


def test_who_would_have_come_during_a_stall_is_charged_for_it():
    """A closed loop would send one request and call one answer slow."""
    load = send(Known(0.001, stall=(0.3, 0.6)), 100, seconds=1.5, limit_s=0.1)
    meant = sum(0.3 <= at < 0.8 for at in poisson.moments(100, 1.5, seed=0))
    assert load.late == pytest.approx(meant, abs=10)  # and those that then had to wait for these
    assert meant > 30
    assert load.p95_ms > 300
    assert load.generator_p99_ms == pytest.approx(0)


def test_the_knee_of_a_server_that_takes_ten_milliseconds_is_below_a_hundred_a_second():
    told = []
    found = with_server(
        Known(0.010),
        lambda client: knee.find(
            client, seconds=1.0, limit_ms=150, give_up_s=5,
            tell=lambda name, load: told.append((name, load)),
        ),
    )  # fmt: skip
    assert 70 < found.knee_per_s < 115  # a second's 15 too many wait no longer than the limit
    assert found.alone_p50_ms == pytest.approx(10)
    assert found.half is not None
    assert found.half.well
    assert found.double is not None
    assert not found.double.well
    assert [name for name, _ in told][-3:] == ["half", "at", "double"]


def test_a_server_that_refuses_what_is_too_much_keeps_its_answers_quick():
    load = send(Known(0.02, room=2), 150)
    assert load.refused > 50
    assert load.p99_ms <= 40 + 1e-6  # its own 20 ms and those of the one before it


@pytest.mark.parametrize(
    "url", ["ftp://x/", "127.0.0.1:8000", "http://", "http://x:99999999/", "http:///detect", ""]
)
def test_no_address_is_refused(url):
    with pytest.raises(DataError):
        target(url, b"", content_type="x")


@pytest.fixture
def running():
    """A known server on a thread, for the command."""
    started, stop, urls = threading.Event(), threading.Event(), []

    def run():
        async def serve():
            async with Known(0.002, room=3) as server:
                urls.append(server.url)
                started.set()
                while not stop.is_set():
                    await asyncio.sleep(0.02)

        asyncio.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(60)
    yield urls[0]
    stop.set()
    thread.join()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "engineworks.cli", "loadtest", *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_command_reports_one_rate(running, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")
    common = (running, "--body", str(photo), "--seconds", "0.5")
    done = command(*common, "--rate", "5", "--limit-ms", "30000", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["ok"] == data["sent"] > 0
    too_much = command(*common, "--rate", "2000")
    assert too_much.returncode == 1
    assert "refused" in too_much.stdout


def test_the_command_says_what_is_wrong_with_the_server(running, tmp_path):
    photo = tmp_path / "photo.jpg"
    absent = command(running, "--body", str(photo))
    assert absent.returncode == 2
    photo.write_bytes(b"photo")
    nobody = command("http://127.0.0.1:9/detect", "--body", str(photo), "--seconds", "0.5")
    assert nobody.returncode == 2
    assert "gives no answer" in nobody.stderr
