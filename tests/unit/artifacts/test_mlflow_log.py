"""What two runs that log at once leave in MLflow."""

from __future__ import annotations

from artifacts.registry import mlflow_log


def test_an_experiment_that_another_run_makes_at_the_same_moment_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow = mlflow_log.client(tmp_path)
    find, made = mlflow.get_experiment_by_name, []

    def not_yet(name):
        if made:
            return find(name)
        made.append(mlflow.create_experiment(name))  # right after we have looked
        return None

    monkeypatch.setattr(mlflow, "get_experiment_by_name", not_yet)
    assert mlflow_log._experiment(mlflow, "tiny", tmp_path) == made[0]
