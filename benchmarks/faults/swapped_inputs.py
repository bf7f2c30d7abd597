"""Inputs are replaced while a stage runs: nothing computed from them may be kept.

    python -m benchmarks.faults.swapped_inputs [in-turn] [STAGE ...]

Weights, code, photos, calibration photos, their list and the recipe are replaced at once, by files
of equal size. Three ways: replaced for good; the same with their times kept; replaced at a random
moment of the stage and put back a moment later. `in-turn`: one of the three at each stage.

A run may end well, with what the files were at its beginning, or refuse and name a file. Then the
first files come back, and the same home ships again: cache, registry and MLflow must hold what they
were first, and nothing else.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._bars import Bar, finish
from benchmarks.faults import _project as project

WAYS = ("for good", "times kept", "put back")
#: Their scores differ, and so do those of every mixture.
FIRST, OTHER = 1, 18

#: Runs in the flow's own process, after the last stage that has one of its own.
LOG = "log"


def here(home: Path, stage: str) -> bool:
    """Whether a stage of the only run has begun."""
    if stage == LOG:
        return any((home / "runs").glob("2*/logs/compare/result.json"))
    return bool(project.stage_logs(home, stage))


def swap(folder: Path, way: str, dice: random.Random) -> None:
    """Replace every input."""
    if way == "put back":
        time.sleep(dice.uniform(0, 1.5))
    project.write(folder, project.inputs(OTHER), keep_times=way != "for good")
    if way == "put back":
        time.sleep(dice.uniform(0, 0.5))
        project.write(folder, project.inputs(FIRST), keep_times=True)


def judge(ended: project.Ended, truth: dict[str, Any]) -> str:
    """What is wrong with how a disturbed run ended; empty where nothing is."""
    if ended.summary is None:
        named = "changed while the run went on" in ended.words
        return "" if named else f"exit code {ended.code}: {ended.words[-400:]}"
    return differs(project.facts(ended.summary), truth)


def differs(found: dict[str, Any], truth: dict[str, Any]) -> str:
    """The facts that are not those of the first files."""
    wrong = [
        f"{key} {found[key]} for {value}" for key, value in truth.items() if found[key] != value
    ]
    return "; ".join(wrong)


def registered(home: Path, truth: dict[str, Any]) -> str:
    """What MLflow holds that is not of the first files."""
    recipe = project.inputs(FIRST)["recipe.yaml"]
    if any(path.read_bytes() != recipe for path in (home / "mlruns").rglob("recipe.yaml")):
        return "MLflow's recipe.yaml is not the one that ran"
    with sqlite3.connect(home / "mlflow.db") as database:
        rows = database.execute(
            "select a.value from model_version_tags a join model_version_tags b "
            "on a.name = b.name and a.version = b.version "
            "where a.key = 'top1' and b.key = 'variant' and b.value = 'onnxruntime-cpu/fp32'"
        ).fetchall()
    wrong = [value for (value,) in rows if value != f"{truth['fp32']:.4f}"]
    return f"registered top1 {wrong} for {truth['fp32']:.4f}" if wrong else ""


def one(stage: str, way: str, truth: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """One swap and what came of it."""
    with tempfile.TemporaryDirectory() as work:
        folder, home = Path(work, "project"), Path(work, "home")
        project.write(folder, project.inputs(FIRST))
        came = []

        def watch(pid: int) -> None:
            if project.wait_for(lambda: here(home, stage), pid):
                came.append(1)
                swap(folder, way, dice)

        first = project.ship(folder, home, watch)
        wrong = judge(first, truth) if came else "the stage was not seen"
        project.write(folder, project.inputs(FIRST))
        again = project.ship(folder, home)
        if again.summary is None:
            wrong = wrong or f"then: exit code {again.code}: {again.words[-400:]}"
        else:
            wrong = wrong or differs(project.facts(again.summary), truth)
            wrong = wrong or registered(home, truth)
        return {"stage": stage, "way": way, "refused": first.summary is None, "wrong": wrong}


def run(stages: tuple[str, ...] = (), *, in_turn: bool = False) -> tuple[list[Bar], dict[str, Any]]:
    """Swap at every stage in every way, or in one."""
    dice = random.Random(5)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory() as work:
        project.write(Path(work, "project"), project.inputs(FIRST))
        undisturbed = project.ship(Path(work, "project"), Path(work, "home"))
        if undisturbed.summary is None:
            raise SystemExit(undisturbed.words)
        truth = project.facts(undisturbed.summary)
        if truth["fp32"] != project.top1(project.inputs(FIRST)):
            raise SystemExit(f"top1 {truth['fp32']} is not what plain PyTorch finds")
    rows = []
    for number, stage in enumerate(stages or (*project.STAGES, LOG)):
        for way in (WAYS[number % len(WAYS)],) if in_turn else WAYS:
            rows.append(one(stage, way, truth, dice))
            print(rows[-1], flush=True)
    wrong = sum(bool(row["wrong"]) for row in rows)
    return [Bar(f"swaps with wrong values or words, of {len(rows)}", wrong, "", 0)], {"swaps": rows}


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "in-turn"]
    found = run(tuple(given), in_turn="in-turn" in sys.argv)
    raise SystemExit(finish("faults_swapped_inputs", *found))
