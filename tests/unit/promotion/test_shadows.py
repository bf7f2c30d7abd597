"""A shadow run speaks for the two engines that it names, while it is fresh, by its figures."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.facts.shadow import ShadowEngine, ShadowRecord
from engineworks.promotion.gates import FIRST, Limits
from engineworks.promotion.shadows import ShadowEvidence, gate
from tests import builders
from tests.unit.promotion.test_gates import CHAMPION, GOOD

LIVE = dataclasses.replace(CHAMPION, sha256="a" * 64)


def engine(sha256):
    return ShadowEngine(name="tiny", target="openvino", precision="int8", sha256=sha256)


def shadow(age_days=1.0, **changes):
    values = {
        "champion": engine(LIVE.sha256), "candidate": engine(GOOD.sha256), "simulated": False,
        "decision": "not worse", "interval": (-0.004, 0.006), "max_drop": 0.01,
        "judged_by": "labels", "reason": "as good", **changes,
    }  # fmt: skip
    record = dataclasses.replace(builders.example(ShadowRecord), **values)
    return ShadowEvidence(record=record, age_days=age_days)


def judged(*shadows, champion=LIVE, limits=None):
    return gate(GOOD, champion, shadows, limits or Limits())


def test_a_run_that_was_better_or_not_worse_opens():
    for decision, interval in (("not worse", (-0.004, 0.006)), ("better", (0.001, 0.02))):
        found = judged(shadow(decision=decision, interval=interval))
        assert (found.outcome, found.number, found.threshold) == ("passed", interval[0], -0.01)
        assert found.reason == "by labels: as good" and not found.accept


@pytest.mark.parametrize(
    ("changes", "outcome", "words"),
    [
        ({"decision": "worse", "interval": (-0.1, -0.01)}, "failed", "as good"),
        ({"interval": (-0.1, -0.01)}, "failed", "as good"),
        ({"decision": "failed", "interval": None, "reason": "ended"}, "failed", "ended"),
        ({"decision": "not decided", "reason": "few"}, "pending", "few"),
        ({"decision": "same", "interval": None}, "pending", "nothing judged it"),
        ({"interval": (-0.02, 0.01), "max_drop": 0.05}, "failed", "run it with --max-drop 0.01"),
        ({"decision": "better", "interval": (-0.02, 0.01)}, "failed", "0.01 is allowed"),
        ({"simulated": True}, "failed", "double"),
        ({"age_days": 30.1}, "failed", "30.1 days ago"),
        ({"age_days": -1.0}, "failed", "which is to come"),
        ({"candidate": engine("c" * 64)}, "failed", "records are of cccccccccccc, this version is"),
        (
            {"champion": engine("c" * 64)},
            "failed",
            "its champion was cccccccccccc, live is version",
        ),
    ],
)
def test_anything_else_keeps_it_closed(changes, outcome, words):
    found = judged(shadow(**changes))
    assert found.outcome == outcome and words in found.reason and not found.opens


def test_of_several_records_the_newest_of_both_engines_counts():
    old, new = shadow(3.0), shadow(1.0, decision="worse", interval=(-0.1, -0.05))
    stranger = shadow(0.5, candidate=engine("c" * 64))
    assert judged(old, new, stranger).outcome == "failed"
    assert judged(stranger, old).outcome == "passed"
    assert "records are of" in judged(stranger).reason


def test_the_first_champion_had_nothing_beside_it():
    assert judged(shadow(), champion=None).reason == FIRST
