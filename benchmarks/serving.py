"""Our server: CPU, ready time, overload, peers, hostile clients, swaps, abandoned requests.

`python -m benchmarks.serving [PART...]`; parts are cpu, ready, overload, peers, hostile, swaps,
abandoned. SCALE multiplies how often each is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _serving_peers as peers
from benchmarks import _serving_trials as trials
from benchmarks._bars import Bar, finish
from benchmarks._serving_cpu import measure
from engineworks.store import LocalStore
from tests import builders, servers

HOSTILE, SWAPS, ABANDONED = 100_000, 1_000, 60


def main(parts: list[str]) -> int:
    """Measure, print the bars, write `serving.json`."""
    scale = float(os.environ.get("SCALE", "1"))
    chosen = parts or list(PARTS)
    bars: list[Bar] = []
    details: dict[str, Any] = {"scale": scale, "load_average": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as name:
        folder = Path(name)
        for part in chosen:
            found, figures = PARTS[part](folder / part, scale)
            details[part] = figures
            bars += found
    return finish("serving", bars, details)


def _yolox(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    onnx = builders.export_yolox(folder / "yolox.onnx")
    engine = builders.put_engine(LocalStore(folder / "store"), onnx)
    return Path(engine.uri), builders.photos()[3]


def _cpu(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    engine, photo = _yolox(folder)
    rounds, block = max(5, round(11 * scale)), 30
    large = measure(folder, engine, photo, rounds=rounds, block=block)
    small_net = servers.oracle_engine(folder / "small", (320, 320))
    small = measure(folder, small_net, photo, rounds=rounds, block=3 * block)
    return [
        Bar("CPU of a request to the chain alone", large["ours_to_chain"][0], "x", 1.15),
        Bar(
            "CPU of a request to that of a naive FastAPI",
            large["ours_to_chain"][0] / large["naive_to_chain"][0], "x", 1.0,
        ),
    ], {"yolox_nano": large, "small_net": small}  # fmt: skip


def _ready(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    engine, photo = _yolox(folder)
    found = trials.ready(folder, engine, photo, max(3, round(5 * scale)))
    return [
        Bar("ready after", found["ready_s"], "s", 3.0),
        Bar("CPU until ready", found["ready_cpu_s"], "s", 3.0),
        Bar("first answer to a steady one", found["first_to_steady"], "x", 2.0),
    ], found


def _overload(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    engine, photo = _yolox(folder)
    found = trials.overload(folder, engine, photo, max(3.0, 4.0 * scale))
    lost = found["unanswered"] + found["wrong"]
    return [
        Bar("requests without an answer at 3x the knee", lost, "requests", 0),
        Bar("good answers at 3x the knee to those at it", found["good_to_knee"], "x", 0.9, True),
        Bar("CPU of a good answer there to one at it", found["cpu_of_a_good_answer"], "x", 1.1),
        Bar("growth under overload", found["growth_mib"], "MiB", 50),
    ], found


def _peers(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    engine, photo = _yolox(folder)
    home = Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks").absolute()
    found = peers.compare(
        folder, engine, photo, home, seconds=max(3.0, 10 * scale), rounds=max(3, round(12 * scale))
    )
    best = found["peers"][found["best_peer"]]
    return [Bar("p99 to that of the best peer", best["p99"][0], "x", 1.05)], found


def _hostile(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    engine = servers.oracle_engine(folder / "oracle")
    found = trials.hostile(folder, engine, round(HOSTILE * scale))
    return [
        Bar("hostile requests answered 5xx but 503", found["other_5xx"], "requests", 0),
        Bar("good requests among them answered wrong", found["good_wrong"], "requests", 0),
        Bar("growth under hostile requests", found["growth_mib"], "MiB", 50),
    ], found


def _swaps(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    found = trials.swaps(folder, max(10, round(SWAPS * scale)))
    return [
        Bar("requests failed during swaps", found["failed"], "requests", 0),
        Bar("answers that are no one engine's", found["mixed"], "answers", 0),
        Bar("slowest until the new engine answers", found["slowest_s"], "s", 2.0),
        Bar("growth over swaps", found["growth_mib"], "MiB", 50),
    ], found


def _abandoned(folder: Path, scale: float) -> tuple[list[Bar], dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    found = trials.abandoned(folder, ABANDONED, 0.3)
    share = found["never_ran_share"]
    return [Bar("abandoned requests that never ran", share, "share", 0.9, True)], found


PARTS = {
    "cpu": _cpu,
    "ready": _ready,
    "overload": _overload,
    "peers": _peers,
    "hostile": _hostile,
    "swaps": _swaps,
    "abandoned": _abandoned,
}

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
