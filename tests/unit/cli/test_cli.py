"""The command finds its groups, answers in words and JSON, and refuses with exit code 2."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from engineworks.cli import _command, about, main


def test_every_group_registers_commands_that_run():
    subparsers = argparse.ArgumentParser().add_subparsers()
    for group in _command.GROUPS:
        before = set(subparsers.choices)
        group.register(subparsers)
        added = set(subparsers.choices) - before
        assert added, f"{group.__name__} adds no command"
        for name in added:
            assert callable(subparsers.choices[name].get_default("run"))


def test_no_command_name_is_taken_twice():
    subparsers = argparse.ArgumentParser().add_subparsers()
    names: list[str] = []
    for group in _command.GROUPS:
        before = len(subparsers.choices)
        group.register(subparsers)
        names += list(subparsers.choices)[before:]
    assert len(names) == len(set(names))


def test_hosts_without_a_store_says_how_to_name_one(monkeypatch, capfd):
    monkeypatch.delenv("ENGINEWORKS_STORE", raising=False)
    assert main(["hosts"]) == 3
    assert "set ENGINEWORKS_STORE=s3://" in capfd.readouterr().err


def test_hosts_outside_a_checkout_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(about, "__file__", str(tmp_path / "a" / "b" / "c" / "about.py"))
    assert main(["hosts"]) == 2
    assert "at the top of a checkout" in capsys.readouterr().err


def test_host_answers_in_words_and_in_json(capsys):
    assert main(["host"]) == 0
    words = capsys.readouterr().out
    assert main(["host", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert all(key in words for key in card)


def test_a_refusal_is_told_on_stderr_with_the_next_step(capsys, tmp_path):
    assert main(["inspect", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "ArtifactError" in told.err
    assert "next: " in told.err


def test_an_unknown_command_is_a_usage_error():
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m engineworks.cli schema | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
