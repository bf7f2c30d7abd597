"""Batches, deadlines, full queues and clients that leave, on a real server."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import pytest

from tests import servers
from tests.servers import Held, metric, until

PHOTO = servers.picture()


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """An engine that takes a tenth of a second or more for an image, on one thread."""
    return servers.constant_detector(tmp_path_factory.mktemp("slow"), (1, 2, 3, 4), busy=40)


@pytest.fixture(scope="module")
def server(slow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    picky = servers.picky_engine(folder / "picky")
    with servers.serving(
        folder, f"slow={slow}", f"picky={picky}", "--queue", "6", "--threads", "1",
        "--wait-ms", "2000", "--timeout-ms", "120000", "--log", str(folder / "requests.jsonl"),
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(server):
    with server.client(limits=httpx.Limits(max_connections=100)) as client:
        yield client


def at_once(count, send):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, range(count)))


def rows(*values):
    data = [[value, 0, 0, 0] for value in values]
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values), 4], "data": data}]}


def test_one_bad_item_harms_no_batch_mate(server, client):
    until(lambda: re.search(r"picky: ms by batch \{1: .*8:", server.said()))
    url = "/v2/models/picky/infer"

    def send(number):
        return client.post(url, json={**rows(5.0 if number == 3 else 0.5), "id": str(number)})

    with contextlib.closing(Held(server, url, b"{}")):  # the others wait for it
        done = at_once(6, send)
    assert [answer.status_code == 200 for answer in done] == [n != 3 for n in range(6)]
    assert [answer.json().get("id") for answer in done if answer.status_code == 200] == list(
        "01245"
    )
    with contextlib.closing(Held(server, url, b"{}")):
        answered = at_once(4, lambda n: client.post(url, json=rows(0.1 * n)))
    assert all(answer.status_code == 200 for answer in answered)
    ran = metric(client, "engineworks_batch_rows_count", model="picky")
    assert metric(client, "engineworks_batch_rows_bucket", model="picky", le="1.0") < ran


def test_rows_of_a_request_stay_together_and_in_order(client):
    answer = client.post("/v2/models/picky/infer", json=rows(*np.linspace(0, 0.9, 5)))
    assert answer.json()["outputs"][0]["shape"] == [5, 1]


def test_a_full_queue_answers_at_once_and_says_when_to_come_back(client):
    client.post("/detect", content=PHOTO)
    ended = []

    def send(_):
        answer = client.post("/detect", content=PHOTO)
        ended.append(answer.status_code)
        return answer

    done = at_once(18, send)
    assert set(ended) == {200, 503}
    assert 6 <= ended.count(200) < 18
    refused = [answer for answer in done if answer.status_code == 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert metric(client, "engineworks_requests_total", outcome="queue_full") == len(refused)
    # Most of those that were refused knew it before most of the others had their answer.
    middle = [place for place, code in enumerate(ended) if code == 503][len(refused) // 2]
    assert ended[:middle].count(200) <= ended.count(200) / 2


def test_a_full_queue_answers_before_the_body_has_come(server, client):
    counted = metric(client, "engineworks_requests_total", outcome="queue_full")
    for version, more, kept in (
        ("1.1", "Content-Length: 300000\r\n", True),
        ("1.1", "Transfer-Encoding: chunked\r\n", True),
        ("1.1", "Content-Length: 300000\r\nConnection: close\r\n", False),
        ("1.1", "Content-Length: 300000\r\nExpect: 100-continue\r\n", False),
        ("1.0", "Content-Length: 300000\r\n", False),
    ):
        until(partial(refused_while_full, server, client, version, more, kept))
    assert metric(client, "engineworks_requests_total", outcome="queue_full") >= counted + 6


def refused_while_full(server, client, version, more, kept):
    """False where those in the queue had their answers before this was asked."""
    with ThreadPoolExecutor(6) as pool:
        waiting = [
            pool.submit(client.post, "/detect?timeout_ms=600000", content=PHOTO) for _ in range(6)
        ]
        until(lambda: refused_by_head(client) or all(future.done() for future in waiting))
        refused = refused_before_its_body(server, version, more, kept)
        assert all(future.result().status_code == 200 for future in waiting)
    return refused


def refused_before_its_body(server, version, more, kept):
    body = b"x" * 300_000
    if "chunked" in more:
        body = b"493e0\r\n" + body + b"\r\n0\r\n\r\n"
    host, port = re.match(r"http://([\d.]+):(\d+)", server.url).groups()
    with socket.create_connection((host, int(port)), 60) as caller:
        head = f"POST /detect HTTP/{version}\r\nHost: {host}\r\nX-Request-Id: mine\r\n{more}\r\n"
        caller.sendall(head.encode())
        answers = caller.makefile("rb")
        status, fields, words = read_answer(answers)
        if b" 503 " not in status:
            return False
        assert int(fields[b"retry-after"]) >= 1
        assert fields[b"x-request-id"] == b"mine"
        assert b"rows are in work" in words
        assert (fields.get(b"connection") != b"close") is kept, more
        with contextlib.suppress(ConnectionError):
            caller.sendall(body)
        if kept:  # what was let go is no next request, and the next is answered
            caller.sendall(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert read_answer(answers)[2] == b'{"live":true}'
        else:
            with contextlib.suppress(ConnectionError):
                assert answers.read() == b""
        return True


def refused_by_head(client):
    """Whether the queue is full: a request without a body would otherwise get 400."""
    return client.post("/detect?timeout_ms=600000").status_code == 503


def read_answer(file):
    status, fields = file.readline(), {}
    while (line := file.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return status, fields, file.read(int(fields[b"content-length"]))


def test_a_deadline_is_held_in_milliseconds(client):
    client.post("/detect", content=PHOTO)
    needs_ms = client.post("/detect", content=PHOTO).json()["stage_ms"]["infer"]
    assert needs_ms > 20
    assert client.post("/detect?timeout_ms=100000", content=PHOTO).status_code == 200

    def told_before_it_is_done():
        ran = metric(client, "engineworks_batch_rows_count", model="slow")
        begun = time.monotonic()
        late = client.post(f"/detect?timeout_ms={needs_ms / 4}", content=PHOTO)
        assert time.monotonic() - begun >= needs_ms / 4e3
        assert late.status_code == 503
        assert "Retry-After".lower() in late.headers
        return metric(client, "engineworks_batch_rows_count", model="slow") == ran

    until(told_before_it_is_done)
    before = metric(client, "engineworks_requests_total", outcome="too_late")
    request = {**rows(0.5), "parameters": {"timeout": 1}}  # a microsecond
    assert client.post("/v2/models/picky/infer", json=request).status_code == 503
    assert metric(client, "engineworks_requests_total", outcome="too_late") == before + 1


def test_what_its_client_has_left_is_not_run(server, client):
    client.post("/detect", content=PHOTO)

    def counted():
        ended = {
            outcome: metric(client, "engineworks_requests_total", outcome=outcome, route="/detect")
            for outcome in ("cancelled", "ok")
        }
        return np.array(
            [*ended.values(), metric(client, "engineworks_batch_rows_sum", model="slow")]
        )

    def most_have_left():
        before = counted()
        sent = [Held(server, "/detect", PHOTO) for _ in range(6)]
        for one in sent:
            one.send()
        for one in sent:
            one.close()
        until(lambda: (counted() - before)[:2].sum() == 6)
        assert client.post("/detect", content=PHOTO).status_code == 200  # after what waited
        cancelled, answered, ran = counted() - before
        assert ran <= answered + 2  # the one that was at work, and one that was to be
        return cancelled >= 4

    until(most_have_left)


def test_health_answers_while_an_engine_works(client):
    def often():
        answers = 0
        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(client.post, "/detect", content=PHOTO) for _ in range(4)]
            while not all(future.done() for future in working):
                assert client.get("/health/ready").status_code == 200
                answers += 1
        assert all(future.result().status_code == 200 for future in working)
        return answers > 12  # one that waits for the engine would give four or five

    until(often)


def test_who_is_more_urgent_goes_first(server):
    asked = ("normal", "low", "low", "low", "high")
    log = server.errors.parent / "requests.jsonl"

    def answered(names):
        """In the order of the server's own log."""
        lines = map(json.loads, log.read_text().splitlines())
        return [names[line["request_id"]] for line in lines if line["request_id"] in names]

    def order():
        names = {f"{time.monotonic_ns()}-{place}": word for place, word in enumerate(asked)}
        sent = [
            Held(server, f"/detect?priority={word}", PHOTO, **{"X-Request-Id": name})
            for name, word in names.items()
        ]
        for one in sent:
            one.send()
        assert [one.status() for one in sent] == [200] * 5
        for one in sent:
            one.close()
        until(lambda: len(answered(names)) == 5)
        return answered(names)

    # The first runs at once, and another may have been taken meanwhile; more of them where this
    # machine stands still just then, so it may be asked again.
    ended = order()
    for _ in range(3):
        if ended.index("high") > 2:
            ended = order()
    assert ended.index("high") <= 2
    assert ended[-1] == "low"


def test_the_smallest_limits_serve_and_workers_log_what_is_asked(
    server, tmp_path, slow, monkeypatch
):
    monkeypatch.setenv("ENGINEWORKS_LOG_LEVEL", "warning")
    with (
        servers.serving(
            tmp_path, str(slow), "--queue", "1", "--max-batch", "1", "--wait-ms", "0",
            "--timeout-ms", "120000",
        ) as running,
        running.client() as client,
    ):  # fmt: skip
        assert client.post("/detect", content=PHOTO).status_code == 200

        def one_at_a_time():
            answers = at_once(3, lambda _: client.post("/detect", content=PHOTO))
            codes = {answer.status_code for answer in answers}
            assert codes <= {200, 503}
            return codes == {200, 503}

        until(one_at_a_time)
        assert "INFO" not in running.said()
    assert "INFO engineworks.server" in server.said()
