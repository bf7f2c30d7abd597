"""What stops a command of `flows` is told in words, with an exit code that says whose it is."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from flows.commands import terminal


@pytest.fixture
def options(tmp_path, monkeypatch):
    for name in ("configure", "refuse_unwritable"):
        monkeypatch.setattr(terminal, name, lambda *given: None)
    return argparse.Namespace(home=tmp_path, quiet=True, debug=False, log_level="")


def test_a_path_that_is_longer_than_any_may_be_is_the_recipes(options, capsys):
    def look(options, console):
        return Path("n" * 300).stat().st_size

    assert terminal.guarded(options, look) == 2
    told = capsys.readouterr().err
    assert ": File name too long\n" in told
    assert "next: correct that path" in told
    assert "unexpected" not in told


def test_another_error_of_the_system_is_unexpected(options, capsys):
    def look(options, console):
        raise OSError(5, "Input/output error", "disk")

    assert terminal.guarded(options, look) == 3
    assert "unexpected OSError" in capsys.readouterr().err
