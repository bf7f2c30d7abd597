"""Hostile inputs by the real commands: nothing falls, nothing hangs, good neighbours are processed.

    python -m benchmarks.faults.hostile_inputs

Pictures and videos lie in folders beside good ones, as people have them. Every command is a process
of its own, whose memory the kernel tells while it lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bars import Bar, finish
from benchmarks.faults import _hostile
from engineworks import hosts
from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore
from tests import builders, oracle
from tests.clips import write_clip

SEED = 14
LIMIT_S, MOST_MIB = 20.0, 1024.0
IN_A_FOLDER = 10


@dataclass
class Tally:
    """What came of one kind of input."""

    tried: int = 0
    commands: int = 0
    traces: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    largest_mib: float = 0.0
    longest_s: float = 0.0

    def run(self, name: str, command: Sequence[str], cwd: Path) -> str:
        """Run a command; what it wrote to standard output."""
        begun = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            running = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=cwd,
                env={**os.environ, "ENGINEWORKS_HOME": str(cwd / "home"),
                     "PYTHONPATH": os.pathsep.join([str(Path.cwd() / "src"), str(Path.cwd())])},
            )  # fmt: skip
            usage = _ended(running, 3 * LIMIT_S * _busy())
            elapsed_s = time.monotonic() - begun
            out.seek(0)
            err.seek(0)
            told, words = out.read().decode(errors="replace"), err.read().decode(errors="replace")
        self.commands += 1
        mib = usage / 1024
        self.largest_mib = max(self.largest_mib, mib)
        self.longest_s = max(self.longest_s, elapsed_s)
        if "Traceback (most recent call last)" in told + words or running.returncode < 0:
            self.traces.append(f"{name}: {words[-1500:]}")
        if mib > MOST_MIB:
            self.large.append(f"{name}: {mib:.0f} MiB")
        if elapsed_s > LIMIT_S * _busy():
            self.late.append(f"{name}: {elapsed_s:.1f} s")
        return told

    def bars(self, kind: str, least: int) -> list[Bar]:
        """The bars of this kind."""
        return [
            Bar(f"hostile {kind} tried", self.tried, "", least, at_least=True),
            Bar(f"{kind} that end in a trace", len(self.traces), "", 0),
            Bar(f"{kind} over 1 GiB", len(self.large), "", 0),
            Bar(f"{kind} without an answer in 20 s", len(self.late), "", 0),
            Bar(f"{kind} unanswered, or good neighbours lost", len(self.lost), "", 0),
        ]


def _busy() -> float:
    """How many programs share a core of this machine now, at least 1: so much longer all takes."""
    return max(1.0, os.getloadavg()[0] / hosts.cores())


def _ended(running: subprocess.Popen[bytes], limit_s: float) -> int:
    """Wait for a process, kill it at the limit; its largest resident memory in KiB.

    Asked while it lives: what the kernel tells at the end counts this process's own memory, too,
    which a child has for a moment.
    """
    deadline, largest = time.monotonic() + limit_s, 0
    while running.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{running.pid}/status").read_text(encoding="utf-8")
            largest = max(largest, int(status.split("VmHWM:")[1].split()[0]))
        if time.monotonic() > deadline:
            running.kill()
        time.sleep(0.01)
    return largest


def _engine(folder: Path) -> Path:
    task = TaskSpec(kind="detection", layout="end2end", labels=oracle.LABELS, confidence=0.1)
    artifact = builders.put_engine(
        LocalStore(folder / "store"), oracle.export(folder / "oracle.onnx"), name="oracle",
        preprocess=Preprocess(resize="letterbox"), task=task,
    )  # fmt: skip
    return Path(artifact.uri)


def _command(*words: Any) -> list[str]:
    return [sys.executable, "-m", "engineworks.cli", *map(str, words)]


def _folders(
    work: Path, files: Iterable[Path], good: Callable[[Path], list[Path]]
) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Folders of ten hostile files beside good ones: (folder, hostile, good)."""
    hostile = list(files)
    for first in range(0, len(hostile), IN_A_FOLDER):
        folder = work / f"folder{first}"
        folder.mkdir()
        part = [path.rename(folder / path.name) for path in hostile[first : first + IN_A_FOLDER]]
        yield folder, part, good(folder)


def pictures(engine: Path, work: Path, dice: random.Random) -> Tally:
    """`detect` over folders of pictures."""
    tally, made = Tally(), work / "made"
    made.mkdir(parents=True)

    def good(folder: Path) -> list[Path]:
        paths = [folder / f"{name}.png" for name in ("aaa", "good", "zzz")]
        for number, path in enumerate(paths):
            path.write_bytes(_hostile.saved(_hostile.good_picture(number), "PNG"))
        return paths

    for folder, hostile, fine in _folders(work, _hostile.pictures(made, dice), good):
        told = tally.run(
            folder.name, _command("detect", engine, folder, "--json", "-o", work / "out"), work
        )
        tally.tried += len(hostile)
        answers = {line["image"]: line for line in map(json.loads, told.splitlines())}
        tally.lost += [str(path) for path in hostile if str(path) not in answers]
        for path in fine:
            found = answers.get(str(path), {}).get("detections", [])
            if [item["label"] for item in found] != ["red"]:
                tally.lost.append(f"good {path}")
    return tally


def videos(engine: Path, work: Path, dice: random.Random) -> Tally:
    """`videos` over folders of videos."""
    tally, made = Tally(), work / "made"
    made.mkdir(parents=True)
    frames = [np.full((96, 128, 3), 255, np.uint8)] * 25

    def good(folder: Path) -> list[Path]:
        return [write_clip(folder / f"{name}.mp4", frames) for name in ("aaa", "zzz")]

    for folder, hostile, fine in _folders(work, _hostile.videos(made, dice), good):
        command = _command("videos", engine, folder, "-o", work / f"out-{folder.name}", "--json")
        told = tally.run(folder.name, command, work)
        tally.tried += len(hostile)
        try:
            reports = {report["name"]: report for report in json.loads(told)["videos"]}
        except (ValueError, KeyError):
            reports = {}
        tally.lost += [path.name for path in hostile if path.name not in reports]
        for path in fine:
            report = reports.get(path.name, {})
            if (report.get("outcome"), report.get("frames")) != ("whole", 25):
                tally.lost.append(f"good {path}")
    return tally


def recipes_and_manifests(engine: Path, work: Path) -> Tally:
    """`flows.ship` of recipes, `inspect` and `detect` of engines, one by one."""
    tally = Tally()
    (work / "recipes").mkdir(parents=True)
    (work / "engines").mkdir()
    picture = work / "good.png"
    picture.write_bytes(_hostile.saved(_hostile.good_picture(0), "PNG"))
    for path in _hostile.recipes(work / "recipes"):
        tally.run(path.name, [sys.executable, "-m", "flows.ship", str(path)], work)
        tally.tried += 1
    for folder in _hostile.manifests(engine, work / "engines"):
        tally.run(f"inspect {folder.name}", _command("inspect", folder), work)
        tally.run(f"detect {folder.name}", _command("detect", folder, picture), work)
        tally.tried += 1
    told = tally.run("good", _command("detect", engine, picture, "--json"), work)
    if [item["label"] for item in json.loads(told)["detections"]] != ["red"]:
        tally.lost.append("the good engine")
    return tally


def run() -> tuple[list[Bar], dict[str, Any]]:
    """All bars, and what lies behind them."""
    dice = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        engine = _engine(work)
        done = {
            "pictures": (pictures(engine, work / "pictures", dice), 60),
            "videos": (videos(engine, work / "videos", dice), 70),
            "recipes and manifests": (recipes_and_manifests(engine, work / "texts"), 30),
        }
    bars = [bar for kind, (tally, least) in done.items() for bar in tally.bars(kind, least)]
    details = {kind: vars(tally) for kind, (tally, _) in done.items()}
    for kind, (tally, _) in done.items():
        print(f"{kind}: {tally.commands} commands, at most {tally.longest_s:.1f} s and "
              f"{tally.largest_mib:.0f} MiB")  # fmt: skip
        for line in (*tally.traces, *tally.large, *tally.late, *tally.lost):
            print(f"  {line}")
    return bars, details


if __name__ == "__main__":
    raise SystemExit(finish("faults_hostile_inputs", *run()))
