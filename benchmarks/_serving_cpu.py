"""CPU per request: our server, the chain alone, and the server that guides write, in turns.

CPU time is read from /proc for all processes of a contender, so the client's own is counted apart
and another program on the core costs less than it would of the clock.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._rounds import ratio
from engineworks import runtime
from engineworks.runtime.pictures import decode_picture
from tests import servers

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes, in seconds."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK_S


def measure(folder: Path, engine: Path, photo: Path, *, rounds: int, block: int) -> dict[str, Any]:
    """CPU ms per request of each contender, and their ratios to the chain alone.

    Args:
        folder: For logs.
        engine: Its folder.
        photo: What is posted.
        rounds: Turns of each contender.
        block: Requests in a turn.
    """
    data = photo.read_bytes()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(servers.serving(folder, str(engine), "--threads", "1"))
        naive_port, naive_pid = stack.enter_context(_naive(engine))
        session = stack.enter_context(runtime.open(engine, threads=1))
        detector = runtime.Detector(session)
        our_port = int(ours.url.rpartition(":")[2])
        asking = {
            "ours": _asker(stack, our_port, data),
            "naive": _asker(stack, naive_port, data),
        }
        pids = {"ours": [ours.process.pid, *ours.workers()], "naive": [naive_pid]}

        def alone() -> None:
            found = detector(decode_picture(data, "photo").image)
            assert len(found) >= 0  # noqa: S101 - used

        idle_once(ours)
        spent: dict[str, list[float]] = {"chain": [], "ours": [], "naive": []}
        for number in range(rounds):
            names = list(spent) if number % 2 else list(spent)[::-1]
            for name in names:
                spent[name].append(_block(name, block, alone, asking, pids))
        medians = {name: np.array(values) for name, values in spent.items()}
        return {
            "cpu_ms": {name: float(np.median(values)) for name, values in medians.items()},
            "ours_to_chain": ratio(medians["ours"], medians["chain"]),
            "naive_to_chain": ratio(medians["naive"], medians["chain"]),
            "rounds": rounds,
            "block": block,
        }


def _block(
    name: str,
    block: int,
    alone: Callable[[], None],
    asking: dict[str, Callable[[], None]],
    pids: dict[str, list[int]],
) -> float:
    """CPU ms per request."""
    ask = asking.get(name, alone)
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask()  # a connection that was idle for the others' turns may have been closed
    ask()
    begun = time.process_time() if name == "chain" else cpu_s(pids[name])
    for _ in range(block):
        ask()
    ended = time.process_time() if name == "chain" else cpu_s(pids[name])
    return (ended - begun) * 1e3 / block


def idle_once(running: servers.Running) -> None:
    """Let the server time its batches before it is timed itself."""
    end = time.monotonic() + 30
    while "ms by batch" not in running.said() and time.monotonic() < end:
        time.sleep(0.2)


def _asker(stack: contextlib.ExitStack, port: int, data: bytes) -> Callable[[], None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    stack.callback(connection.close)

    def ask() -> None:
        try:
            connection.request("POST", "/detect", data, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next call opens it anew
            raise
        answer.read()
        assert answer.status == 200, answer.status  # noqa: S101 - else the figure means nothing

    return ask


@contextlib.contextmanager
def _naive(engine: Path) -> Iterator[tuple[int, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._serving_naive", str(port), str(engine)]
    )
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > end:
                raise TimeoutError("the naive server did not come up")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.kill()
        process.wait(30)
