"""OpenVINO sessions that share a machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engineworks import hosts, runtime
from engineworks.errors import ArtifactError
from engineworks.store import LocalStore
from tests import builders

pytest.importorskip("openvino")


@pytest.mark.skipif(hosts.cores() < 2, reason="needs two cores")
def test_sessions_that_share_the_cores_are_not_pinned_to_the_same_ones(yolox_onnx, tmp_path):
    """Two sessions of one thread each once took turns on one core: half the frames per second."""
    engine = builders.put_engine(LocalStore(tmp_path), yolox_onnx, runtime="openvino").uri
    for threads, pinned in ((1, False), (hosts.cores(), True)):
        with runtime.open(engine, threads=threads) as session:
            compiled = session._request.get_compiled_model()
            assert compiled.get_property("ENABLE_CPU_PINNING") is pinned


def test_a_manifest_sets_nothing_that_engines_here_do_not(yolox_onnx, tmp_path):
    """OpenVINO writes compiled models to whatever folder CACHE_DIR names."""
    engine = builders.put_engine(
        LocalStore(tmp_path / "store"),
        yolox_onnx,
        runtime="openvino",
        details={"compile": {"CACHE_DIR": str(tmp_path / "sprung")}},
    )
    with pytest.raises(ArtifactError, match="CACHE_DIR"):
        runtime.open(engine.uri)
    assert not (tmp_path / "sprung").exists()


def test_two_sessions_that_begin_together_do_not_lock_one_another(yolox_onnx, tmp_path):
    """OpenVINO made its table of types at the first inference: two first ones hung in it."""
    engine = builders.put_engine(LocalStore(tmp_path), yolox_onnx, runtime="openvino").uri
    script = (
        "import sys, threading\n"
        "import numpy as np\n"
        "from engineworks import runtime\n"
        "row = {'images': np.zeros((1, 3, 416, 416), np.float32)}\n"
        "sessions = [runtime.open(sys.argv[1], threads=1) for _ in range(2)]\n"
        "begin = threading.Barrier(2)\n"
        "def first(session):\n"
        "    begin.wait()\n"
        "    print(len(session.infer(row)))\n"
        "threads = [threading.Thread(target=first, args=(one,)) for one in sessions]\n"
        "sys.setswitchinterval(1e-6)\n"  # so that threads change places within a call
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    for _ in range(3):  # without the lock more than half of the tries hang
        done = subprocess.run(
            [sys.executable, "-c", script, engine], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout.count("1"), done.returncode) == (2, 0), done.stderr
