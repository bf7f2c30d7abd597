"""What a stack takes for its own server."""

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
from infra.stack import Stack


@pytest.fixture
def page():
    """A page that this process serves: its port."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_is_up_when_it_answers_itself(tmp_path, page):
    stack = Stack(tmp_path)
    stack._note("mlflow", os.getpid())
    stack._wait("mlflow", page, "/", limit_s=10)


def test_the_page_of_another_program_is_not_taken_for_it(tmp_path, page):
    stack = Stack(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
    stack._note("mlflow", other.pid)
    with pytest.raises(RuntimeError, match="mlflow did not start: see"):
        stack._wait("mlflow", page, "/", limit_s=30)
    other.wait()


@pytest.fixture
def plain_folder():
    """A folder that other users may enter, as PostgreSQL's must."""
    with tempfile.TemporaryDirectory(prefix="stack") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def ask(stack):
    import asyncio

    import asyncpg

    async def version():
        port, password = stack._state["postgres"]
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
        stack = Stack(plain_folder / "stack")
        stack.folder.mkdir()
        stack._state["postgres"] = stack._new_database()
        assert stack.database == f"PostgreSQL in {stack.folder / 'postgres'}"
        for _ in range(2):
            told = stack._start_database()["PREFECT_API_DATABASE_CONNECTION_URL"]
            stack._wait_for_port("postgres", stack._state["postgres"][0])
            assert told.startswith("postgresql+asyncpg://stack:")
            assert ask(stack).startswith("PostgreSQL")
            assert b"PostgreSQL database dump" in stack.dump_database()
            assert stack.stop() == []
        assert "database system is shut down" in stack.log("postgres").read_text()
        assert stack._file.stat().st_mode & 0o077 == 0

    def test_without_one_it_is_sqlite(self, tmp_path, monkeypatch):
        monkeypatch.setattr(postgres, "programs", lambda: None)
        stack = Stack(tmp_path)
        assert stack._new_database() is None
        assert stack.database.startswith("SQLite in ")
        assert stack._start_database() == {}

    def test_one_that_does_not_start_is_named_in_the_log_and_leaves_nothing(
        self, tmp_path, monkeypatch
    ):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "initdb").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
        (tmp_path / "bin" / "initdb").chmod(0o755)
        monkeypatch.setattr(postgres, "programs", lambda: tmp_path / "bin")
        monkeypatch.setattr(postgres, "account", dict)
        monkeypatch.setattr(postgres, "_has_trigrams", lambda folder: True)
        stack = Stack(tmp_path)
        assert stack._new_database() is None
        assert (
            "SQLite in its place: initdb failed: no space left" in stack.log("postgres").read_text()
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
        assert Stack(tmp_path)._new_database() is None
