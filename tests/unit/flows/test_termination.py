"""A SIGTERM while a flow runs ends the command, though Prefect has the handler then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

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


def ended(patience_s: str, then: str) -> tuple[int, float]:
    """Exit code after a SIGTERM, and how many seconds it took."""
    command = [sys.executable, "-c", PROGRAM, patience_s, then]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        started = time.perf_counter()
        os.kill(process.pid, signal.SIGTERM)
        return process.wait(30), time.perf_counter() - started


def test_nobody_waits_for_a_server_that_the_same_signal_has_ended():
    code, took_s = ended("0", "ask")
    assert code == 143
    assert took_s < 10


@pytest.mark.parametrize(("then", "code"), [("go", 7), ("ask", 143)])
def test_a_server_elsewhere_may_be_told_for_a_while(then, code):
    assert ended("1", then)[0] == code
