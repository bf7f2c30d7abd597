"""What may go of MLflow: a real database with runs of long ago."""

from __future__ import annotations

import json
import time

import pytest

from artifacts.registry import prune_mlflow
from artifacts.registry.mlflow_log import KEY_TAG, client
from engineworks.errors import StoreError

OLD_MS = int((time.time() - 3 * 24 * 3600) * 1000)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def log(home, mlflow, experiment, number, *, ours=True, ended=True):
    tags = {KEY_TAG: str(number)} if ours else {}
    run = mlflow.create_run(
        experiment, start_time=OLD_MS + number, tags=tags, run_name=f"r{number}"
    )
    run_id = run.info.run_id
    mlflow.log_text(run_id, "x" * 1000, "a.txt")
    if ended:
        mlflow.set_terminated(run_id, "FINISHED", end_time=OLD_MS + number)
    return run_id


def test_runs_that_no_version_needs_go_but_the_last(home):
    mlflow = client(home)
    experiment = mlflow.create_experiment("tiny", (home / "mlruns" / "tiny").as_uri())
    runs = [log(home, mlflow, experiment, number) for number in range(5)]
    foreign = log(home, mlflow, experiment, 5, ours=False)
    going_on = log(home, mlflow, experiment, -1, ended=False)
    young = mlflow.create_run(experiment, start_time=OLD_MS - 9, tags={KEY_TAG: "y"}).info.run_id
    mlflow.set_terminated(young, "FINISHED")
    mlflow.create_registered_model("tiny")
    mlflow.create_model_version(
        "tiny", f"runs:/{runs[0]}/engines/x", run_id=runs[0], tags={"sha256": "a" * 64}
    )
    needed = prune_mlflow.needed(prune_mlflow.versions(home))
    assert (needed.engines, needed.runs) == ({"a" * 64}, {runs[0]})
    items = prune_mlflow.plan(home, 1, frozenset({runs[0], runs[1]}))
    assert [item.detail for item in items] == [runs[3], runs[2]]  # runs[4] is the last
    assert all(item.size_bytes >= 1000 for item in items)
    # One is registered between plan and removal.
    mlflow.create_model_version("tiny", f"runs:/{runs[3]}/engines/x", run_id=runs[3])
    assert [item.detail for item in prune_mlflow.take(home, items)] == [runs[2]]
    left = {run.info.run_id for run in mlflow.search_runs([experiment], run_view_type=3)}
    assert left == {runs[0], runs[1], runs[3], runs[4], foreign, going_on, young}
    assert not (home / "mlruns" / "tiny" / runs[2]).exists()
    assert (home / "mlruns" / "tiny" / runs[3] / "artifacts" / "a.txt").is_file()


def test_without_mlflow_nothing_is_needed_and_nothing_made(home):
    assert prune_mlflow.versions(home) == []
    assert prune_mlflow.plan(home, 1, frozenset()) == []
    assert not (home / "mlflow.db").exists()


def test_a_server_that_is_away_stops_it(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="MLflow at"):
        prune_mlflow.versions(home)


def _logged_to(home, uri):
    folder = home / "runs" / "20261127-000000-000-tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"mlflow": {"tracking_uri": uri}}))
    return [folder]


def test_a_database_elsewhere_is_asked(home, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    with pytest.raises(StoreError, match="there is no such database"):
        prune_mlflow.versions(home)
    assert not elsewhere.exists()
    mlflow = client(home)
    mlflow.create_registered_model("tiny")
    run = mlflow.create_run("0").info.run_id
    tags = {"sha256": "a" * 64, "variant": "null/fp32"}
    mlflow.create_model_version("tiny", f"runs:/{run}/engines/x", run_id=run, tags=tags)
    assert prune_mlflow.needed(prune_mlflow.versions(home)).engines == {"a" * 64}


def test_another_registry_than_the_one_that_runs_were_logged_to_is_refused(
    home, tmp_path, monkeypatch
):
    server = "http://mlflow.corp:5000"
    folders = _logged_to(home, server)
    with pytest.raises(StoreError, match=f"was logged to {server}") as caught:
        prune_mlflow.refuse_another(home, folders, ())
    assert f"--same-registry {server}" in str(caught.value.hint)
    prune_mlflow.refuse_another(home, folders, (server,))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow.corp:5000")
    prune_mlflow.refuse_another(home, folders, ())


def test_a_state_folder_that_was_moved_takes_its_registry_along(home, tmp_path):
    before = tmp_path / "before" / "mlflow.db"
    with pytest.raises(StoreError, match="was logged to sqlite"):  # nothing is here to ask
        prune_mlflow.refuse_another(home, _logged_to(home, f"sqlite:///{before}"), ())
    (home / "mlflow.db").touch()
    with pytest.raises(StoreError, match="was logged to sqlite"):  # no state folder's: a lost disk
        prune_mlflow.refuse_another(home, _logged_to(home, "sqlite:////mnt/team/registry.db"), ())
    prune_mlflow.refuse_another(home, _logged_to(home, f"sqlite:///{before}"), ())
    before.parent.mkdir()
    before.touch()  # a copy: which of the two is asked matters
    with pytest.raises(StoreError, match="was logged to sqlite"):
        prune_mlflow.refuse_another(home, _logged_to(home, f"sqlite:///{before}"), ())
