"""`make bench-faults [PARTS="signals kills"]`: every part in a process of its own, then all bars.

A part is a module of this folder that prints lines `bar: ...` (`benchmarks/_bars.py`). One that
ends without any has failed, and is said. Parts may be run one by one, on any day: `faults.json`
holds the last bars of each, with what they were measured on.
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
    r"bar: (?P<name>\S+) (?P<value>\S+) (?P<unit>[^(]*?) ?\((?P<rule>[<>]=) (?P<limit>\S+)\) "
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


def keep(rows: list[dict[str, Any]]) -> None:
    """Put the parts that were run in the place of their earlier bars."""
    path = Path(__file__).parents[1] / "faults.json"
    known = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.exists() else []
    fresh = [{**row, "environment": environment.record()} for row in rows]
    by_name = {row["part"]: row for row in (*known, *fresh) if row["part"] in parts()}
    record = {"parts": [by_name[name] for name in sorted(by_name)]}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


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
    keep(rows)
    return int(bool(dead) or any(bar["state"] != "ok" for row in rows for bar in row["bars"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
