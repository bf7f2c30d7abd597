"""A run is killed inside a stage that has begun, by its own log, and then run again.

    python -m benchmarks.faults.kills [KILLS]

Every kill is SIGKILL to the flow, some tenths of a second into the stage; the stages are taken in
turn, each time with other weights, so that the stage really runs. Recovered: the next run ends
well, its scores are those of plain PyTorch, and every artifact of the store is whole.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._bars import Bar, finish
from benchmarks.faults import _project as project
from engineworks.errors import ArtifactError
from engineworks.store import LocalStore


def kill(folder: Path, home: Path, stage: str, delay_s: float) -> str:
    """Run and kill; `killed`, or what came instead."""
    before = set(project.stage_logs(home, stage))

    def here() -> bool:
        fresh = set(project.stage_logs(home, stage)) - before
        return any(project.BEGUN in path.read_bytes() for path in fresh)

    came = []

    def watch(pid: int) -> None:
        if project.wait_for(here, pid):
            time.sleep(delay_s)
            came.append(1)
            os.kill(pid, signal.SIGKILL)

    ended = project.ship(folder, home, watch)
    if not came:
        return f"the stage did not begin: exit code {ended.code}, {ended.words[-300:]}"
    return "killed" if ended.code == -signal.SIGKILL else f"ended before: {ended.code}"


def damaged(home: Path) -> list[str]:
    """Artifacts of a store that are not whole."""
    store, found = LocalStore(home / "store"), []
    for folder in (home / "store").glob("??/*"):
        try:
            store.open(store.get(folder.name))
        except ArtifactError as error:
            found.append(error.message)
    return found


def one(folder: Path, home: Path, number: int, stage: str, dice: random.Random) -> dict[str, Any]:
    """One kill and what came of it."""
    files = project.inputs(100 + number, "kills")
    project.write(folder, files)
    word = kill(folder, home, stage, dice.uniform(0, 0.5))
    again = project.ship(folder, home)
    found = project.facts(again.summary) if again.summary else {}
    scores = (found.get("reference value"), found.get("fp32"), found.get("int8 reference"))
    good = word == "killed" and again.code == 0 and set(scores) == {project.top1(files)}
    harm = damaged(home)
    return {
        "stage": stage, "kill": word, "exit_code": again.code, "scores": scores, "damaged": harm,
        "recovered": good and not harm, "error": again.words[-600:] if again.code else "",
    }  # fmt: skip


def run(kills: int = 30) -> tuple[list[Bar], dict[str, Any]]:
    """Kill in every stage in turn."""
    dice = random.Random(11)  # noqa: S311 - no secret
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder, home = Path(work, "project"), Path(work, "home")
        for number in range(kills):
            stage = project.STAGES[number % len(project.STAGES)]
            rows.append(one(folder, home, number, stage, dice))
            print(f"{number + 1:>2} {rows[-1]}", flush=True)
    recovered = sum(row["recovered"] for row in rows)
    bar = Bar(f"kills inside stages recovered, of {kills}", recovered, "", kills, at_least=True)
    return [bar], {"kills": rows}


if __name__ == "__main__":
    raise SystemExit(finish("faults_kills", *run(*map(int, sys.argv[1:2]))))
