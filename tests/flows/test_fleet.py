"""The fleet, on a real stack: Prefect, MLflow and S3 servers, workers with disks of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from infra.stack import Stack
from tests.flows.conftest import ROOT, Project

pytestmark = pytest.mark.flows


@pytest.fixture
def stack(tmp_path_factory):
    made = Stack(tmp_path_factory.mktemp("stack"), mlflow=False)
    try:
        made.start(pools=("cpu",))
        yield made
    finally:
        assert made.stop() == []


@pytest.fixture
def ship(stack, tmp_path, weights):
    """Ships a tiny model over the stack, and gives exit code, output and summary."""
    project = Project(tmp_path, "")
    (tmp_path / "weights.pt").write_bytes(weights.read_bytes())
    project.edit(
        '  - target: "null"',
        '  - target: "null"\n    pool: cpu\n  - target: onnxruntime-cpu\n    pool: gpu',
    )
    environment = stack.command_environment()

    def begin(*words):
        return subprocess.Popen(
            [*project.command("--fleet", *words)], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(process):
        out, err = process.communicate(timeout=300)
        latest = stack.folder / "machines" / "planner" / "runs" / "latest" / "summary.json"
        return process.returncode, out + err, json.loads(latest.read_text())

    return begin, end


def rows(summary):
    return {v["name"]: v for v in summary["variants"]}


def test_machines_build_apart_one_that_is_away_is_pending_and_a_killed_one_goes_on(stack, ship):
    begin, end = ship

    code, out, summary = end(begin())
    assert code == 4, out
    first = rows(summary)
    assert first["null/fp32"]["verdict"] == "shipped"
    assert first["null/fp32"]["host"]["name"] == "cpu-1"
    assert first["onnxruntime-cpu/fp32"]["verdict"] == "pending"
    assert "no machine of pool gpu is registered" in out
    assert "is missing" not in out

    stack.start_worker("gpu")
    stack.wait_for_workers(("gpu",))
    run = begin()
    running = stack.home_of("gpu") / "running"
    until = time.monotonic() + 300
    while not (running.is_dir() and list(running.iterdir())):
        assert time.monotonic() < until, stack.log("worker-gpu").read_text()[-3000:]
        assert run.poll() is None
        time.sleep(0.1)
    assert stack.kill("worker-gpu")
    stack.start_worker("gpu")
    code, out, summary = end(run)
    assert code == 0, out
    second = rows(summary)
    assert second["onnxruntime-cpu/fp32"]["verdict"] == "shipped"
    assert second["onnxruntime-cpu/fp32"]["host"]["name"] == "gpu-1"
    assert (
        "went on" in stack.log("worker-gpu").read_text()
        or "goes on" in stack.log("worker-gpu").read_text()
    )

    # What was there is the same engine in the same version; each machine keeps its own files.
    assert second["null/fp32"]["engine"] == first["null/fp32"]["engine"]
    assert second["null/fp32"]["registered"] == first["null/fp32"]["registered"]
    mlflow = MlflowClient(f"sqlite:///{stack.folder / 'machines' / 'planner' / 'mlflow.db'}")
    versions = mlflow.search_model_versions("name = 'tiny'")
    assert {v.tags["sha256"] for v in versions} == {v["engine"]["sha256"] for v in second.values()}
    assert len(versions) == 2
    engine = second["onnxruntime-cpu/fp32"]["engine"]
    assert engine["uri"].startswith(str(stack.folder / "machines" / "planner"))
    assert (stack.home_of("gpu") / "store" / engine["sha256"][:2] / engine["sha256"]).is_dir()
    assert not (stack.home_of("cpu") / "store" / engine["sha256"][:2] / engine["sha256"]).exists()
    for home in (stack.folder / "machines").iterdir():
        half_made = [
            p for p in (home / "store" / ".tmp").rglob("*") if p.is_file() and p.suffix != ".lock"
        ]
        assert half_made == []

    listed = subprocess.run(
        [sys.executable, "-m", "engineworks.cli", "hosts", "--json"], cwd=ROOT, capture_output=True,
        text=True, env=stack.command_environment(), check=True,
    )  # fmt: skip
    found = {host["card"]["name"]: host for host in json.loads(listed.stdout)}
    assert {"cpu-1", "gpu-1"} == set(found)
    assert all(host["state"] == "ready" and host["age_s"] < 90 for host in found.values())
