"""Ctrl-C and SIGTERM at random moments of every command: none lost, no lie, no trace.

    python -m benchmarks.faults.signals [TRIES] [COMMAND ...]

Half of the moments lie in the first third of a second, half in the whole time that the command
takes to start (up to 6 s). Right are 130 or 143 with one word, or the command's own end when it
ended within a second. A signal that comes before the first line of the project is run belongs to
Python: it is killed by it in silence, or shows a trace that names no file of the project; those are
counted apart.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._bars import Bar, finish

TOP = Path(__file__).resolve().parents[2]

#: Seconds in which a process must be gone after a signal.
PATIENCE_S = 20.0

#: What may become of a signal: the word, the end that Python or the system makes before the
#: project's first line, or the command's own end, which came first.
FINE = ("right", "before python", "python's trace", "over")


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a process ended after a signal."""

    code: int
    out: str
    err: str
    took_s: float
    """From the signal on."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, and how it ends when nobody interrupts it."""

    name: str
    words: tuple[str, ...]
    codes: tuple[int, ...]
    """Exit codes of its own; none for one that goes on for long."""
    within_s: float = 2.0
    """An end of its own comes so soon after the signal; a server opens its engines first."""


def interrupt(words: Sequence[str], at_s: float, number: int, environment: dict[str, str]) -> Told:
    """Start a process, send it a signal after so many seconds, see how it ends."""
    process = subprocess.Popen(
        words,
        cwd=TOP,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        time.sleep(at_s)
        asked = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        return Told(code=process.returncode, out=out, err=err, took_s=time.monotonic() - asked)
    except subprocess.TimeoutExpired:
        return Told(code=0, out="", err="still at work", took_s=PATIENCE_S)
    finally:
        # The process's own group, with whatever it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def judge(told: Told, number: int, codes: Sequence[int], within_s: float = 2.0) -> str:
    """One of `FINE`, or what is wrong."""
    trace = "Traceback" in told.err or "Fatal Python error" in told.err
    ours = f"{TOP}{os.sep}" in told.err or "site-packages" in told.err
    # `site` runs what other packages have put into .pth files, before any program.
    if trace and ("<frozen site>" in told.err or not ours):
        return "python's trace"
    if trace:
        return "a trace"
    if told.code == -number and not told.err:
        return "before python"
    if told.code == 128 + number and told.err.endswith("stopped\n"):
        return "right"
    if told.code == 128 + number and "stopped." in told.err:  # once a flow has begun
        return "right"
    if told.code in codes and told.took_s < within_s:
        return "over"
    return f"exit code {told.code} after {told.took_s:.1f} s"


def commands(engine: Path, photo: Path, home: Path) -> list[Command]:
    """Every command, each with something to do."""
    recipe = TOP / "examples" / "yolox_nano" / "recipe.yaml"
    clip = recipe.with_name("clip.mp4")
    library = (sys.executable, "-m", "engineworks.cli")
    flows = (sys.executable, "-m")
    one, state = str(engine), ("--home", str(home))
    return [
        Command(name="detect", words=(*library, "detect", one, *[str(photo)] * 3000), codes=()),
        Command(
            name="video",
            words=(*library, "video", one, str(photo.parent), "--jsonl", "-"),
            codes=(0,),
        ),
        Command(
            name="videos",
            words=(*library, "videos", one, str(clip), "-o", str(home / "out"), "--overwrite"),
            codes=(0,),
        ),
        Command(
            name="run",
            words=(*library, "run", one, *[str(photo)] * 3000, "-o", str(home / "out")),
            codes=(),
        ),
        # A server that is asked to end has done what it was asked to.
        Command(
            name="serve", words=(*library, "serve", one, "--port", "0"), codes=(0,), within_s=15.0
        ),
        Command(name="verify", words=(*library, "verify", one), codes=(0,)),
        Command(name="bench", words=(*library, "bench", one, "--seconds", "30"), codes=()),
        Command(name="inspect", words=(*library, "inspect", one), codes=(0,)),
        Command(name="targets", words=(*library, "targets"), codes=(0,)),
        Command(name="host", words=(*library, "host", "--json"), codes=(0,)),
        Command(name="schema", words=(*library, "schema"), codes=(0,)),
        Command(name="ship", words=(*flows, "flows.ship", str(recipe), *state), codes=()),
        Command(
            name="ship-dry",
            words=(*flows, "flows.ship", str(recipe), "--dry-run", *state),
            codes=(0,),
        ),
        Command(name="complete", words=(*flows, "flows.complete", *state), codes=(3,)),
        Command(name="benchmark", words=(*flows, "flows.benchmark", *state), codes=(0,)),
        Command(name="prune", words=(*flows, "flows.prune", *state), codes=(0,)),
        Command(name="promote", words=(*flows, "flows.promote", "tiny", *state), codes=(3,)),
        Command(name="rollback", words=(*flows, "flows.rollback", "tiny", *state), codes=(3,)),
        Command(name="history", words=(*flows, "flows.history", "tiny", *state), codes=(3,)),
        Command(
            name="agent",
            words=(*library, "agent", "--once", "--home", str(home / "agent")),
            codes=(2,),
        ),
        Command(name="deliver", words=(*library, "deliver", "status", str(home)), codes=(2,)),
        Command(name="prove", words=(*library, "prove", str(home)), codes=(2,)),
        Command(name="hosts", words=(*flows, "flows.hosts"), codes=(3,)),
        Command(name="worker", words=(*flows, "flows.worker", "--pool", "cpu", *state), codes=(3,)),
    ]


def run(
    tries: int = 200, names: Sequence[str] = ()
) -> tuple[list[Bar], dict[str, dict[str, dict[str, int]]]]:
    """Interrupt every command so many times."""
    from engineworks.store import LocalStore
    from tests import builders

    chance = random.Random(7)  # noqa: S311 - moments, no secrets
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        onnx = builders.export_yolox(place / "yolox.onnx")
        engine = Path(builders.put_engine(LocalStore(place / "store"), onnx).uri)
        for number, command in enumerate(commands(engine, builders.photos()[0], place / "home")):
            if names and command.name not in names:
                continue
            environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
            environment.pop("ENGINEWORKS_STORE", None)
            found[command.name] = _try(command, tries, chance, environment)
            print(f"{number + 1:>2} {command.name:<10} {dict(found[command.name])}", flush=True)
    wrong = sum(n for counts in found.values() for word, n in counts.items() if word not in FINE)
    total = sum(counts.total() for counts in found.values())
    details = {"signals": {name: dict(counts) for name, counts in found.items()}}
    return [Bar(f"signals lost, told wrongly or with a trace, of {total}", wrong, "", 0)], details


def _try(command: Command, tries: int, chance: random.Random, env: dict[str, str]) -> Counter[str]:
    begun = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command.words, cwd=TOP, env=env, capture_output=True, timeout=6)
    start_s = time.monotonic() - begun
    counts: Counter[str] = Counter()
    for number in range(tries):
        at_s = chance.random() * (1 / 3 if number % 2 else start_s)
        kind = (signal.SIGINT, signal.SIGTERM)[number % 4 == 3]
        told = interrupt(command.words, at_s, kind, env)
        verdict = judge(told, kind, command.codes, command.within_s)
        counts[verdict] += 1
        if verdict not in FINE:
            print(f"{command.name} at {at_s:.3f} s: {verdict}\n{told.err[-4000:]}", flush=True)
    return counts


if __name__ == "__main__":
    # In the background of a script Ctrl-C is ignored, by all that is started there, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = sys.argv[1:]
    bars, details = run(int(given[0]) if given else 200, given[1:])
    raise SystemExit(finish("faults_signals", bars, details))
