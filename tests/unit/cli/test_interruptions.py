"""Signals while a command starts: sent at named imports, exactly; `benchmarks/faults/signals.py`
sends them at random moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from benchmarks.faults.signals import TOP, interrupt, judge
from engineworks.cli import main
from tests import builders

#: Runs a module as `python -m` does, and sends itself a signal when another one is imported.
AT_IMPORT = """
import os, runpy, sys
number, name, module, *words = sys.argv[1:]
def hook(event, details):
    if event == "import" and details[0] == name:
        os.kill(os.getpid(), int(number))
sys.addaudithook(hook)
sys.argv = ["-m", *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run(script, *words, **options):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=TOP, check=False, **options
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["argparse", "numpy", "onnxruntime", "cv2"])
def test_a_signal_during_an_import_of_a_command(yolox_engine, number, name):
    """The vendor's import made it an ImportError: "build the engine anew", exit code 2."""
    photo = builders.photos()[0]
    told = run(AT_IMPORT, number, name, "engineworks.cli", "detect", yolox_engine, photo)
    assert told == (128 + number, "stopped\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", ["streams.tolerate", "interrupts._ignore"])
def test_a_signal_before_the_command_has_begun_and_after_it_has_ended(number, at):
    script = """
        import os, runpy, signal, sys
        from engineworks import interrupts, streams
        module, name = sys.argv[2].split(".")
        there = {"streams": streams, "interrupts": interrupts}[module]
        real, number = getattr(there, name), int(sys.argv[1])
        def asked():
            setattr(there, name, real)
            os.kill(os.getpid(), number)
            return real()
        setattr(there, name, asked)
        sys.argv = ["-m", "schema"]
        sys.orig_argv = ["python", "-m", "engineworks.cli"]
        runpy.run_module("engineworks.cli", run_name="__main__", alter_sys=True)
    """
    assert run(script, number, at) == (128 + number, "stopped\n")


RECIPE = TOP / "examples" / "yolox_nano" / "recipe.yaml"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("__future__", "flows.ship", [RECIPE, "--dry-run"]),
        ("pathlib", "flows.ship", [RECIPE, "--dry-run"]),
        ("rich.console", "flows.ship", [RECIPE, "--dry-run"]),
        ("prefect", "flows.ship", [RECIPE, "--dry-run"]),
        ("psutil", "flows.complete", []),
        ("rich.table", "flows.benchmark", []),
        ("rich.table", "flows.hosts", []),
        ("fcntl", "flows.worker", ["--pool", "cpu"]),
    ],
)
def test_a_signal_during_an_import_of_a_flow(tmp_path, number, name, module, words):
    if module not in ("flows.hosts",):
        words = [*words, "--home", tmp_path]
    assert run(AT_IMPORT, number, name, module, *words) == (128 + number, "stopped\n")


def test_a_signal_that_is_swallowed_ends_the_command_all_the_same():
    """As by a destructor, whose exceptions Python prints and forgets."""
    script = """
        import os, signal, time
        from engineworks import interrupts
        interrupts.PATIENCE_S = 0.3
        interrupts.watch()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except BaseException:
            pass
        time.sleep(60)
    """
    assert run(script) == (130, "stopped\n")


def test_what_a_command_wrote_before_is_there():
    script = """
        import os, signal, sys
        from engineworks import interrupts
        interrupts.watch()
        sys.stdout.write("a line")
        sys.addaudithook(lambda event, details: event == "import" and details[0] == "quopri"
                         and os.kill(os.getpid(), signal.SIGTERM))
        import email.message
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=TOP
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "a line", "stopped\n")


def test_ignored_signals_stay_ignored(yolox_engine):
    """As under `nohup`, or in the background of a script."""
    script = """
        import signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    """
    told = run(script + textwrap.dedent(AT_IMPORT).replace("\n", "\n        "), 2, "numpy",
               "engineworks.cli", "inspect", yolox_engine)  # fmt: skip
    assert told == (0, "")


def test_in_another_program_the_handlers_are_as_before(yolox_engine, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(["inspect", str(yolox_engine)]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("at_s", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("module", ["engineworks.cli", "flows.ship"])
def test_a_signal_at_any_moment(yolox_engine, tmp_path, module, at_s):
    words = [RECIPE, "--dry-run", "--home", tmp_path]
    if module == "engineworks.cli":
        words = ["bench", yolox_engine, "--seconds", "30"]
    told = interrupt(
        [sys.executable, "-m", module, *map(str, words)], at_s, signal.SIGINT, dict(os.environ)
    )
    assert judge(told, signal.SIGINT, ()) in ("right", "before python", "python's trace"), told
