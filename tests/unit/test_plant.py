"""What a plant takes for its own server."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from infra import postgres
from infra.plant import Plant


@pytest.fixture
def page():
    """A page that this process serves: its port."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_is_up_when_it_answers_itself(tmp_path, page):
    plant = Plant(tmp_path)
    plant._note("mlflow", os.getpid())
    plant._wait("mlflow", page, "/", limit_s=10)


def test_the_page_of_another_program_is_not_taken_for_it(tmp_path, page):
    plant = Plant(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
    plant._note("mlflow", other.pid)
    with pytest.raises(RuntimeError, match="mlflow did not start: see"):
        plant._wait("mlflow", page, "/", limit_s=30)
    other.wait()


@pytest.fixture
def plain_folder():
    """A folder that other users may enter, as PostgreSQL's must."""
    with tempfile.TemporaryDirectory(prefix="plant") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def ask(plant):
    import asyncio

    import asyncpg

    async def version():
        port, password = plant._state["postgres"]
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user=postgres.USER, password=password, database="postgres"
        )
        try:
            return await connection.fetchval("select version()")
        finally:
            await connection.close()

    return asyncio.run(version())


class TestPostgres:
    @pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL on this machine")
    def test_it_starts_answers_and_ends_and_comes_back_with_its_data(self, plain_folder):
        plant = Plant(plain_folder / "plant")
        plant.folder.mkdir()
        plant._state["postgres"] = plant._new_database()
        assert plant.database == f"PostgreSQL in {plant.folder / 'postgres'}"
        for _ in range(2):
            told = plant._start_database()["PREFECT_API_DATABASE_CONNECTION_URL"]
            plant._wait_for_port("postgres", plant._state["postgres"][0])
            assert told.startswith("postgresql+asyncpg://plant:")
            assert ask(plant).startswith("PostgreSQL")
            assert b"PostgreSQL database dump" in plant.dump_database()
            assert plant.stop() == []
        assert "database system is shut down" in plant.log("postgres").read_text()
        assert plant._file.stat().st_mode & 0o077 == 0

    def test_without_one_it_is_sqlite(self, tmp_path, monkeypatch):
        monkeypatch.setattr(postgres, "programs", lambda: None)
        plant = Plant(tmp_path)
        assert plant._new_database() is None
        assert plant.database.startswith("SQLite in ")
        assert plant._start_database() == {}

    def test_one_that_does_not_start_is_named_in_the_log_and_leaves_nothing(
        self, tmp_path, monkeypatch
    ):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "initdb").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
        (tmp_path / "bin" / "initdb").chmod(0o755)
        monkeypatch.setattr(postgres, "programs", lambda: tmp_path / "bin")
        monkeypatch.setattr(postgres, "account", dict)
        monkeypatch.setattr(postgres, "_has_trigrams", lambda folder: True)
        plant = Plant(tmp_path)
        assert plant._new_database() is None
        assert (
            "SQLite in its place: initdb failed: no space left" in plant.log("postgres").read_text()
        )
        assert not list(tmp_path.glob("postgres*"))

    def test_one_without_the_extension_that_prefect_wants_is_not_taken(self, tmp_path, monkeypatch):
        monkeypatch.setattr(postgres, "programs", lambda: tmp_path)
        with pytest.raises(OSError, match="lacks the extension pg_trgm"):
            postgres.create(tmp_path / "data", "secret")

    def test_programs_that_are_gone_later_are_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(postgres, "programs", lambda: None)
        with pytest.raises(RuntimeError, match="whose programs are gone"):
            postgres.command(tmp_path, 1)

    def test_a_database_of_your_own_goes_first(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://x/y")
        assert Plant(tmp_path)._new_database() is None
