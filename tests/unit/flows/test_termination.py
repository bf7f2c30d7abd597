"""A SIGTERM while a flow runs ends the command, though Prefect has the handler then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

#: As Prefect does it: its own handler raises, and what catches that asks a server that is gone.
PROGRAM = """
import os, signal, sys, time
from flows.commands.termination import ended_by_sigterm

def end(number):
    os.write(2, b"ended\\n")
    os._exit(128 + number)

def taken(number, frame):
    raise RuntimeError("terminated")

with ended_by_sigterm(end, float(sys.argv[1])):
    signal.signal(signal.SIGTERM, taken)
    try:
        print("ready", flush=True)
        time.sleep(60)
    except RuntimeError:
        if sys.argv[2] == "ask":
            time.sleep(60)
sys.exit(7)
"""


def ended(patience_s: str, then: str) -> int:
    """Exit code after a SIGTERM; 7 is the program's own, after a minute where it asks."""
    command = [sys.executable, "-c", PROGRAM, patience_s, then]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGTERM)
        return process.wait(300)


def test_nobody_waits_for_a_server_that_the_same_signal_has_ended():
    assert ended("0", "ask") == 143


@pytest.mark.parametrize(("patience_s", "then", "code"), [("30", "go", 7), ("1", "ask", 143)])
def test_a_server_elsewhere_may_be_told_for_a_while(patience_s, then, code):
    assert ended(patience_s, then) == code
