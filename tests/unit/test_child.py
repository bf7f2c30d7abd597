"""A stage in a child process: its error comes through, its crash and its hanging are contained."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from engineworks import child, hosts
from engineworks.codec import from_json, to_json
from engineworks.errors import BuildError, EngineworksError, ModelError, StageError, StoreError
from engineworks.facts.engine import Built
from engineworks.runtime.session import open_engine
from engineworks.stages.build import BuildRequest
from engineworks.stages.reference import ReferenceRequest
from tests.builders import pinned, put_onnx, put_reference, samples, shared, write


@pytest.fixture
def request_for(store, tiny_onnx, tmp_path):
    """A build request for the null target that acts as asked."""

    def make(act="ship", **changes):
        answers = {"scores": np.ones((4, 5), np.float32)}
        request = BuildRequest(
            shared=shared(store),
            onnx=put_onnx(store, tiny_onnx),
            reference=put_reference(store, tmp_path, samples(), answers),
            target="null",
            precision="fp32",
            options={"act": act},
            tools={},
            host=None,
            builder=hosts.probe(),
        )
        return dataclasses.replace(request, **changes)

    return make


def run(request, folder, stage="build", limit_s=120.0):
    return child.run(stage, to_json(request), folder=folder, limit_s=limit_s)


def test_a_stage_gives_its_value_and_what_it_took(request_for, tmp_path):
    result = run(request_for(), tmp_path / "step")
    built = from_json(Built, result["value"])
    assert built.delivered_precision.holds
    assert result["elapsed_s"] > 0
    with open_engine(built.engine.uri) as session:
        assert session.infer({"images": samples()})["scores"].sum() == 20


def test_the_folder_holds_what_repeats_the_step(request_for, tmp_path):
    folder = tmp_path / "a step"
    run(request_for(), folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"request.json", "command.txt", "log.txt", "result.json"}
    command = shlex.split((folder / "command.txt").read_text())
    before = (folder / "result.json").read_text()
    (folder / "result.json").unlink()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(before) // 2 < len((folder / "result.json").read_text())


def test_an_error_comes_through_with_its_class(request_for, tmp_path):
    with pytest.raises(BuildError) as caught:
        run(request_for("refuse"), tmp_path / "step")
    assert caught.value.message == "the null builder was asked to refuse"
    assert caught.value.hint == "set options.act: ship"
    assert "Traceback" in (tmp_path / "step" / "log.txt").read_text()


def test_an_unexpected_error_names_itself_and_the_log(tmp_path):
    with pytest.raises(StageError, match="onnxsim failed: FileNotFoundError") as caught:
        child.run(
            "onnxsim", {"source": "nowhere", "result": ""}, folder=tmp_path / "step", limit_s=120
        )
    assert str(tmp_path / "step" / "log.txt") in caught.value.hint
    assert "Traceback" in (tmp_path / "step" / "log.txt").read_text()


def test_a_crash_names_the_signal_and_the_command(request_for, tmp_path):
    with pytest.raises(
        StageError, match="build ended without a result: killed by SIGSEGV"
    ) as error:
        run(request_for("crash"), tmp_path / "step")
    command = (tmp_path / "step" / "command.txt").read_text().strip()
    assert command in error.value.hint
    assert str(tmp_path / "step") in command


def test_a_stage_that_hangs_is_stopped_at_its_limit(request_for, tmp_path):
    with pytest.raises(StageError, match="build was stopped after its limit of 2 s") as caught:
        run(request_for("hang"), tmp_path / "step", limit_s=2)
    assert "limits" in caught.value.hint


def test_an_earlier_result_is_not_taken_for_a_new_one(request_for, tmp_path):
    run(request_for(), tmp_path / "step")
    with pytest.raises(StageError, match="SIGSEGV"):
        run(request_for("crash"), tmp_path / "step")
    assert not (tmp_path / "step" / "result.json").exists()


def test_a_request_of_another_version_is_refused(request_for, tmp_path):
    raw = {**to_json(request_for()), "colour": "red"}
    with pytest.raises(EngineworksError, match="colour"):
        child.run("build", raw, folder=tmp_path / "step", limit_s=120)


def test_an_unknown_stage_is_named(tmp_path):
    with pytest.raises(StageError, match="refine"):
        child.run("refine", {}, folder=tmp_path / "step", limit_s=120)


def test_a_folder_that_cannot_be_made_is_named(request_for, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        run(request_for(), tmp_path / "file" / "step")


#: A model whose factory starts a process of its own, notes both ids and ends as told.
FACTORY = """
import os, pathlib, subprocess, sys, time
here = pathlib.Path(__file__).parent

def build(how):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (here / "ids").write_text(f"{os.getpid()} {other.pid}")
    print("a last word", flush=True)
    if how == "hang":
        time.sleep(600)
    if how == "exit":
        os._exit(7)
    if how == "memory":
        raise MemoryError
    raise ValueError("how?")
"""


def reference_request(store, folder, how):
    write(folder / "ewtest_starter.py", FACTORY)
    model = pinned(folder, "ewtest_starter:build", arguments={"how": how})
    return ReferenceRequest(
        shared=shared(store), model=model, data=None, size=(16, 16), score=False
    )


def ends(process, within_s=60):
    """Whether a process has ended, or does within some seconds."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([handle], [], [], within_s)
    os.close(handle)
    return bool(ended)


def begin_the_limit_at(file, monkeypatch):
    """Count a stage's limit from when a file of its own is there: imports take as long as it is."""

    class Started(subprocess.Popen):
        def wait(self, timeout=None):
            while timeout is not None and self.poll() is None:
                if file.is_file() and file.read_text():
                    break
                time.sleep(0.01)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Started)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs pidfd_open")
@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("hang", StageError, "stopped after its limit"),
        ("exit", StageError, "exit code 7"),
        ("other", ModelError, "ValueError: how"),
    ],
)
def test_whatever_a_stage_started_ends_with_it(store, tmp_path, monkeypatch, how, kind, says):
    request = reference_request(store, tmp_path, how)
    if how == "hang":
        begin_the_limit_at(tmp_path / "ids", monkeypatch)
    with pytest.raises(kind, match=says):
        run(request, tmp_path / "step", "reference", limit_s=1 if how == "hang" else 300)
    ids = [int(process) for process in (tmp_path / "ids").read_text().split()]
    assert all(ends(process) for process in ids)


NESTED = """
import json, pathlib
from engineworks import child
here = pathlib.Path(__file__).parent

def build():
    request = json.loads((here / "inner.json").read_text())
    child.run("reference", request, folder=here / "inner", limit_s=600)
"""

#: Busy in one long native call, as a vendor's builder is: no other thread of Python gets a turn.
BUSY = """
import os, pathlib, re

def build():
    (pathlib.Path(__file__).parent / "ids").write_text(str(os.getpid()))
    re.match("(a+)+$", "a" * 64 + "b")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs pidfd_open")
def test_a_stage_within_a_stage_ends_with_it(store, tmp_path, monkeypatch):
    write(tmp_path / "ewtest_busy.py", BUSY)
    write(tmp_path / "ewtest_nested.py", NESTED)
    inner, outer = (
        ReferenceRequest(
            shared=shared(store), model=pinned(tmp_path, f"{name}:build"), data=None,
            size=(16, 16), score=False,
        )
        for name in ("ewtest_busy", "ewtest_nested")
    )  # fmt: skip
    (tmp_path / "inner.json").write_text(json.dumps(to_json(inner)))
    begin_the_limit_at(tmp_path / "ids", monkeypatch)
    with pytest.raises(StageError, match="stopped after its limit"):
        run(outer, tmp_path / "step", "reference", limit_s=1)
    busy = int((tmp_path / "ids").read_text())
    try:
        assert ends(busy)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(busy, signal.SIGKILL)


def test_a_stage_that_ends_early_shows_its_last_words(store, tmp_path):
    with pytest.raises(StageError, match=r"\| a last word"):
        run(reference_request(store, tmp_path, "exit"), tmp_path / "step", "reference")


def test_a_stage_without_memory_is_named(store, tmp_path):
    with pytest.raises(EngineworksError, match="MemoryError"):
        run(reference_request(store, tmp_path, "memory"), tmp_path / "step", "reference")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs pidfd_open")
def test_a_stage_ends_when_its_flow_is_killed(request_for, tmp_path):
    """Even a flow killed by SIGKILL, and at once, leaves no builder behind."""
    (tmp_path / "request.json").write_text(json.dumps(to_json(request_for("hang"))))
    code = f"""
import json, pathlib, subprocess
from engineworks import child
start = subprocess.Popen
def tell(*args, **kwargs):
    process = start(*args, **kwargs)
    print(process.pid, flush=True)
    return process
subprocess.Popen = tell
folder = pathlib.Path({str(tmp_path)!r})
request = json.loads((folder / "request.json").read_text())
child.run("build", request, folder=folder / "step", limit_s=600)
"""
    flow = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    stage = int(flow.stdout.readline())
    flow.kill()
    flow.communicate()
    assert ends(stage)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not told elsewhere")
def test_the_peak_memory_is_the_stages_own(request_for, tmp_path):
    """Not that of the flow which started it."""
    ballast = bytearray(b"x") * (800 * 2**20)
    result = run(request_for(), tmp_path / "step")
    assert len(ballast) == 800 * 2**20
    assert 1 < result["peak_mib"] < 800
