"""Addresses of databases lead to the path they were made of, whatever its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from artifacts.registry.databases import embedded, plain, sqlite_url
from artifacts.registry.mlflow_log import client, public_uri, tracking_uri

NAMES = ["plain", "a b", "what?", "%41", "100%", "a#b", "Grüße", "a&b=c", "x;y", "a?b %41#c", "@:"]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_where_the_path_says(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "x.db")
    assert make_url(url).database == str(folder / "x.db")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table t (n integer)"))
    engine.dispose()
    assert [path.name for path in folder.iterdir()] == ["x.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert embedded(url)
    assert not embedded("http://127.0.0.1:5000")


def test_plain_paths_keep_the_addresses_that_runs_have_written_down():
    path = Path("/home/a user/.engineworks/mlflow.db")
    assert plain(path)
    assert sqlite_url(path) == f"sqlite:///{path}"
    assert sqlite_url(path, "aiosqlite") == f"sqlite+aiosqlite:///{path}"


def test_mlflow_keeps_its_database_and_artifacts_inside(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "a?b %41#c"
    home.mkdir()
    mlflow = client(home)
    run = mlflow.create_run(
        mlflow.create_experiment("x", artifact_location=(home / "mlruns").as_uri())
    )
    (tmp_path / "f.txt").write_text("kept")
    mlflow.log_artifact(run.info.run_id, str(tmp_path / "f.txt"))
    (kept,) = home.rglob("f.txt")
    assert kept.read_text() == "kept"
    assert (home / "mlflow.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b %41#c", "f.txt"]
    assert public_uri(home) == tracking_uri(home)


@pytest.mark.parametrize("name", ["plain", "a?b %41#c"])
def test_prefect_is_told_where_its_database_is(tmp_path, name):
    """In a process of its own: Prefect reads its settings once."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flows.commands.settings import configure\n"
        "configure(Path(sys.argv[1]))\n"
        "from prefect.settings import get_current_settings\n"
        "from sqlalchemy import make_url\n"
        "url = get_current_settings().server.database.connection_url.get_secret_value()\n"
        "print(make_url(url).database)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / name)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / name / "prefect" / "prefect.db"), done.stderr
