"""Which versions carry an alias, and the time series that is kept of them, in a real MLflow."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

import pytest

from artifacts.registry import mlflow_log, promoted
from engineworks.errors import StoreError
from engineworks.facts.timing import BenchmarkRow
from tests import builders

TAGS = {
    "variant": "openvino/fp32@rack-1", "target": "openvino", "precision": "fp32",
    "sha256": "a" * 64, "machine": "rack-1", "size": "416x320", "threads": "2", "p50_ms": "4.25",
}  # fmt: skip


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A model with a version that is promoted, a candidate, and one of another tool."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow = mlflow_log.client(tmp_path)
    run = mlflow.create_run(mlflow.create_experiment("tiny")).info.run_id
    mlflow.set_terminated(run)
    for name in ("tiny", "another"):
        mlflow.create_registered_model(name)
    for name, tags in (("tiny", TAGS), ("tiny", TAGS | {"machine": "rack-2"}), ("another", {})):
        mlflow.create_model_version(name, source=f"runs:/{run}/engine", run_id=run, tags=tags)
    mlflow.set_registered_model_alias("tiny", "production-openvino-fp32-rack-1", "1")
    mlflow.set_registered_model_alias("tiny", "candidate-openvino-fp32-rack-1", "2")
    mlflow.set_registered_model_alias("another", "production-by-hand", "1")
    mlflow.set_registered_model_alias("another", "champion", "1")
    return mlflow, run


def test_versions_are_found_by_their_alias_and_what_is_written_on_them(registry, tmp_path):
    _, run = registry
    strange, mine = promoted.promoted(tmp_path, "production")
    assert mine == promoted.Promoted(
        model="tiny", version="1", run_id=run, variant="openvino/fp32@rack-1", target="openvino",
        precision="fp32", sha256="a" * 64, machine="rack-1", size=(416, 320), threads=2,
        p50_ms=4.25,
    )  # fmt: skip
    assert strange == promoted.Promoted(model="another", version="1", run_id=run, variant="by-hand")
    (candidate,) = promoted.promoted(tmp_path, "candidate", "tiny")
    assert (candidate.version, candidate.machine) == ("2", "rack-2")
    assert promoted.promoted(tmp_path, "candidate", "another") == []
    with pytest.raises(StoreError, match="no registered model 'tyni'") as caught:
        promoted.promoted(tmp_path, "production", "tyni")
    assert "another, tiny" in caught.value.hint


def test_every_night_adds_a_point_to_the_run_that_the_version_came_from(registry, tmp_path):
    mlflow, run = registry
    _, one = promoted.promoted(tmp_path, "production")
    row = builders.example(BenchmarkRow)
    nights = [datetime(2026, 11, day, 2, tzinfo=timezone.utc) for day in (21, 22)]
    for night, p50_ms in zip(nights, (4.0, 5.0), strict=True):
        row = dataclasses.replace(row, p50_ms=p50_ms, p95_ms=p50_ms + 1, throughput_per_s=200.0)
        promoted.note(tmp_path, one, row, p50_ms / 4.25, night)
    series = "nightly/openvino-fp32-rack-1"
    points = mlflow.get_metric_history(run, f"{series}/p50_ms")
    assert [(point.value, point.step) for point in points] == [(4.0, 1), (5.0, 2)]
    assert [point.timestamp for point in points] == [night.timestamp() * 1000 for night in nights]
    latest = mlflow.get_run(run).data.metrics
    assert latest[f"{series}/p95_ms"] == 6.0 and latest[f"{series}/throughput_per_s"] == 200.0
    tags = mlflow.get_model_version("tiny", "1").tags
    assert tags["nightly.p50_ms"] == "5" and tags["nightly.ratio"] == "1.176"
    assert tags["nightly.at"] == "2026-11-22T02:00:00+00:00"
    assert {name: tags[name] for name in TAGS} == TAGS


def test_a_run_that_was_deleted_is_said(registry, tmp_path):
    mlflow, run = registry
    _, one = promoted.promoted(tmp_path, "production")
    mlflow.delete_run(run)
    with pytest.raises(StoreError, match="cannot be used"):
        promoted.note(tmp_path, one, builders.example(BenchmarkRow), 1.0, datetime.now())
