"""A machine that comes back completes what waited for it, on a real stack, without any person."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
from mlflow import MlflowClient

from artifacts import fleet
from artifacts.store import s3
from flows.fleet import trigger
from infra.stack import Stack
from tests.flows.conftest import ROOT, Project
from tests.flows.test_int8 import photos

pytestmark = pytest.mark.flows

TARGETS = """
task: {kind: classification, labels: [cat, dog, bird, fish]}
data: {images: images}
budget: {max_drop: 1.0}
targets:
  - {target: "null", pool: cpu}
  - {target: onnxruntime-cpu, pool: gpu}
"""


@pytest.fixture
def stack(tmp_path_factory):
    made = Stack(tmp_path_factory.mktemp("stack"))
    try:
        made.start(pools=("cpu",))
        yield made
    finally:
        assert made.stop() == []


@pytest.fixture
def project(stack, tmp_path, weights):
    """A tiny recipe that is judged on photos, in a folder that can go away."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    made = Project(folder, "")
    (folder / "weights.pt").write_bytes(weights.read_bytes())
    for seed, label in enumerate(["cat", "dog"]):
        photos(folder / "images" / label, 3, seed)
    made.edit('targets:\n  - target: "null"\n', TARGETS)
    return made


def call(stack, command):
    done = subprocess.run(
        command, cwd=ROOT, env=stack.command_environment(), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def runs(stack, tag):
    """Flow runs with a tag, as Prefect's server has them."""
    request = urllib.request.Request(
        f"{stack.environment['PREFECT_API_URL']}/flow_runs/filter",
        data=json.dumps({"flow_runs": {"tags": {"all_": [tag]}}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def bucket_of(stack, monkeypatch):
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    return s3.Bucket(s3.parse(stack.environment["ENGINEWORKS_STORE"]), patience_s=10)


def test_a_machine_that_comes_back_completes_the_model(stack, project, monkeypatch):
    code, out = call(stack, project.command("--fleet"))
    assert code == 4, out
    assert "What is pending is completed by itself" in out
    bucket = bucket_of(stack, monkeypatch)
    assert fleet.waiting(bucket) == ["tiny"]
    mlflow = MlflowClient(stack.environment["MLFLOW_TRACKING_URI"])
    (before,) = mlflow.search_model_versions("name = 'tiny'")
    assert before.tags["target"] == "null" and before.tags["machine"] == "cpu-1"

    recipe = project.recipe.read_text()
    shutil.rmtree(project.folder)
    code, out = call(stack, [sys.executable, "-m", "flows.complete"])
    assert code == 4 and "tiny: waits, onnxruntime-cpu/fp32: no machine of pool gpu" in out
    assert len(mlflow.search_runs([mlflow.get_run(before.run_id).info.experiment_id])) == 1

    stack.start_worker("gpu")
    until = time.monotonic() + 400
    while fleet.waiting(bucket):
        assert time.monotonic() < until, stack.log("worker-cpu").read_text()[-5000:]
        time.sleep(1)

    after = {v.tags["target"]: v for v in mlflow.search_model_versions("name = 'tiny'")}
    assert set(after) == {"null", "onnxruntime-cpu"}
    for same in ("version", "run_id", "source", "creation_timestamp", "tags", "aliases"):
        assert getattr(after["null"], same) == getattr(before, same), same
    new = after["onnxruntime-cpu"]
    assert new.version == "2" and new.run_id != before.run_id
    assert new.tags["machine"] == "gpu-1"
    logged = stack.folder / "logged"
    logged.mkdir()
    for name in ("summary.json", "recipe.yaml", "report.html"):
        mlflow.download_artifacts(new.run_id, name, str(logged))
    summary = json.loads((logged / "summary.json").read_text())
    found = {v["name"]: (v["verdict"], v["host"]["name"]) for v in summary["variants"]}
    assert found == {
        "null/fp32": ("shipped", "cpu-1"),
        "onnxruntime-cpu/fp32": ("shipped", "gpu-1"),
    }
    assert (logged / "recipe.yaml").read_text() == recipe
    assert (logged / "report.html").read_text().count("<img") >= 1
    asked = stack.log("worker-gpu").read_text()
    assert "a run of `complete` goes on with tiny" in asked
    (run,) = runs(stack, trigger.TAG)
    assert run["state_type"] == "COMPLETED"
    assert run["state"]["message"] == "tiny: completed"

    # Both are promoted by hand: every version is timed again by the machine that built it.
    for version in after.values():
        mlflow.set_registered_model_alias(
            "tiny", f"production-{version.tags['target']}-fp32", version.version
        )
    command = [sys.executable, "-m", "flows.benchmark", "--slower-than", "1000", "--json"]
    code, out = call(stack, command)
    assert code == 0, out
    timed = {one["variant"]: one for one in json.loads(out[out.index("[\n") : out.rindex("]") + 1])}
    assert {name: (one["outcome"], one["machine"]) for name, one in timed.items()} == {
        "null/fp32": ("steady", "cpu-1"),
        "onnxruntime-cpu/fp32": ("steady", "gpu-1"),
    }
    (point,) = mlflow.get_metric_history(new.run_id, "nightly/onnxruntime-cpu-fp32/p50_ms")
    assert point.value == timed["onnxruntime-cpu/fp32"]["p50_ms"]
    orders = {run["work_queue_name"] for run in runs(stack, "benchmark")}
    assert orders == {"cpu-1", "gpu-1"}

    # And as it is every night: by a worker.
    command = [sys.executable, "-m", "prefect", "deployment", "run", "benchmark/nightly"]
    code, out = call(stack, [*command, "--watch", "-p", "slower_than=1000"])
    assert code == 0, out
    (night,) = (run for run in runs(stack, "benchmark") if run["work_queue_name"] == "nightly")
    assert night["state"]["message"] == "2 steady"
    points = mlflow.get_metric_history(new.run_id, "nightly/onnxruntime-cpu-fp32/p50_ms")
    assert [point.step for point in points] == [1, 2]
