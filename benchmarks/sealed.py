"""`make bench-sealed`: does a sealed test find an engine that has lost a point, and only such?

YOLOX-Nano, in fp32 and in integers, is spoiled in MUTATIONS ways (500) that were drawn before
anything was measured: one layer scaled, channels zeroed, bits of exponents flipped, classes that
changed places, other preprocessing; every digest is right again. What that does to AP is measured
on all labelled photos, apart from the sealed test, which holds other photos. Harmful is what loses
a point of AP. Then the engine itself is replayed HONEST times (500) in ways that must not matter.

What is found is kept in SEALED_HOME, and a second call goes on from there. RUNTIMES=FOLDER[:FOLDER]
are further versions of ONNX Runtime (`pip install --no-deps --target FOLDER onnxruntime==...`) that
engines are built and sealed with; QEMU=PROGRAM (qemu-x86_64) replays on other instruction sets.
PRECISIONS=fp32 leaves the other out; MUTATIONS_INT8 and HONEST_INT8 are its own numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import _mutations, _sealed_engines, _sealed_honest
from benchmarks._bars import Bar, finish
from benchmarks._mutations import Mutation
from benchmarks._sealed_engines import HARMFUL

#: Loss of AP up to which a harmful mutation is hard to see: three points.
MILD = 0.03

PRECISIONS = tuple(os.environ.get("PRECISIONS", "fp32,int8").split(","))

_SHOPS: dict[str, _sealed_engines.Workshop] = {}


def main() -> int:
    """Spoil, score, replay; print bars. 0 only if all hold."""
    if sys.argv[1:2] == ["replays"]:
        return _sealed_honest.child(sys.argv[2:])
    kept = os.environ.get("SEALED_HOME", "")
    with tempfile.TemporaryDirectory() as work:
        home = Path(kept or work)
        home.mkdir(parents=True, exist_ok=True)
        bars: list[Bar] = []
        details: dict[str, Any] = {}
        made = _prepared(home)
        for precision in PRECISIONS:
            count, replays = _asked("MUTATIONS", precision), _asked("HONEST", precision)
            rows = _spoil(home, precision, count, made[precision]["ap"])
            honest = _sealed_honest.measure(home, precision, replays)
            details[precision] = _facts(rows, made[precision], honest)
            print(precision, json.dumps(details[precision], indent=1), file=sys.stderr)
            bars += _bars(precision, details[precision], count, replays)
    return finish("sealed", bars, details)


def _asked(what: str, precision: str) -> int:
    """A number from the environment, for one precision or for all."""
    return int(os.environ.get(f"{what}_{precision.upper()}") or os.environ.get(what) or 500)


def _prepared(home: Path) -> dict[str, dict[str, float]]:
    """Graphs, engines and tests, by precision; AP of the engine as it is."""
    path = home / "made.json"
    if path.exists():
        found: dict[str, dict[str, float]] = json.loads(path.read_text())
        return found
    # In a process of its own: torch and the sessions of this one would stay in memory.
    words = [sys.executable, "-m", "benchmarks.sealed", "replays", "prepare", str(home)]
    subprocess.run(words, check=True)
    return _prepared(home)


def _open(home: str, precision: str, ap: float) -> None:
    """What a process of the pool begins with."""
    place = Path(home)
    _SHOPS[precision] = _sealed_engines.Workshop(
        place / f"{precision}.onnx", place / precision / "engine", place / precision / "test",
        precision, ap,
    )  # fmt: skip


def _one(work: tuple[str, Mutation]) -> dict[str, Any]:
    precision, mutation = work
    return _SHOPS[precision].run(mutation)


def _spoil(home: Path, precision: str, count: int, ap: float) -> list[dict[str, Any]]:
    """Every mutation's row; what an earlier call has measured is taken."""
    path = home / f"{precision}.jsonl"
    known = {row["number"]: row for row in _rows(path)}
    wanted = _mutations.draw(count)
    left = [(precision, mutation) for mutation in wanted if mutation.number not in known]
    if left:
        pool = ProcessPoolExecutor(
            2, get_context("spawn"), initializer=_open, initargs=(str(home), precision, ap)
        )
        with pool, path.open("a", encoding="utf-8") as stream:
            for row in pool.map(_one, left):
                known[row["number"]] = row
                stream.write(json.dumps(row) + "\n")
                stream.flush()
    return [known[mutation.number] for mutation in wanted]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _facts(
    rows: list[dict[str, Any]], made: dict[str, float], honest: dict[str, Any]
) -> dict[str, Any]:
    """What the rows say."""
    ap = made["ap"]
    harmful = [row for row in rows if ap - row["ap"] >= HARMFUL]
    missed = [row for row in harmful if row["holds"]]
    mild = [row for row in harmful if ap - row["ap"] <= MILD]
    harmless = [row for row in rows if ap - row["ap"] < HARMFUL and "holds" in row]
    alone: dict[str, int] = {}
    for row in harmful:
        if len(row["found_by"]) == 1:
            alone[row["found_by"][0]] = alone.get(row["found_by"][0], 0) + 1
    return {
        **made,
        "mutations": len(rows),
        "harmful": len(harmful),
        "harmful_by_1_to_3_points": len(mild),
        "found": len(harmful) - len(missed),
        "found_of_1_to_3_points": sum(not row["holds"] for row in mild),
        "missed": missed,
        "harmless_replayed": len(harmless),
        "harmless_found": sum(not row["holds"] for row in harmless),
        "found_by_one_statistic_alone": alone,
        "by_kind": {
            kind: {
                "drawn": sum(row["kind"] == kind for row in rows),
                "harmful": sum(row["kind"] == kind for row in harmful),
                "missed": sum(row["kind"] == kind for row in missed),
            }
            for kind in _mutations.SHARES
        },
        "honest": honest,
    }


def _bars(precision: str, facts: dict[str, Any], count: int, replays: int) -> list[Bar]:
    share = 100 * facts["found"] / max(1, facts["harmful"])
    whole = count >= 500
    bars = [
        Bar(f"{precision} harmful mutations found", share, "%", 99.0, at_least=True),
        Bar(
            f"{precision} false alarms of {facts['honest']['replays']} honest replays",
            facts["honest"]["alarms"], "replays", 0,
        ),
        Bar(f"{precision} replay", facts["replay_s"], "s", 10.0),
    ]  # fmt: skip
    if whole:
        bars.append(
            Bar(
                f"{precision} harmful by 1 to 3 points", facts["harmful_by_1_to_3_points"],
                "mutations", 100, at_least=True,
            )
        )  # fmt: skip
    if replays >= 500:
        bars.append(
            Bar(f"{precision} honest replays", facts["honest"]["replays"], "replays", 500, True)
        )
    return bars


if __name__ == "__main__":
    raise SystemExit(main())
