"""The decision: every limit of the budget, held and broken, with its numbers."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.facts.engine import Accuracy, Built, Checked, Meaning, Parity
from engineworks.facts.int8 import Quantized
from engineworks.facts.timing import Benchmark, BenchmarkRow, PrecisionComparison
from engineworks.specs import BudgetSpec
from engineworks.verdict import decide, waiting
from tests.builders import example

NO_LIMIT = BudgetSpec(max_drop=None)
MIB = 2**20


def built(holds=True, size_bytes=3 * MIB):
    value = example(Built)
    other = dataclasses.replace(
        value.delivered_precision, asked="fp16", delivered="fp32", holds=holds
    )
    engine = dataclasses.replace(value.engine, size_bytes=size_bytes)
    return dataclasses.replace(value, delivered_precision=other, engine=engine)


def checked(holds=True, reference=0.9, value=0.89, with_accuracy=True):
    parity = dataclasses.replace(
        example(Parity), holds=holds, reason="" if holds else "output 'y' is off by 0.5"
    )
    accuracy = Accuracy(
        metric="AP", value=value, reference=reference, drop=reference - value, images=9
    )
    return dataclasses.replace(
        example(Checked), parity=parity, accuracy=accuracy if with_accuracy else None
    )


def row(p50_ms=7.25, **changes):
    return dataclasses.replace(example(BenchmarkRow), p50_ms=p50_ms, **changes)


HELD = {
    "no limit at all": (NO_LIMIT, checked(value=0.1), None),
    "the drop": (BudgetSpec(max_drop=0.02), checked(), None),
    "a gain": (BudgetSpec(max_drop=0.0), checked(value=0.95), None),
    "no metric": (BudgetSpec(max_drop=0.0), checked(with_accuracy=False), None),
    "latency": (BudgetSpec(max_drop=None, max_p50_ms=7.25), checked(), row()),
    "size": (BudgetSpec(max_drop=None, max_size_mib=3.0), checked(), None),
    "p95": (BudgetSpec(max_drop=None, max_p95_ms=7.5), checked(), row(p95_ms=7.5)),
    "p99": (BudgetSpec(max_drop=None, max_p99_ms=9.5), checked(), row(p99_ms=9.25)),
}


@pytest.mark.parametrize("limit", HELD)
def test_a_variant_that_holds_the_budget_is_shipped(limit):
    budget, facts, first = HELD[limit]
    verdict = decide(budget, built(), facts, first)
    assert verdict.verdict == "shipped"
    assert facts.parity.limit in verdict.reason
    if facts.accuracy is not None:
        assert f"AP {facts.accuracy.value:.4f}, source 0.9000" in verdict.reason


BROKEN = {
    "the drop": (BudgetSpec(max_drop=0.005), checked(), None, ["0.8900", "0.9000", "0.0050"]),
    "parity": (NO_LIMIT, checked(holds=False), None, ["parity", "'y' is off by 0.5"]),
    "latency": (
        BudgetSpec(max_drop=None, max_p50_ms=7.0), checked(), row(), ["7.25 ms", "7.00 ms"],
    ),
    "p95": (
        BudgetSpec(max_drop=None, max_p50_ms=8.0, max_p95_ms=7.5), checked(), row(p95_ms=8.5),
        ["p95 8.50 ms", "allowed 7.50 ms"],
    ),
    "p99": (
        BudgetSpec(max_drop=None, max_p99_ms=9.0), checked(), row(p99_ms=9.25),
        ["p99 9.25 ms", "allowed 9.00 ms"],
    ),
    "too few calls for p99": (
        BudgetSpec(max_drop=None, max_p99_ms=9.0), checked(), row(p99_ms=None),
        ["p99 was not measured"],
    ),
    "unmeasured latency": (
        BudgetSpec(max_drop=None, max_p50_ms=7.0), checked(), None, ["not measured", "7.00 ms"],
    ),
    "size": (
        BudgetSpec(max_drop=None, max_size_mib=2.5), checked(), None, ["3.00 MiB", "2.50 MiB"],
    ),
    "all at once": (
        BudgetSpec(max_drop=0.0, max_p50_ms=1.0, max_size_mib=1.0), checked(holds=False), row(),
        ["parity", "0.8900", "7.25 ms", "3.00 MiB"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("limit", BROKEN)
def test_a_broken_limit_rejects_with_both_numbers(limit):
    budget, facts, first, says = BROKEN[limit]
    verdict = decide(budget, built(), facts, first)
    assert verdict.verdict == "rejected"
    assert [words for words in says if words not in verdict.reason] == []


def test_another_precision_than_asked_fails_whatever_else_holds():
    verdict = decide(NO_LIMIT, built(holds=False), checked(), row())
    assert verdict.verdict == "failed"
    assert verdict.reason == "asked for fp16, the engine is fp32"


@pytest.mark.parametrize(("right", "wrong"), [(461, 460), (92, 91), (300, 299)])
def test_a_drop_of_exactly_the_limit_is_allowed(right, wrong):
    """0.922 - 0.920 is a little above 0.002 in binary; a budget means what it says."""
    images = 500 if right > 100 else 100
    limit = (right - wrong) / images
    facts = checked(reference=right / images, value=wrong / images)
    verdict = decide(BudgetSpec(max_drop=limit), built(), facts, None)
    assert verdict.verdict == "shipped", verdict.reason


def test_the_first_row_is_the_models_own_size_at_batch_1():
    rows = tuple(
        row(height=height, width=width, batch=batch, p50_ms=float(number))
        for number, (height, width, batch) in enumerate([(8, 9, 4), (9, 8, 1), (8, 9, 1)])
    )
    measured = dataclasses.replace(example(Benchmark), rows=rows)
    assert measured.first(8, 9).p50_ms == 2
    assert measured.first(8, 8) is None


def comparison(speedup, low, high, size_mib=4.0):
    return PrecisionComparison(
        variant="openvino/fp16",
        speedup=speedup,
        ci95=(low, high),
        size_bytes=int(size_mib * MIB),
    )


class TestRival:
    """INT8 must also beat the next higher precision."""

    def test_certainly_faster_is_shipped_with_its_numbers(self):
        verdict = decide(NO_LIMIT, built(), checked(), row(), comparison(1.5, 1.4, 1.6))
        assert verdict.verdict == "shipped"
        assert "1.50x as fast as openvino/fp16 (95 % interval 1.40-1.60)" in verdict.reason

    def test_certainly_slower_is_rejected_and_says_what_to_use(self):
        verdict = decide(NO_LIMIT, built(), checked(), row(), comparison(0.5, 0.4, 0.8))
        assert verdict.verdict == "rejected"
        assert "slower than openvino/fp16: takes 2.00x as long" in verdict.reason
        assert "(95 % interval 1.25-2.50)" in verdict.reason
        assert "use openvino/fp16" in verdict.reason

    @pytest.mark.parametrize("low", [0.98, 1.0])
    def test_perhaps_faster_is_rejected(self, low):
        verdict = decide(NO_LIMIT, built(), checked(), row(), comparison(1.01, low, 1.05))
        assert verdict.verdict == "rejected"
        assert "not faster than openvino/fp16 with confidence: 1.01x as fast" in verdict.reason
        assert "slower" not in verdict.reason

    def test_where_size_is_the_goal_the_time_does_not_matter(self):
        slow = comparison(0.5, 0.4, 0.6, size_mib=4.0)
        verdict = decide(NO_LIMIT, built(), checked(), row(), slow, "size")
        assert verdict.verdict == "shipped"
        assert "engine 3.00 MiB, openvino/fp16 4.00 MiB" in verdict.reason

    @pytest.mark.parametrize("size_mib", [3.0, 2.0])
    def test_where_size_is_the_goal_it_must_be_smaller(self, size_mib):
        fast = comparison(9.0, 8.0, 10.0, size_mib=size_mib)
        verdict = decide(NO_LIMIT, built(), checked(), row(), fast, "size")
        assert verdict.verdict == "rejected"
        assert f"openvino/fp16 {size_mib:.2f} MiB: not smaller, use openvino/fp16" in verdict.reason

    def test_both_reasons_are_named_when_it_is_neither_accurate_nor_fast(self):
        budget = BudgetSpec(max_drop=0.005)
        verdict = decide(budget, built(), checked(), row(), comparison(0.5, 0.4, 0.6))
        assert verdict.verdict == "rejected"
        accuracy, speed = verdict.reason.split("; ", 1)
        assert "0.8900" in accuracy and "0.0050" in accuracy
        assert speed.startswith("slower than openvino/fp16")

    def test_fast_but_inaccurate_is_rejected(self):
        budget = BudgetSpec(max_drop=0.005)
        verdict = decide(budget, built(), checked(), row(), comparison(3.0, 2.9, 3.1))
        assert verdict.verdict == "rejected"
        assert "as fast" not in verdict.reason

    def test_what_is_no_int8_fails_however_fast_it_is(self):
        found = decide(NO_LIMIT, built(holds=False), checked(), row(), comparison(3.0, 2.9, 3.1))
        assert found.verdict == "failed"


def meaning(holds=True, words="means what the source means on 9 images"):
    return dataclasses.replace(
        example(Meaning), holds=holds, reason="" if holds else "detections: 5 lost", words=words
    )


class TestMeaning:
    """Where no labels judge, what answers mean does."""

    def unlabelled(self, **changes):
        return dataclasses.replace(checked(with_accuracy=False), meaning=meaning(**changes))

    def test_what_holds_is_said(self):
        verdict = decide(NO_LIMIT, built(), self.unlabelled(), row())
        assert verdict.verdict == "shipped"
        assert "means what the source means on 9 images" in verdict.reason

    def test_another_meaning_is_rejected_though_numbers_agree(self):
        verdict = decide(NO_LIMIT, built(), self.unlabelled(holds=False), row())
        assert verdict.verdict == "rejected"
        assert "does not mean what the source means: detections: 5 lost" in verdict.reason

    def test_what_was_not_judged_ships_with_weaker_words(self):
        words = "numbers agree; what they mean was not judged"
        verdict = decide(NO_LIMIT, built(), self.unlabelled(words=words), row())
        assert (verdict.verdict, words in verdict.reason) == ("shipped", True)

    def test_labels_overrule_it(self):
        facts = dataclasses.replace(checked(), meaning=meaning(holds=False))
        assert decide(NO_LIMIT, built(), facts, row()).verdict == "shipped"

    def test_it_rejects_what_still_waits_for_its_machine(self):
        verdict = waiting(NO_LIMIT, built(), "macOS", checked=self.unlabelled(holds=False))
        assert verdict.verdict == "rejected"
        assert "5 lost" in verdict.reason


class TestCutShort:
    """A search that ran out of its limit says so, whatever came of it."""

    @pytest.mark.parametrize(
        ("stopped", "option"),
        [
            ("the time limit of 60 s was reached", "raise int8.limit_s"),
            ("the limit of 200 evaluations was reached", "raise int8.evaluations"),
        ],
    )
    @pytest.mark.parametrize("word", ["shipped", "rejected"])
    def test_it_is_said_with_the_option_to_raise(self, stopped, option, word):
        searched = dataclasses.replace(example(Quantized), stopped=stopped)
        against = comparison(1.5, 1.4, 1.6) if word == "shipped" else comparison(1.0, 0.9, 1.1)
        verdict = decide(NO_LIMIT, built(), checked(), row(), against, quantized=searched)
        assert verdict.verdict == word
        assert f"the search was cut short ({stopped}): {option}" in verdict.reason

    def test_a_search_that_ended_by_itself_says_nothing(self):
        searched = dataclasses.replace(example(Quantized), stopped="")
        verdict = decide(NO_LIMIT, built(), checked(), row(), quantized=searched)
        assert "cut short" not in verdict.reason


class TestWaiting:
    def test_what_was_built_and_cannot_be_opened_waits(self):
        verdict = waiting(NO_LIMIT, built(), "an RTX GPU")
        assert verdict.verdict == "pending"
        assert "waits for a host with an RTX GPU" in verdict.reason

    def test_what_a_simulation_says_stands_in_the_reason(self):
        quantized = dataclasses.replace(example(Quantized), reason="9 layers; simulated")
        assert "9 layers; simulated" in waiting(NO_LIMIT, built(), "an RTX GPU", quantized).reason

    def test_another_precision_than_asked_is_no_reason_to_wait(self):
        verdict = waiting(NO_LIMIT, built(holds=False), "an RTX GPU")
        assert (verdict.verdict, "asked for fp16" in verdict.reason) == ("failed", True)

    def test_a_replay_says_what_holds_and_that_it_was_one(self):
        verdict = waiting(BudgetSpec(max_drop=0.01), built(), "macOS", checked=checked())
        assert verdict.verdict == "pending"
        assert "0.8900" in verdict.reason
        assert "ONNX Runtime in place of its own runtime" in verdict.reason
        assert "waits for a host with macOS" in verdict.reason

    @pytest.mark.parametrize("budget", [BudgetSpec(max_drop=0.005), BudgetSpec(max_size_mib=2.0)])
    def test_what_is_outside_the_budget_need_not_wait(self, budget):
        verdict = waiting(budget, built(), "macOS", checked=checked())
        assert verdict.verdict == "rejected"
        assert "allowed" in verdict.reason
        assert "in place of its own runtime" in verdict.reason

    def test_size_is_known_without_running_anything(self):
        verdict = waiting(BudgetSpec(max_size_mib=2.0), built(), "an RTX GPU")
        assert verdict.verdict == "rejected"
        assert "in place of" not in verdict.reason
