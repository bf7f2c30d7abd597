"""Faults of a stack, one function each: it makes the fault and says `ok` or what went wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from artifacts.store import s3
from infra.stack import TOP, Stack

AWAY_S = 60


def _begin(stack: Stack, recipe: Path, planner: str = "planner") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.ship", str(recipe), "--fleet", "--quiet", "--json"],
        cwd=TOP, env=stack.command_environment(planner), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _end(run: subprocess.Popen[str], code: int = 0) -> tuple[str, dict[str, dict[str, object]]]:
    """`ok` or what went wrong, and the rows."""
    out, err = run.communicate(timeout=900)
    rows = {v["name"]: v for v in json.loads(out)["variants"]} if out else {}
    if run.returncode != code:
        reasons = [f"{name} {row['verdict']}: {row['reason']}" for name, row in rows.items()]
        return f"exit code {run.returncode}: {'; '.join(reasons)} {err[-3000:]}", rows
    return "ok", rows


def _wait_for_a_child(stack: Stack, run: subprocess.Popen[str]) -> None:
    while run.poll() is None and not list((stack.folder / "machines").glob("*/running/*")):
        time.sleep(0.05)


def _server_away(name: str) -> Callable[[Stack, Path], str]:
    def fault(stack: Stack, recipe: Path) -> str:
        run = _begin(stack, recipe)
        _wait_for_a_child(stack, run)
        stack.kill(name)
        time.sleep(AWAY_S)
        stack.restart_server(name)
        return _end(run)[0]

    return fault


def damaged(stack: Stack, recipe: Path) -> str:
    """A byte of an engine changes in the bucket; a planner with an empty disk ships again."""
    word, rows = _end(_begin(stack, recipe))
    if word != "ok":
        return word
    os.environ.update(stack.environment)
    bucket = s3.Bucket(s3.parse(stack.environment["ENGINEWORKS_STORE"]))
    engine = rows["onnxruntime-cpu/fp32"]["engine"]["sha256"]  # type: ignore[index]
    manifest = bucket.read(f"artifacts/{engine}.json")
    assert manifest is not None  # noqa: S101 - it was shipped
    sha256 = json.loads(manifest.data)["files"][0]["sha256"]
    key = f"blobs/{sha256[:2]}/{sha256}"
    right = bucket.read(key)
    assert right is not None  # noqa: S101
    bucket.write(key, right.data[:-1] + bytes([right.data[-1] ^ 1]), only_new=False)
    word, _ = _end(_begin(stack, recipe, "planner-with-empty-disk"))
    mended = bucket.read(key)
    if word == "ok" and (mended is None or mended.data != right.data):
        return "the damaged bytes are still there"
    return word


def two_at_once(stack: Stack, recipe: Path) -> str:
    """Two planners ship one recipe at the same time: every engine is built once."""
    before = _builds(stack)
    runs = [_begin(stack, recipe, f"planner-{n}") for n in range(2)]
    words = {_end(run)[0] for run in runs}
    built = _builds(stack) - before
    return "ok" if words == {"ok"} and built == 3 else f"{words}, {built} builds of 3 engines"


def _builds(stack: Stack) -> int:
    return len(list((stack.folder / "machines").glob("*/runs/*/logs/build_*/result.json")))


def clock_behind(stack: Stack, recipe: Path) -> str:
    """The clock of a machine is ten minutes behind."""
    if shutil.which("faketime") is None:
        return "not tried: needs faketime"
    stack.kill("worker-gpu")
    stack.start_worker("gpu", ("faketime", "-f", "-600s"))
    try:
        return _end(_begin(stack, recipe))[0]
    finally:
        stack.kill("worker-gpu")
        stack.start_worker("gpu")


def full_disk(stack: Stack, recipe: Path) -> str:
    """The disk of a machine is nearly full: its variant waits, the others ship."""
    home = stack.home_of("mac")
    home.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "not tried: mounting a tmpfs needs privileges"
    try:
        stack.start_worker("mac")
        stack.wait_for_workers(("mac",))
        recipe.write_text(recipe.read_text().replace("pool: gpu", "pool: mac"))
        word, rows = _end(_begin(stack, recipe), code=4)
        if word != "ok":
            return word
        reason = str(rows["openvino/fp32"]["reason"])
        good = rows["onnxruntime-cpu/fp32"]["verdict"] == "shipped" and "disk" in reason
        return "ok" if good else f"unexpected: {reason}"
    finally:
        stack.kill("worker-mac")
        subprocess.run(["umount", str(home)], check=False)


ALL: dict[str, Callable[[Stack, Path], str]] = {
    "two-at-once": two_at_once,
    "damaged": damaged,
    "clock-behind": clock_behind,
    "full-disk": full_disk,
    "prefect-away": _server_away("prefect"),
    "s3-away": _server_away("s3"),
}
