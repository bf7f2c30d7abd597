"""KServe's real Python server runs the container's contents and answers as the engine does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineworks.specs import TaskSpec
from engineworks.store import LocalStore
from tests import builders

pytestmark = pytest.mark.servers


def test_a_detector(proven, yolox_engine):
    proof = proven("kserve", yolox_engine, photos=3)
    assert proof.state == "proven", proof.reason
    assert len(proof.checks) == 6


def test_an_engine_without_a_task(proven, tmp_path, tiny_onnx):
    made = LocalStore(tmp_path / "engines")
    engine = builders.put_engine(made, tiny_onnx, name="tiny", task=TaskSpec())
    proof = proven("kserve", Path(engine.uri))
    assert proof.state == "proven", proof.reason
