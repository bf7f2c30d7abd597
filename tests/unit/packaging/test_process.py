"""A server is ended with all that it started, and its last words are kept."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from engineworks.child import PARENT_VARIABLE
from engineworks.errors import StageError
from engineworks.packaging._process import free_ports, running

PARENT = """
import subprocess, sys, time, os, signal
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"])
open("child", "w").write(str(child.pid))
print("listening", os.environ.get("SECRET"), os.environ["GIVEN"], flush=True)
time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    return state != "Z"


@pytest.mark.parametrize("within_a_stage", [False, True])
def test_nothing_of_it_is_left(tmp_path, monkeypatch, within_a_stage):
    monkeypatch.setenv("SECRET", "mine")
    if within_a_stage:
        monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid()))
    child = tmp_path / "child"

    def ready():
        return child.is_file() and child.read_text() != ""

    command = [sys.executable, "-c", PARENT]
    with running(
        command, work=tmp_path, environment={"GIVEN": "x y"}, ready=ready, limit_s=120
    ) as server:
        pids = [server.pid, int(child.read_text())]
        assert all(map(alive, pids))
        # A stage is ended with its group: the server must be in it.
        assert (os.getpgid(server.pid) == os.getpgid(0)) is within_a_stage
        time.sleep(0.2)
    until = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert "listening None x y" in (tmp_path / "server.log").read_text()
    assert "GIVEN='x y'" in (tmp_path / "command.txt").read_text()


def test_one_that_ends_early_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with (
        pytest.raises(StageError, match="code 3") as caught,
        running(command, work=tmp_path, environment={}, ready=lambda: False, limit_s=120),
    ):
        pytest.fail("it is not ready")
    assert "no such model" in caught.value.message


def test_one_that_is_never_ready_is_given_up(tmp_path):
    def refuses():
        raise ConnectionRefusedError

    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(StageError, match="not ready after"),
        running(command, work=tmp_path, environment={}, ready=refuses, limit_s=0.3),
    ):
        pytest.fail("it is not ready")


def test_ports_differ():
    assert len(set(free_ports(5))) == 5
