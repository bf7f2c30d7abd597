"""What of a recipe concerns one variant."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.facts.engine import Accuracy, Checked, Meaning
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.plan import PlannedVariant
from engineworks.facts.timing import Comparison, Contender
from engineworks.specs import BenchmarkSpec
from engineworks.stages.benchmark import SizedEngine
from flows.steps.variant import read_first
from tasks.benchmark import served
from tests.builders import example, put_onnx


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
    assert served(BenchmarkSpec(batches=asked), [plain, sized]).batches == timed


class TestRecommended:
    """The star goes to no engine of which only the numbers are known."""

    def variant(self, name, precision="int8", judged=None):
        found = None if judged is None else dataclasses.replace(example(Meaning), judged=judged)
        checked = dataclasses.replace(example(Checked), accuracy=None, meaning=found)
        target = name.partition("/")[0]
        planned = dataclasses.replace(
            example(PlannedVariant), target=target, precision=precision, label="", everywhere=False
        )
        return dataclasses.replace(example(VariantOutcome), planned=planned, checked=checked)

    def timed(self, *names):
        contenders = tuple(dataclasses.replace(example(Contender), variant=name) for name in names)
        return dataclasses.replace(
            example(Comparison), contenders=contenders, recommended=names[0], reason="fastest"
        )

    def test_the_next_that_is_known_is_recommended(self):
        shipped = [self.variant("a/int8", judged=False), self.variant("a/fp16", "fp16")]
        found = read_first(self.timed("a/int8", "a/fp16"), shipped)
        assert found.recommended == "a/fp16"
        assert found.reason == (
            "the fastest of those that are known; what the answers of a/int8 mean was not judged"
        )

    def test_none_is_recommended_where_nothing_is_known(self):
        shipped = [self.variant("a/int8", judged=False), self.variant("b/int8")]
        found = read_first(self.timed("a/int8", "b/int8"), shipped)
        assert found.recommended == ""
        assert "give labels in data" in found.reason

    def test_what_was_judged_keeps_its_place(self):
        shipped = [self.variant("a/int8", judged=True), self.variant("a/fp16", "fp16")]
        timed = self.timed("a/int8", "a/fp16")
        assert read_first(timed, shipped) == timed
        outcome = self.variant("a/int8")
        judged = dataclasses.replace(outcome.checked, accuracy=example(Accuracy))
        labelled = dataclasses.replace(outcome, checked=judged)
        assert read_first(timed, [labelled]) == timed
