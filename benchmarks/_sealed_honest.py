"""Replays of an engine that must not matter: threads, batches, rebuilds, runtimes, CPUs.

Drawn from all combinations of sealed test, engine, threads, batch and resizer. Other versions of
the runtime and other instruction sets need a process of their own (`child`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

from benchmarks import _sealed_engines
from engineworks import sealed
from engineworks.sealed import contents
from engineworks.sealed.contents import SealedContents

#: Levels of graph optimisation at which an engine is rebuilt; empty: the target's own.
LEVELS = ("", "DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")

#: Sealed tests of the same engine, each with photos of its own.
TESTS = 3

#: QEMU's names of CPUs, from SSE4.2 to AVX2 and FMA.
CPUS = ("Nehalem", "SandyBridge", "Haswell")

#: Pictures that a CPU is given which is emulated at a thousandth of the speed.
FEW = 4


def child(words: Sequence[str]) -> int:
    """What is done in a process of its own: prepare HOME, build ..., or replay ..."""
    if words[0] == "prepare":
        _prepare(Path(words[1]))
    elif words[0] == "build":  # with the runtime that PYTHONPATH leads to
        home, precision, target = Path(words[1]), words[2], Path(words[3])
        engine = _sealed_engines.build(home / f"{precision}.onnx", target / "engine", precision)
        _sealed_engines.seal(engine, home / "fp32.onnx", target / "test")
    else:
        engine, test, threads = Path(words[1]), Path(words[2]), int(words[3])
        shown = sealed.replay(engine, test, threads=threads)
        print(json.dumps({"holds": shown.holds, "reason": shown.reason}))
    return 0


def _prepare(home: Path) -> None:
    """Graphs, engines and tests of every precision, and what they are like."""
    graphs = _sealed_engines.graphs(home)
    judge = _sealed_engines.Judge.open()
    made = {}
    for precision, graph in graphs.items():
        place = home / precision
        shutil.rmtree(place, ignore_errors=True)
        engine = _sealed_engines.build(graph, place / "engine", precision)
        begun = time.perf_counter()
        test = _sealed_engines.seal(engine, graphs["fp32"], place / "test")
        sealed_s = time.perf_counter() - begun
        for number in range(1, TESTS):
            _sealed_engines.seal(engine, graphs["fp32"], place / f"test-{number}", first=9 * number)
        for level in LEVELS[1:]:
            _sealed_engines.build(graph, place / f"engine-{level}", precision, level)
        _sealed_engines.build(graph, place / "engine-again", precision)
        shown = sealed.replay(engine, test)
        made[precision] = {
            "ap": judge.score(engine),
            "seal_s": sealed_s,
            "replay_s": shown.elapsed_s,
            "test_mib": sum(p.stat().st_size for p in test.iterdir()) / 2**20,
        }
    (home / "made.json").write_text(json.dumps(made))


def measure(home: Path, precision: str, count: int) -> dict[str, Any]:
    """Honest replays, and the alarms among them."""
    place = home / precision
    tests = [place / "test", *(place / f"test-{number}" for number in range(1, TESTS))]
    loaded = [contents.load(test) for test in tests]
    engines = [place / "engine", place / "engine-again"]
    engines += [place / f"engine-{level}" for level in LEVELS[1:]]
    path = home / f"{precision}-honest.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines][:count]
    with path.open("a", encoding="utf-8") as stream:
        for number in range(len(rows), count):
            rows.append(_one(np.random.default_rng([1, number]), loaded, engines))
            stream.write(json.dumps(rows[-1]) + "\n")
            stream.flush()
    alarms = [f"{row['how']}: {row['reason']}" for row in rows if not row["holds"]]
    others = [*_other_runtimes(home, precision), *_other_cpus(home, precision)]
    alarms += [f"{name}: {shown['reason']}" for name, shown in others if not shown["holds"]]
    return {
        "replays": len(rows) + len(others),
        "alarms": len(alarms),
        "which": alarms,
        "most_used_of_a_tolerance": max((row["used"] for row in rows), default=0.0),
        "others": {name: shown["holds"] for name, shown in others},
    }


def _one(draws: Any, loaded: Sequence[SealedContents], engines: Sequence[Path]) -> dict[str, Any]:
    """One honest replay."""
    test, engine = int(draws.integers(len(loaded))), engines[draws.integers(len(engines))]
    threads, batch = int(draws.choice((1, 2, 3, 4))), int(draws.choice((1, 2, 3, 5, 8)))
    exact = bool(draws.integers(2))
    with _other_resizer() if exact else contextlib.nullcontext():
        shown = sealed.replay(engine, loaded[test], threads=threads, batch=batch)
    resizer = "exact" if exact else "usual"
    how = f"test {test}, {engine.name}, {threads} threads, batch {batch}, {resizer} resizer"
    closest = shown.closest
    used = closest.used if closest else 0.0
    return {"how": how, "holds": shown.holds, "reason": shown.reason, "used": min(used, 1e9)}


@contextlib.contextmanager
def _other_resizer() -> Iterator[None]:
    """OpenCV's exact linear interpolation in the place of its fast one."""
    usual = cv2.resize

    def resize(image: Any, size: Any, *rest: Any, **options: Any) -> Any:
        if options.get("interpolation", cv2.INTER_LINEAR) == cv2.INTER_LINEAR:
            options["interpolation"] = cv2.INTER_LINEAR_EXACT
        return usual(image, size, *rest, **options)

    with mock.patch.object(cv2, "resize", resize):
        yield


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    ran = subprocess.run(
        list(words), env={**os.environ, **(environment or {})}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ""


def _replay_words(engine: Path, test: Path, threads: int) -> list[str]:
    words = [sys.executable, "-m", "benchmarks.sealed", "replays", "replay"]
    return [*words, str(engine), str(test), str(threads)]


def _other_runtimes(home: Path, precision: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Engines that another version has built and sealed, replayed by this one."""
    for folder in filter(None, os.environ.get("RUNTIMES", "").split(":")):
        place = home / precision / Path(folder).name
        if not (place / "test" / contents.TEST).exists():
            shutil.rmtree(place, ignore_errors=True)
            path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
            words = [sys.executable, "-m", "benchmarks.sealed", "replays", "build"]
            _run([*words, str(home), precision, str(place)], {"PYTHONPATH": path})
        for threads in (1, 2):
            shown = json.loads(_run(_replay_words(place / "engine", place / "test", threads)))
            yield f"built and sealed by {Path(folder).name}, {threads} threads", shown


def _other_cpus(home: Path, precision: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The engine on other instruction sets; its own kernels are chosen when it is opened."""
    qemu = os.environ.get("QEMU", "")
    if not qemu or precision != "fp32":
        return  # an integer engine asks for the instructions that its build had
    place = home / precision
    anywhere = place / "anywhere"
    if not (anywhere / "test" / contents.TEST).exists():
        shutil.rmtree(anywhere, ignore_errors=True)
        graph = home / f"{precision}.onnx"
        # Basic optimisation leaves a graph for any CPU, and the engine asks for none.
        engine = _sealed_engines.build(graph, anywhere / "engine", precision, "ENABLE_BASIC")
        with mock.patch.object(_sealed_engines, "PICTURES", FEW):
            _sealed_engines.seal(engine, graph, anywhere / "test")
    for cpu in CPUS:
        words = _replay_words(anywhere / "engine", anywhere / "test", 1)
        yield f"on {cpu}", json.loads(_run([qemu, "-cpu", cpu, *words]))
