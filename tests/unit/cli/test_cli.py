"""The command finds its groups, answers in words and JSON, and refuses with exit code 2."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engineworks.cli import _command, about, main


def test_every_group_registers_commands_that_run():
    subparsers = argparse.ArgumentParser().add_subparsers()
    for group in _command.groups():
        before = set(subparsers.choices)
        group.register(subparsers)
        added = set(subparsers.choices) - before
        assert added, f"{group.__name__} adds no command"
        for name in added:
            assert callable(subparsers.choices[name].get_default("run"))


def test_no_command_name_is_taken_twice():
    subparsers = argparse.ArgumentParser().add_subparsers()
    names: list[str] = []
    for group in _command.groups():
        before = len(subparsers.choices)
        group.register(subparsers)
        names += list(subparsers.choices)[before:]
    assert len(names) == len(set(names))


def test_a_server_begins_without_what_other_commands_import():
    begins = (
        "import sys, contextlib\nfrom engineworks.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['serve', '--help'])\n"
        "sys.exit(' '.join({'engineworks.targets', 'engineworks.runtime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", begins], capture_output=True, text=True)
    assert "usage: engineworks serve" in done.stdout
    assert not done.stderr.strip()


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


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_labels_and_names_of_any_script_reach_any_terminal(oracle_engine, tmp_path, encoding):
    """A label in Greek, a file name that is no text: written as escapes, never a trace."""
    engine = Path(shutil.copytree(oracle_engine, tmp_path / "engine"))
    manifest = json.loads((engine / "manifest.json").read_text())
    manifest["task"]["labels"] = ["\u03ba\u03cc\u03ba\u03ba\u03b9\u03bd\u03bf", "\ud83d\ude00", "x"]
    del manifest["checksum"]
    (engine / "manifest.json").write_text(json.dumps(manifest))
    picture = os.fsencode(tmp_path) + b"/\xff\xe9.png"
    red = np.full((64, 64, 3), 255, np.uint8)
    red[8:40, 8:40] = (0, 0, 255)
    Path(os.fsdecode(picture)).write_bytes(cv2.imencode(".png", red)[1].tobytes())
    for more in ([], ["--json"], ["-o", str(tmp_path / "out")]):
        command = [sys.executable, "-m", "engineworks.cli", "detect", str(engine), picture, *more]
        done = subprocess.run(
            command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}
        )
        assert (done.returncode, done.stderr) == (0, b"")
        if more == ["--json"]:
            line = json.loads(done.stdout)
            assert done.stdout.isascii()
            assert line["detections"][0]["label"] == manifest["task"]["labels"][0]
        else:
            told = done.stdout.decode(encoding)
            assert ("\u03ba\u03cc" if encoding == "utf-8" else "\\u03ba\\u03cc") in told
    done = subprocess.run(
        [sys.executable, "-m", "engineworks.cli", "inspect", str(engine)],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


TALKATIVE = """
import logging, sys
from engineworks import hosts
probe = hosts.probe
def talk():
    for name in ("engineworks.some", "vendor"):
        for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
            logging.getLogger(name).log(getattr(logging, level), "here")
    return probe()
hosts.probe = talk
from engineworks.cli import main
sys.exit(main(sys.argv[1:]))
"""
QUIET = ["here", "here", "here", "here"]  # Python's own last resort: warnings, without a name


@pytest.mark.parametrize(
    ("options", "variable", "ours", "theirs"),
    [
        (["host"], "", None, None),
        (["host"], "chatty", None, None),
        (["host", "--log-level", "debug"], "", "DIWE", "IWE"),
        (["--log-level", "info", "host"], "", "IWE", "WE"),
        (["host", "--log-level", "warning"], "debug", "WE", "WE"),
        (["host", "--log-level", "error"], "", "E", "E"),
        (["host"], "info", "IWE", "WE"),
    ],
)
def test_the_log_level_is_chosen_by_an_option_or_the_environment(options, variable, ours, theirs):
    done = subprocess.run(
        [sys.executable, "-c", TALKATIVE, *options], capture_output=True, text=True,
        env={**os.environ, "ENGINEWORKS_LOG_LEVEL": variable}, check=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    if ours is None:
        assert lines == QUIET
    else:
        assert "".join(line[0] for line in lines if "engineworks.some: here" in line) == ours
        assert "".join(line[0] for line in lines if "vendor: here" in line) == theirs


def test_every_command_takes_a_log_level(capsys):
    subparsers = argparse.ArgumentParser().add_subparsers()
    for group in _command.groups():
        group.register(subparsers)
    for name in subparsers.choices:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert "--log-level {debug,info,warning,error}" in capsys.readouterr().out, name


@pytest.mark.parametrize("name", ["prune", "hosts"])
def test_what_a_command_of_the_flows_takes_is_handed_on(name, monkeypatch):
    """`engineworks NAME` starts `python -m flows.NAME`: options of one are options of the other."""
    module = importlib.import_module("flows.commands.prune" if name == "prune" else "flows.hosts")
    parser = argparse.ArgumentParser()
    about.register(parser.add_subparsers())
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    ours = {o for a in subparsers.choices[name]._actions for o in a.option_strings}
    theirs = {o for a in module._parser()._actions for o in a.option_strings}
    of_all = {"--home", "--quiet", "--debug", "--log-level", "-q"}
    assert theirs - of_all <= ours
