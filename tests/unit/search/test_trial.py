"""A candidate is built and judged as the precision that is searched for, not as another one."""

from __future__ import annotations

import types

import numpy as np
import pytest

from engineworks import hosts, targets
from engineworks.errors import BuildError
from engineworks.search.trial import ScoringSet, Workshop
from engineworks.specs import Preprocess, TaskSpec

INPUTS = np.random.default_rng(0).random((2, 3, 4, 4), np.float32)


def workshop(precision, wanted):
    return Workshop(
        target=targets.load("onnxruntime-cpu"),
        options={},
        host=hosts.probe(),
        inputs=(),
        outputs=(),
        scoring_set=ScoringSet(
            data=None, task=TaskSpec(), labels=(), preprocess=Preprocess(), size=(4, 4),
            decode=None, inputs=INPUTS, wanted=wanted,
        ),
        threads=1,
        precision=precision,
    )  # fmt: skip


@pytest.mark.parametrize(("precision", "agrees"), [("int8", True), ("w8a16", False)])
def test_its_numbers_are_held_to_the_limits_of_its_own_precision(precision, agrees):
    """An output that is near silent may be off by 0.01 in integers, by 0.001 in halves."""
    wanted = {"quiet": np.full((2, 1), 1e-3, np.float32)}
    session = types.SimpleNamespace(
        inputs=[types.SimpleNamespace(name="x")],
        infer=lambda feeds: {"quiet": np.full((len(feeds["x"]), 1), 6e-3, np.float32)},
    )
    assert workshop(precision, wanted).answers(session).agrees is agrees


def test_the_builder_is_asked_for_it(tmp_path):
    asked = []

    def build(request):
        asked.append(request.precision)
        raise BuildError("enough", hint="")

    made = workshop("w8a16", {})
    object.__setattr__(made, "target", types.SimpleNamespace(build=build))
    with pytest.raises(BuildError):
        made.build(tmp_path / "model.onnx", made.precision, tmp_path)
    assert asked == ["w8a16"]
