"""A real TorchServe loads what is written for it and answers as the engine does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineworks.specs import TaskSpec
from engineworks.store import LocalStore
from tests import builders
from tests.unit.packaging.conftest import row

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("rows", [(), (row(1, 20.0), row(4, 40.0))], ids=["single", "merged"])
def test_a_detector(proven, yolox_engine, rows):
    proof = proven("torchserve", yolox_engine, rows, photos=3)
    assert proof.state == "proven", proof.reason
    assert len(proof.checks) == 7


def test_a_classifier(proven, tmp_path, tiny_onnx):
    task = TaskSpec(kind="classification", labels=tuple("abcde"), scores="logits")
    made = LocalStore(tmp_path / "engines")
    engine = builders.put_engine(made, tiny_onnx, name="tiny", task=task)
    proof = proven("torchserve", Path(engine.uri), photos=2)
    assert proof.state == "proven", proof.reason
