"""Engines that take each other's place, workers that die, servers that are told to end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.servers import Held, metric, until

PHOTO = servers.picture()
#: Of the 64x64 picture, from boxes of the 32x32 input.
BOXES = {"a": [2.0, 4.0, 20.0, 24.0], "b": [30.0, 32.0, 40.0, 60.0]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two engines of different answers and batch limits, below one folder."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, {
        "a": servers.constant_detector(folder / "a", [side / 2 for side in BOXES["a"]]),
        "b": servers.constant_detector(folder / "b", [side / 2 for side in BOXES["b"]], batch=2),
    }


@contextlib.contextmanager
def asking(running, seen):
    """Ask without pause from three clients while the block runs; answers are appended."""
    stop = threading.Event()

    def ask():
        with running.client() as client:
            while not stop.is_set():
                try:
                    answer = client.post("/detect", content=PHOTO)
                    seen.append((answer.status_code, answer.json()))
                except httpx.HTTPError as error:
                    seen.append((0, {"error": repr(error)}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wrong(seen, pair):
    """Answers that are none, or of no one engine."""
    digests = {folder.name: BOXES[name] for name, folder in pair[1].items()}
    return [
        (code, answer)
        for code, answer in seen
        if code != 200
        or [d["xyxy"] for d in answer["detections"]] != [digests.get(answer["model"]["digest"])]
    ]


def test_swaps_under_load_fail_nobody_and_every_answer_is_one_engines(pair, tmp_path):
    folder, engines = pair
    seen: list[tuple[int, dict]] = []
    with (
        servers.serving(
            tmp_path, f"x={engines['a']}", "--workers", "2", "--allow", str(folder)
        ) as running,
        running.client() as client,
    ):
        assert len(running.workers()) == 2
        with asking(running, seen):
            for turn in range(10):
                wanted = engines["ba"[turn % 2]]
                done = client.post("/admin/models/x/swap", json={"engine": str(wanted)})
                assert done.status_code == 200, done.text
                assert done.json()["model"]["digest"] == wanted.name
                # All workers answer by it now, whichever the connection leads to.
                for _ in range(4):
                    with running.client() as other:
                        answer = other.post("/detect", content=PHOTO).json()
                        assert answer["model"]["digest"] == wanted.name
        infos = {
            name: metric(client, "engineworks_engine_info", version=engine.name[:12])
            for name, engine in engines.items()
        }
    assert infos == {"a": 2, "b": 0}  # of two workers
    assert len(seen) > 50
    assert wrong(seen, pair) == []
    assert {answer["model"]["digest"] for _, answer in seen} == {e.name for e in engines.values()}


def test_an_engine_that_fails_takes_nobodys_place(pair, tmp_path):
    folder, engines = pair
    broken = tmp_path / "allowed" / "broken"
    shutil.copytree(engines["b"], broken)
    (broken / "model.onnx").write_bytes(b"\0" * (broken / "model.onnx").stat().st_size)
    with (
        servers.serving(
            tmp_path, f"x={engines['a']}", "--allow", str(tmp_path / "allowed"),
            "--allow", str(folder), "--workers", "2",
        ) as running,
        running.client() as client,
    ):  # fmt: skip
        swap = "/admin/models/x/swap"
        refused = client.post(swap, json={"engine": "broken"})
        assert refused.status_code == 409
        assert "altered" in refused.json()["error"]
        wrong_identity = {"engine": str(engines["b"]), "sha256": "0" * 64}
        assert client.post(swap, json=wrong_identity).status_code == 409
        outside = Path(__file__).parent
        (tmp_path / "allowed" / "link").symlink_to(outside)
        for name in ("..", "../..", "/etc", str(outside), "link", "broken/../../..", "", "a\0b",
                     "%2e%2e", "..\\..", "x" * 4000, "~"):  # fmt: skip
            answer = client.post(swap, json={"engine": name})
            assert answer.status_code in (400, 403), name
        assert (
            client.post("/admin/models/absent/swap", json={"engine": "broken"}).status_code == 404
        )
        assert client.post("/detect", content=PHOTO).json()["model"]["digest"] == engines["a"].name
        assert client.get("/health/ready").json()["ready"]


def test_names_are_loaded_and_unloaded_by_the_protocol(pair, tmp_path):
    _, engines = pair
    with (
        servers.serving(tmp_path, f"x={engines['a']}", f"y={engines['b']}") as running,
        running.client() as client,
    ):
        assert client.post("/detect?model=y", content=PHOTO).status_code == 200
        assert client.post("/v2/repository/models/y/unload").status_code == 200
        assert client.post("/detect?model=y", content=PHOTO).status_code == 404
        states = {e["name"]: e["state"] for e in client.post("/v2/repository/index").json()}
        assert states == {"x": "READY", "y": "UNAVAILABLE"}
        assert client.post("/v2/repository/models/y/load").status_code == 200
        assert client.post("/detect?model=y", content=PHOTO).status_code == 200
        for name in ("absent", "..", "%2e%2e%2f%2e%2e%2fetc", "a%00b", "x" * 4096, "..%5c"):
            assert client.post(f"/v2/repository/models/{name}/load").status_code == 404, name
        override = {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
        assert client.post("/v2/repository/models/y/load", json=override).status_code == 400


def test_links_are_followed_and_what_is_not_whole_is_waited_for(pair, tmp_path):
    _, engines = pair
    place = tmp_path / "engines" / "x"
    place.mkdir(parents=True)
    (tmp_path / "engines" / "unfinished").mkdir()  # has no link yet

    def move(target):
        new = place / "new"
        new.symlink_to(target)
        new.replace(place / "current")

    move(engines["a"])
    seen: list[tuple[int, dict]] = []
    with (
        servers.serving(tmp_path, "--follow", str(tmp_path / "engines")) as running,
        running.client() as client,
    ):

        def digest(model="x"):
            answer = client.post(f"/detect?model={model}", content=PHOTO)
            return answer.json()["model"]["digest"] if answer.status_code == 200 else None

        with asking(running, seen):
            assert digest() == engines["a"].name
            move(engines["b"])
            until(lambda: digest() == engines["b"].name)
        assert wrong(seen, pair) == []
        # A copy that is still being written, then whole; beside it another name.
        half = tmp_path / "half" / engines["a"].name
        half.mkdir(parents=True)
        shutil.copy(engines["a"] / "manifest.json", half)
        (half / "model.onnx").write_bytes(b"half")
        move(half)
        other = tmp_path / "engines" / "y"
        other.mkdir()
        (other / "current").symlink_to(engines["a"])
        until(lambda: digest("y") == engines["a"].name)
        until(lambda: "is not served, the one before stays" in running.said())
        assert digest() == engines["b"].name
        shutil.copy(engines["a"] / "model.onnx", half)
        until(lambda: digest() == engines["a"].name)


def test_a_folder_without_links_is_followed_until_there_is_one(pair, tmp_path):
    place = tmp_path / "engines"
    with servers.serving(tmp_path, "--follow", str(place)) as running, running.client() as client:
        assert client.get("/health/ready").json() == {"ready": True, "models": {}}
        assert client.post("/detect", content=PHOTO).status_code == 404
        (place / "x").mkdir(parents=True)
        (place / "x" / "current").symlink_to(pair[1]["a"])
        until(lambda: client.post("/detect", content=PHOTO).status_code == 200)


def test_a_change_while_a_worker_starts_anew_is_not_undone_by_its_start(pair, tmp_path):
    folder, engines = pair
    with (
        servers.serving(
            tmp_path, f"x={engines['a']}", "--workers", "2", "--allow", str(folder)
        ) as running,
        running.client() as client,
    ):
        victim = running.workers()[-1]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(running.workers()) - {victim}) == 2)  # begun, and not ready yet
        for _ in range(20):  # the connection may have been the victim's
            with contextlib.suppress(httpx.HTTPError):
                done = client.post("/admin/models/x/swap", json={"engine": str(engines["b"])})
                break
        assert done.status_code == 200, done.text

        def versions():
            return {
                name: metric(client, "engineworks_engine_info", version=engine.name[:12])
                for name, engine in engines.items()
            }

        until(lambda: versions()["b"] == 2)
        assert versions()["a"] == 0


def test_a_file_that_is_no_socket_is_not_removed_for_one(pair, tmp_path):
    path = tmp_path / "important"
    path.write_text("mine")
    done = servers.refused(tmp_path, str(pair[1]["a"]), "--uds", str(path))
    assert done.returncode == 2
    assert path.read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_answers_what_it_has_and_leaves_no_process(tmp_path, number):
    slow = servers.constant_detector(tmp_path / "slow", (1, 2, 3, 4), busy=40)
    with servers.serving(
        tmp_path, str(slow), "--workers", "2", "--threads", "1", "--timeout-ms", "120000"
    ) as running:
        workers = running.workers()
        with running.client() as client, ThreadPoolExecutor(4) as pool:
            client.post("/detect", content=PHOTO)
            asked = [Held(running, "/detect", PHOTO) for _ in range(4)]
            for one in asked:
                one.send()
            answers = pool.map(Held.status, asked)
            code = running.stop(number)
            assert list(answers) == [200] * 4
        assert code == 0
        assert not any(alive(worker) for worker in workers)
        assert "Traceback" not in running.said()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_its_supervisor_no_worker_lives_on(pair, tmp_path):
    with servers.serving(tmp_path, str(pair[1]["a"]), "--workers", "2") as running:
        workers = running.workers()
        assert len(workers) == 2
        running.stop(signal.SIGKILL)
        until(lambda: not any(alive(worker) for worker in workers))


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(pair, tmp_path):
    _, engines = pair
    with servers.serving(tmp_path, f"x={engines['a']}", "--workers", "2") as running:
        with running.client() as client:
            for _ in range(20):
                assert client.post("/detect", content=PHOTO).status_code == 200
        victim = running.workers()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(running.workers()) - {victim}) == 2)

        def counted():
            with running.client() as client:
                return metric(client, "engineworks_requests_total", route="/detect", outcome="ok")

        assert counted() == 20

        def serving():
            with running.client() as client:
                return metric(client, "engineworks_engine_info", model="x")

        until(lambda: serving() == 2)  # the dead one's gauge is gone, the new one's is there
        for _ in range(10):
            with running.client() as client:
                assert client.post("/detect", content=PHOTO).status_code == 200
        assert counted() == 30
