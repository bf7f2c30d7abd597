"""The null target acts out what can go wrong with a real one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engineworks import hosts
from engineworks.errors import BuildError
from engineworks.runtime.session import open_engine
from engineworks.stages.build import BuildRequest, build
from tests.builders import put_onnx, put_reference, samples, shared

ANSWERS = np.arange(20, dtype=np.float32).reshape(4, 5)


@pytest.fixture
def request_for(store, tiny_onnx, tmp_path):
    def make(act, precision="fp32"):
        return BuildRequest(
            shared=shared(store, labels=("cat", "dog")),
            onnx=put_onnx(store, tiny_onnx),
            reference=put_reference(store, tmp_path, samples(), {"scores": ANSWERS}),
            target="null", precision=precision, options={"act": act}, tools={}, host=None,
            builder=hosts.probe(),
        )  # fmt: skip

    return make


def answers(built):
    with open_engine(built.engine.uri) as session:
        return session.infer({"images": samples()})["scores"]


def test_ship_replays_the_recorded_answers(request_for):
    np.testing.assert_array_equal(answers(build(request_for("ship"))), ANSWERS)


def test_drift_answers_wrongly(request_for):
    np.testing.assert_array_equal(answers(build(request_for("drift"))), ANSWERS + 0.5)


def test_untruth_delivers_another_precision(request_for):
    truth = build(request_for("untruth", "fp16")).delivered_precision
    assert (truth.asked, truth.delivered, truth.holds) == ("fp16", "fp32", False)


def test_refuse_refuses(request_for):
    with pytest.raises(BuildError):
        build(request_for("refuse"))


def test_an_unknown_act_is_refused(request_for):
    with pytest.raises(BuildError, match="dance"):
        build(request_for("dance"))


def test_the_labels_themselves_travel_with_the_engine(request_for):
    request = request_for("ship")
    task = dataclasses.replace(request.shared.task, labels="labels.txt")
    request = dataclasses.replace(request, shared=dataclasses.replace(request.shared, task=task))
    assert build(request).engine.manifest.task.labels == ("cat", "dog")
