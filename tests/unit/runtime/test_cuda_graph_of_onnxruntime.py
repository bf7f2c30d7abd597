"""ONNX Runtime's runs with bound memory, which CUDA graphs need: the real calls, on the CPU.

On the CPU nothing is recorded. That every shape keeps its memory and gets its own number, and that
the answers are right, is the same there.
"""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import onnxruntime as ort
import pytest

from engineworks.errors import ArtifactError
from engineworks.export.torch_onnx import runner, signature
from engineworks.runtime.engines import onnxruntime_cuda
from engineworks.runtime.engines.onnxruntime_cuda import GraphRecorder, Traffic
from tests.builders import samples

X = samples()


@pytest.fixture
def opened(tiny_onnx):
    session = ort.InferenceSession(str(tiny_onnx), providers=["CPUExecutionProvider"])
    inputs, outputs, _ = signature(tiny_onnx)
    return session, inputs, outputs


@pytest.fixture
def recorder(opened, monkeypatch):
    made = GraphRecorder(*opened, "cpu", 0)
    made.numbers = []
    options = made._run_options
    monkeypatch.setattr(
        made, "_run_options", lambda number: (made.numbers.append(number), options(number))[1]
    )
    return made


def test_shapes_that_come_and_go_keep_their_memory_and_their_answers(recorder, tiny_onnx):
    wanted = dict(runner(tiny_onnx)(X))["scores"]
    rows = (slice(4), slice(2), slice(None, None, -1), slice(2, 4), slice(1), slice(4))
    for part in rows:
        got = recorder.infer({"images": X[part]})["scores"]  # reversed rows are not contiguous
        np.testing.assert_allclose(got, wanted[part], rtol=1e-4, atol=1e-5)
    assert recorder.numbers == [0, 1, 2]
    np.testing.assert_array_equal(X, samples())  # what came in was not written to


def test_beyond_the_last_graph_a_run_is_an_ordinary_one(recorder, tiny_onnx, monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "GRAPHS", 2)
    wanted = dict(runner(tiny_onnx)(X))["scores"]
    for count in (1, 2, 3, 3, 1):
        got = recorder.infer({"images": X[:count]})["scores"]
        np.testing.assert_allclose(got, wanted[:count], rtol=1e-4, atol=1e-5)
    assert recorder.numbers == [0, 1, -1, -1]


def test_an_output_that_only_running_can_size_is_refused_by_name(opened):
    session, inputs, (output,) = opened
    free = dataclasses.replace(output, shape=("boxes found", 6))
    with pytest.raises(ArtifactError, match="'scores' has a size that only running tells"):
        GraphRecorder(session, inputs, (free,), "cpu", 0)


def test_a_size_without_a_name_is_none_that_is_known(opened):
    session, (given,), (output,) = opened
    unnamed = dataclasses.replace(given, shape=("?", 3, 16, 16))
    free = dataclasses.replace(output, shape=("?", 5))
    with pytest.raises(ArtifactError, match="'scores' has a size that only running tells"):
        GraphRecorder(session, (unnamed,), (free,), "cpu", 0)


def test_what_cannot_be_recorded_is_refused_in_the_vendors_words(opened):
    session, inputs, (output,) = opened
    wrong = dataclasses.replace(output, shape=("batch", 6))
    recorder = GraphRecorder(session, inputs, (wrong,), "cpu", 0)
    with pytest.raises(
        ArtifactError, match="cannot record this network as a CUDA graph: .*invalid dim"
    ):
        recorder.infer({"images": X})


def test_who_records_is_alone_and_others_run_together():
    traffic, inside, most, clashes = Traffic(), [], [], []

    def work(number):
        for turn in range(30):
            alone = turn % 10 == number
            with traffic.alone() if alone else traffic.together():
                inside.append(alone)
                most.append(len(inside))
                clashes.append(any(inside) and len(inside) > 1)
                time.sleep(0.001)
                inside.remove(alone)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(clashes)
    assert max(most) > 1
