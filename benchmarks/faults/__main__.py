"""`make bench-faults [PARTS="signals kills"]`: every part in a process of its own, then all bars.

A part is a module of this folder that prints lines `bar: ...` (`benchmarks/_bars.py`). One that
ends without any has failed, and is said.
"""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import faults
from engineworks.bench import environment

BAR = re.compile(
    r"bar: (?P<name>\S+) (?P<value>\S+) (?P<unit>\S*) ?\((?P<rule>[<>]=) (?P<limit>\S+)\) "
    r"(?P<state>ok|short)"
)


def parts() -> list[str]:
    """Names of all parts: the modules of this folder."""
    return [m.name for m in pkgutil.iter_modules(faults.__path__) if not m.name.startswith("_")]


def run(name: str) -> tuple[list[dict[str, str]], float, int]:
    """One part's bars, its seconds and its exit code; what it prints is shown as it comes."""
    print(f"=== {name}", flush=True)
    started, bars = time.monotonic(), []
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.faults.{name}"], stdout=subprocess.PIPE, text=True
    ) as part:
        assert part.stdout is not None  # noqa: S101 - it is a pipe
        for line in part.stdout:
            print(line, end="", flush=True)
            found = BAR.match(line)
            if found:
                bars.append(found.groupdict())
    return bars, time.monotonic() - started, part.returncode


def main(names: list[str]) -> int:
    """Run the parts named, else all; 0 only if every part printed bars and all of them hold."""
    unknown = set(names) - set(parts())
    if unknown:
        print(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(parts())}")
        return 2
    rows: list[dict[str, Any]] = []
    lines, dead = [], []
    for name in names or parts():
        bars, elapsed_s, code = run(name)
        held = sum(bar["state"] == "ok" for bar in bars)
        rows.append(
            {"part": name, "elapsed_s": round(elapsed_s, 1), "exit_code": code, "bars": bars}
        )
        lines.append(f"{name:<18} {elapsed_s:7.0f} s   {held} of {len(bars)} bars hold")
        if not bars:
            dead.append(name)
    print("=== all parts", *lines, sep="\n")
    for row in rows:
        for bar in row["bars"]:
            print("bar: {name} {value} {unit} ({rule} {limit}) {state}".format(**bar))
    for name in dead:
        print(f"{name} ended without a bar: python -m benchmarks.faults.{name}")
    record = {"parts": rows, "environment": environment.record()}
    if not names:
        path = Path(__file__).parents[1] / "faults.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(bool(dead) or any(bar["state"] != "ok" for row in rows for bar in row["bars"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
