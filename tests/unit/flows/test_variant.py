"""What of a recipe concerns one variant."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.specs import BenchmarkSpec
from engineworks.stages.requests import SizedEngine
from flows._variant import _served
from tests.builders import put_onnx


@pytest.mark.parametrize(
    ("profile", "asked", "timed"),
    [
        (None, (1, 8, 32), (1, 8, 32)),
        (8, (1, 8, 32), (1, 8)),
        (2, (4, 8), (2,)),
    ],
)
def test_batches_that_an_engine_does_not_take_are_not_timed(
    profile, asked, timed, store, tiny_onnx
):
    engine = put_onnx(store, tiny_onnx)
    shapes = [[n, 3, 16, 16] for n in (1, 1, profile)]
    details = {"profile": {"images": shapes}} if profile else {}
    manifest = dataclasses.replace(engine.manifest, details=details)
    sized = SizedEngine(size=(16, 16), engine=dataclasses.replace(engine, manifest=manifest))
    plain = SizedEngine(size=(32, 32), engine=engine)
    assert _served(BenchmarkSpec(batches=asked), [plain, sized]).batches == timed
