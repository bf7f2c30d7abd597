"""A machine's worker before it serves: what it refuses, in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import worker


@pytest.fixture(autouse=True)
def here(monkeypatch):
    kept = dict(os.environ)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.mark.parametrize("at", ["configure", "lock", "instance"])
def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys, at, s3_prefix):
    monkeypatch.setenv("ENGINEWORKS_STORE", s3_prefix)
    home = tmp_path / "home"
    if at == "configure":
        home.write_text("a file")
    if at == "lock":
        (home / "worker.lock").mkdir(parents=True)
    if at == "instance":
        real = Path.write_text

        def refuse(path, *words, **more):
            if path.name == "instance":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *words, **more)

        monkeypatch.setattr(Path, "write_text", refuse)
    assert worker.main(["--pool", "cpu", "--name", "m1", "--home", str(home)]) == 3
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.startswith("StoreError: ") and str(home) in error
    assert "next: " in error


def test_a_machine_is_not_called_like_a_queue(tmp_path, monkeypatch, capsys, s3_prefix):
    monkeypatch.setenv("ENGINEWORKS_STORE", s3_prefix)
    words = ["--pool", "cpu", "--name", "registry", "--home", str(tmp_path)]
    assert worker.main(words) == 3
    assert "'registry' is no name for a machine" in capsys.readouterr().err
