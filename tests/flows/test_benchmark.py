"""The nightly benchmark on one machine: the real command on a version that was really shipped."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows


def test_a_promoted_version_gets_a_time_series_and_others_are_left_alone(project):
    project.edit('  - target: "null"\n', '  - target: "null"\n  - target: onnxruntime-cpu\n')
    shipped = project.ship()
    assert shipped.code == 0, shipped.err

    def benchmark(*words):
        done = subprocess.run(
            [sys.executable, "-m", "flows.benchmark", *words], cwd=ROOT, capture_output=True,
            env=project.environment(), text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, out, err = benchmark()
    assert code == 0 and "nothing is promoted" in out, err

    mlflow = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    registered = shipped.variant("onnxruntime-cpu/fp32")["registered"]
    mlflow.set_registered_model_alias(
        "tiny", "production-onnxruntime-cpu-fp32", registered["version"]
    )
    version = mlflow.get_model_version("tiny", registered["version"])
    for night in (1, 2):
        code, out, err = benchmark("--slower-than", "1000", "--json")
        assert code == 0, err
        (one,) = json.loads(out)
        assert one["outcome"] == "steady" and one["variant"] == "onnxruntime-cpu/fp32"
        series = "nightly/onnxruntime-cpu-fp32"
        points = mlflow.get_metric_history(version.run_id, f"{series}/p50_ms")
        assert [point.step for point in points] == list(range(1, night + 1))
        assert points[-1].value == one["p50_ms"] != one["before_ms"]
    assert len({point.timestamp for point in points}) == 2  # measured again, not from the cache
    tags = mlflow.get_model_version("tiny", version.version).tags
    assert float(tags["nightly.p50_ms"]) == pytest.approx(one["p50_ms"], rel=1e-4)
    assert float(tags["nightly.ratio"]) == pytest.approx(one["ratio"], abs=1e-3)
    assert tags["p50_ms"] == version.tags["p50_ms"]

    mlflow.set_model_version_tag("tiny", version.version, "machine", "rack-9")
    code, out, err = benchmark()
    assert code == 0, err
    assert "skipped, it was built on rack-9" in out

    code, out, err = benchmark("--model", "tyni")
    assert code == 3 and "no registered model 'tyni'" in err

    again = project.ship()
    assert again.executed == {"log"}  # what a person has written over is made true again
    assert mlflow.get_model_version("tiny", version.version).tags["machine"] != "rack-9"
    assert (
        again.variant("onnxruntime-cpu/fp32")["benchmark"]
        == shipped.variant("onnxruntime-cpu/fp32")["benchmark"]
    )
