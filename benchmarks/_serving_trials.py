"""What befalls our server: overload, hostile clients, swaps under load, clients that leave.

Each part starts a real server, does its worst for a stated number of times, and returns figures.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks._serving_cpu import cpu_s
from engineworks.load import knee, poisson
from engineworks.load.wire import Client, target
from tests import servers

MIB = 2**20


def resident_mib(running: servers.Running) -> float:
    """Memory of the server's processes together."""
    total = 0
    for pid in [running.process.pid, *running.workers()]:
        total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096
    return total / MIB


def ready(folder: Path, engine: Path, photo: Path, times: int) -> dict[str, Any]:
    """Seconds from the command to its line that it serves, and the first answers' times."""
    took_s, cpu, first_ms, steady_ms = [], [], [], []
    for _ in range(times):
        begun = time.perf_counter()
        with servers.serving(folder, str(engine)) as running:
            took_s.append(time.perf_counter() - begun)
            cpu.append(cpu_s([running.process.pid, *running.workers()]))
            ask = _asker(running.url, photo.read_bytes())
            answers = []
            for _ in range(21):
                begun = time.perf_counter()
                ask()
                answers.append((time.perf_counter() - begun) * 1e3)
            first_ms.append(answers[0])
            steady_ms.append(sorted(answers[1:])[10])
    order = sorted(range(times), key=lambda n: first_ms[n] / steady_ms[n])
    middle = order[times // 2]
    return {
        "ready_s": sorted(took_s)[times // 2],
        "ready_cpu_s": sorted(cpu)[times // 2],
        "first_to_steady": first_ms[middle] / steady_ms[middle],
        "first_ms": first_ms[middle],
        "steady_ms": steady_ms[middle],
        "starts": times,
    }


def _asker(url: str, data: bytes) -> Any:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)

    def ask(path: str = "/detect", body: bytes = data, kind: str = "image/jpeg") -> Any:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()

    return ask


def overload(folder: Path, engine: Path, photo: Path, seconds: float) -> dict[str, Any]:
    """The knee, then it and three times as much in turns, each request with a deadline."""
    with servers.serving(folder, str(engine), "--threads", "1", "--queue", "32") as running:
        where, data, limit_ms = f"{running.url}/detect", photo.read_bytes(), 1000.0
        plain = Client(target(where, data, content_type="image/jpeg"))
        pressed = Client(
            target(f"{where}?timeout_ms={limit_ms:g}", data, content_type="image/jpeg")
        )
        workers = running.workers()

        async def measured(rate: float) -> tuple[poisson.Load, float]:
            """What came of a rate, and the workers' CPU ms for each answer in time."""
            begun = cpu_s(workers)
            load = await poisson.send(
                pressed, rate, seconds, limit_s=limit_ms / 1e3, give_up_s=60, seed=round(rate)
            )
            return load, (cpu_s(workers) - begun) * 1e3 / max(1, load.ok)

        async def measure() -> tuple[float, list[Any], float]:
            found = await knee.find(
                plain, seconds=seconds, limit_ms=limit_ms, give_up_s=60, tell=lambda *_: None
            )
            rate = found.knee_per_s
            await measured(3 * rate)  # what is needed once is there by now
            before = resident_mib(running)
            rounds = [(await measured(rate), await measured(3 * rate)) for _ in range(5)]
            growth = resident_mib(running) - before
            plain.close()
            pressed.close()
            return rate, rounds, growth

        rate, rounds, growth = asyncio.run(measure())
    over = [load for _, (load, _) in rounds]
    return {
        "knee_per_s": rate,
        "sent": sum(load.sent for load in over),
        "good_to_knee": _middle([hard.ok_per_s / at.ok_per_s for (at, _), (hard, _) in rounds]),
        "cpu_of_a_good_answer": _middle([hard / at for (_, at), (_, hard) in rounds]),
        "refused": sum(load.refused for load in over),
        "late": sum(load.late for load in over),
        "unanswered": sum(load.unanswered for load in over),
        "wrong": sum(load.wrong for load in over),
        "growth_mib": growth,
        "refusal_p99_ms": _middle([load.refusal_p99_ms for load in over]),
        "limit_ms": limit_ms,
    }


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def hostile(folder: Path, engine: Path, times: int) -> dict[str, Any]:
    """Damaged bodies of every kind, a good photo after every 20."""
    good = servers.picture()
    seeds = [
        good, servers.picture(".jpg"), servers.picture(".webp"), b"", b"{", b"[" * 5000,
        b'{"image": "aGVsbG8="}', b'{"image": 7}', b"<html>", b"GIF89a", b"\xff\xd8\xff",
        json.dumps({"inputs": [{"name": "images", "shape": [1, 3, 64, 64]}]}).encode(),
    ]  # fmt: skip
    source = random.Random(7)  # noqa: S311 - damage, no secret
    fives = wrong = 0
    with servers.serving(folder, str(engine), "--max-pixels", "1000000") as running:
        ask = _asker(running.url, good)
        wanted = json.loads(ask()[1])["detections"]
        before = 0.0
        for number in range(times):
            if number == times // 10:
                before = resident_mib(running)  # what was only needed once is there by now
            body = bytearray(source.choice(seeds))
            for _ in range(source.randint(0, 6) if body else 0):
                body[source.randrange(min(len(body), 300))] = source.randrange(256)
            path = source.choice(["/detect", "/v2/models/oracle/infer", "/detect?confidence=2"])
            kind = source.choice(["image/png", "application/json", "multipart/form-data"])
            status, _ = ask(path, bytes(body), kind)
            fives += status >= 500 and status != 503
            if number % 20 == 19:
                status, answer = ask()
                wrong += status != 200 or json.loads(answer)["detections"] != wanted
        growth = resident_mib(running) - before
        same = len(running.workers()) == 1 and "another is started" not in running.said()
    return {
        "requests": times, "other_5xx": fives, "good_wrong": wrong, "growth_mib": growth,
        "worker_lives": same,
    }  # fmt: skip


def swaps(folder: Path, times: int) -> dict[str, Any]:
    """Two engines of different answers and batch limits take turns under load, two workers."""
    boxes = {"a": [2.0, 4.0, 20.0, 24.0], "b": [30.0, 32.0, 40.0, 60.0]}
    engines = {
        "a": servers.constant_detector(folder / "a", [side / 2 for side in boxes["a"]]),
        "b": servers.constant_detector(folder / "b", [side / 2 for side in boxes["b"]], batch=2),
    }
    digests = {engines[name].name: boxes[name] for name in boxes}
    photo, failed, mixed, answers = servers.picture(), 0, 0, 0
    stop = threading.Event()
    seen: list[tuple[int, bytes]] = []

    def press(url: str) -> None:
        ask = _asker(url, photo)
        while not stop.is_set():
            try:
                seen.append(ask())
            except (OSError, http.client.HTTPException):
                seen.append((0, b""))
                ask = _asker(url, photo)

    slowest_s, swap_s = 0.0, []
    with servers.serving(
        folder, f"x={engines['a']}", "--workers", "2", "--allow", str(folder), "--threads", "1"
    ) as running:
        threads = [threading.Thread(target=press, args=(running.url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        admin, fresh = _asker(running.url, photo), _asker(running.url, photo)
        before = 0.0
        for number in range(times):
            if number == max(1, times // 10):
                before = resident_mib(running)
            name = "ba"[number % 2]
            wanted = json.dumps({"engine": str(engines[name])}).encode()
            begun = time.perf_counter()
            status, said = admin("/admin/models/x/swap", wanted, "application/json")
            if status != 200:
                raise RuntimeError(said.decode())
            swap_s.append(time.perf_counter() - begun)
            while json.loads(fresh()[1])["model"]["digest"] != engines[name].name:
                time.sleep(0.005)
            slowest_s = max(slowest_s, time.perf_counter() - begun)
        stop.set()
        for thread in threads:
            thread.join()
        growth = resident_mib(running) - before
    for status, body in seen:
        answers += 1
        if status != 200:
            failed += 1
            continue
        answer = json.loads(body)
        found = [entry["xyxy"] for entry in answer["detections"]]
        mixed += found != [digests.get(answer["model"]["digest"])]
    return {
        "swaps": times, "answers": answers, "failed": failed, "mixed": mixed,
        "slowest_s": slowest_s, "median_s": sorted(swap_s)[times // 2], "growth_mib": growth,
    }  # fmt: skip


def abandoned(folder: Path, times: int, after_s: float) -> dict[str, Any]:
    """Clients leave an engine of about two seconds; how many of those that waited still ran."""
    busy, took_s = 40, 0.0
    engine = servers.constant_detector(folder / "probe", (1, 2, 3, 4), busy=busy)
    with servers.serving(folder, str(engine), "--threads", "1") as running:
        ask = _asker(running.url, servers.picture())
        ask()
        took_s = json.loads(ask()[1])["stage_ms"]["infer"] / 1e3
    busy = max(1, round(busy * 2.0 / took_s))
    engine = servers.constant_detector(folder / "slow", (1, 2, 3, 4), busy=busy)
    with (
        servers.serving(
            folder, f"slow={engine}", "--threads", "1", "--timeout-ms", "600000"
        ) as running,
        running.client() as client,
    ):
        photo = servers.picture()
        needs_s = json.loads(_asker(running.url, photo)()[1])["stage_ms"]["infer"] / 1e3
        parts = urlsplit(running.url)
        head = (
            f"POST /detect HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(photo)}\r\n\r\n"
        ).encode()
        before = servers.metric(client, "engineworks_batch_rows_sum", model="slow")
        connections = []
        for _ in range(times):
            connection = socket.create_connection((str(parts.hostname), parts.port or 80))
            connection.sendall(head + photo)
            connections.append(connection)
        time.sleep(after_s)
        for connection in connections:
            connection.close()
        time.sleep(3 * needs_s)
        ran = servers.metric(client, "engineworks_batch_rows_sum", model="slow") - before
    # The one that the engine had when they left was no longer queued.
    return {
        "requests": times,
        "engine_s": needs_s,
        "ran": ran,
        "never_ran_share": 1 - max(0.0, ran - 1) / (times - 1),
    }
