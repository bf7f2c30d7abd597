"""`make chaos`: workers are killed at random moments of runs over a real stack, ROUNDS times.

First every fault of `_faults` is tried: servers that go away, damaged bytes, two runs at once, a
wrong clock, a full disk. Then each round ships another model to two machines and kills one of
their workers with everything it started (SIGKILL), some seconds after it has begun. The worker is
started again, as systemd would do. At the end every artifact is fetched and verified by a machine
that has none of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from artifacts.store import s3
from artifacts.store.remote import RemoteStore
from benchmarks import _faults
from benchmarks._bars import Bar, finish
from engineworks.errors import ArtifactError
from infra.stack import TOP, Stack

POOLS = ("cpu", "gpu")

MODEL = """
import torch


def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(16, 4),
    )
"""

RECIPE = """
name: chaos
model:
  source: model:build
  weights: weights.pt
  input: {size: [32, 32]}
export: {exporters: [legacy], simplify: false}
targets:
  - {target: onnxruntime-cpu, pool: cpu}
  - {target: openvino, precisions: [fp32, fp16], pool: gpu}
benchmark: {seconds: 0.5}
"""


def prepare(folder: Path, number: int) -> Path:
    """A recipe with weights of its own, so that nothing of it is in any cache."""
    import torch

    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    scope: dict[str, object] = {}
    exec(MODEL, scope)  # noqa: S102 - our own text above
    torch.manual_seed(number)
    torch.save(scope["build"]().state_dict(), folder / "weights.pt")  # type: ignore[operator]
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def one_round(stack: Stack, recipe: Path, dice: random.Random) -> dict[str, object]:
    """Ship, kill, start again; what came of it."""
    command = [sys.executable, "-m", "flows.ship", str(recipe), "--fleet", "--quiet", "--json"]
    begun = time.monotonic()
    run = subprocess.Popen(
        command, cwd=TOP, env=stack.command_environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pool = dice.choice(POOLS)
    running = stack.home_of(pool) / "running"
    while run.poll() is None and not (running.is_dir() and any(running.iterdir())):
        time.sleep(0.05)
    delay_s = dice.uniform(0, 7)
    time.sleep(delay_s)
    doing = sorted(path.name for path in running.iterdir()) if running.is_dir() else []
    killed = stack.kill(f"worker-{pool}")
    time.sleep(dice.uniform(0, 3))
    stack.start_worker(pool)
    out, err = run.communicate(timeout=900)
    verdicts = {v["name"]: v["verdict"] for v in json.loads(out)["variants"]} if out else {}
    return {
        "pool": pool,
        "delay_s": round(delay_s, 2),
        "killed": len(killed),
        "in_a_run": bool(doing),
        "exit_code": run.returncode,
        "verdicts": verdicts,
        "seconds": round(time.monotonic() - begun, 1),
        "error": err[-3000:] if run.returncode else "",
        "recovered": run.returncode == 0 and set(verdicts.values()) == {"shipped"},
    }


def audit(stack: Stack, folder: Path) -> dict[str, int]:
    """What is lost, half-made or double, by the eyes of a machine that joins now."""
    from mlflow import MlflowClient

    os.environ.update(stack.environment)
    store = RemoteStore(folder, s3.Bucket(s3.parse(stack.environment["ENGINEWORKS_STORE"])))
    listed = [Path(item.key).stem for item in store.bucket.list("artifacts/")]
    lost = 0
    for sha256 in listed:
        try:
            store.open(store.get(sha256))
        except ArtifactError:
            lost += 1
    versions = MlflowClient(stack.environment["MLFLOW_TRACKING_URI"]).search_model_versions(
        "name = 'chaos'", max_results=10000
    )
    identities = [version.tags["sha256"] for version in versions]
    machines = (stack.folder / "machines").glob("*/store/??/*")
    return {
        "artifacts": len(listed),
        "lost or half-written": lost,
        "half-made folders": sum(not (path / "manifest.json").is_file() for path in machines),
        "engines registered": len(set(identities)),
        "duplicate versions": len(identities) - len(set(identities)),
        "engines not in the store": len(set(identities) - set(listed)),
    }


def main() -> int:
    """Kill, count, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311 - moments of kills
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        stack = Stack(Path(work, "stack"))
        try:
            stack.start(POOLS)
            faults: dict[str, str] = {}
            for name, fault in _faults.ALL.items():
                recipe = prepare(Path(work, name), len(faults) + 500_000)
                faults[name] = fault(stack, recipe)
                print(json.dumps({name: faults[name]}), flush=True)
            rounds = []
            for number in range(options.rounds):
                recipe = prepare(Path(work, f"round-{number}"), options.seed * 1000 + number)
                rounds.append(one_round(stack, recipe, dice))
                print(json.dumps(rounds[-1]), flush=True)
            found = audit(stack, Path(work, "fresh"))
        finally:
            left = stack.stop()
        recovered = sum(bool(r["recovered"]) for r in rounds)
        passed = sum(fault.startswith(("ok", "not tried")) for fault in faults.values())
        bars = [
            Bar("faults that end well", passed, f"of {len(faults)}", len(faults), at_least=True),
            Bar("rounds recovered", recovered, f"of {len(rounds)}", len(rounds), at_least=True),
            Bar("artifacts lost or half-written", found["lost or half-written"], "", 0),
            Bar("half-made folders", found["half-made folders"], "", 0),
            Bar("registered engines that are not in the store", found["engines not in the store"],
                "", 0),
            Bar("duplicate versions", found["duplicate versions"], "", 0),
            Bar("processes left", len(left), "", 0),
        ]  # fmt: skip
        return finish("chaos", bars, {"audit": found, "faults": faults, "rounds": rounds})


if __name__ == "__main__":
    raise SystemExit(main())
