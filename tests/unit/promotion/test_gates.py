"""Every gate closes for its own reason, and says its number."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.errors import RecipeError
from engineworks.evaluate.paired import Paired
from engineworks.facts.engine import Accuracy, DeliveredPrecision, Parity
from engineworks.promotion import gates
from engineworks.promotion.gates import FIRST, Limits, Race, Standing, judge, verdict
from engineworks.specs import BudgetSpec

GOOD = Standing(
    version="2", sha256="b" * 64, verdict="shipped", reason="all holds", age_days=1.0, simulated="",
    budget=BudgetSpec(max_drop=0.01, max_size_mib=10.0),
    accuracy=Accuracy(metric="top1", value=0.79, reference=0.795, drop=0.005, images=500),
    parity=Parity(
        holds=True, reason="", limit="SNR above 30 dB", max_abs_diff=0.0, relative_diff=0.0,
        snr_db=60.0, identical_rows_diff=0.0, rows=(),
    ),
    delivered_precision=DeliveredPrecision(
        asked="int8", delivered="int8", holds=True, stored_bytes={}, computed_nodes={}
    ),
    machine="rack-1", p50_ms=4.0,
    size_bytes=2**21, labels=("cat", "dog"), data_sha256="d" * 64,
)  # fmt: skip
CHAMPION = dataclasses.replace(GOOD, version="1", p50_ms=4.2)
ENOUGH = Paired(
    metric="top1", photos=500, candidate=0.79, champion=0.788, bound=-0.004, needed=0
)  # fmt: skip


def but(**changes):
    return dataclasses.replace(GOOD, **changes)


EVEN = Race(machine="rack-1", ratio=0.95, ci95=(0.93, 0.97), ms=(4.0, 4.2))


def closed(
    candidate=GOOD, champion=CHAMPION, paired=ENOUGH, race=EVEN, limits=None, accept=()
):  # fmt: skip
    found = judge(candidate, champion, paired, race, limits or Limits(), accept)
    return {gate.name: gate for gate in found if not gate.opens}


def test_what_is_as_good_as_the_champion_passes_every_gate():
    found = judge(GOOD, CHAMPION, ENOUGH, EVEN, Limits())
    assert verdict(found) == "passed" and not closed()
    assert {gate.name: gate.number for gate in found}["latency"] == 0.95


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"verdict": "rejected"}, "verdict", "the version is rejected"),
        ({"verdict": ""}, "verdict", "without a verdict"),
        ({"simulated": "the target null replays answers"}, "real", "null"),
        ({"age_days": 31.0}, "age", "ship it again"),
        ({"parity": dataclasses.replace(GOOD.parity, holds=False, reason="far")}, "parity", "far"),
        (
            {
                "delivered_precision": dataclasses.replace(
                    GOOD.delivered_precision, holds=False, delivered="fp32"
                )
            },
            "precision", "delivered fp32",
        ),
        (
            {"accuracy": dataclasses.replace(GOOD.accuracy, drop=0.011)},
            "budget", "allowed 0.0100",
        ),
        ({"labels": ("dog", "cat")}, "classes", "another model"),
        ({"contract": "other"}, "classes", "preprocessing"),
        ({"data_sha256": "e" * 64}, "data", "not the champion's"),
        ({"size_bytes": 11 * 2**20}, "size", "11.00 MiB"),
        (
            {"packages": (("triton", "proven"), ("torchserve", "failed"))},
            "packages", "torchserve failed",
        ),
    ],
)  # fmt: skip
def test_each_fault_fails_its_own_gate_alone(changes, name, words):
    found = closed(but(**changes))
    assert list(found) == [name] and found[name].outcome == "failed"
    assert words in found[name].reason


def test_a_race_that_was_not_run_or_could_not_tell_is_pending():
    for race, words in (
        ("rack-1 is away", "not raced: rack-1 is away"),
        (dataclasses.replace(EVEN, ratio=1.05, ci95=(0.9, 1.2)), "could not tell"),
    ):
        found = judge(GOOD, CHAMPION, ENOUGH, race, Limits())
        assert verdict(found) == "pending"
        (gate,) = [gate for gate in found if not gate.opens]
        assert gate.name == "latency" and words in gate.reason
        assert not closed(race=race, accept=["latency"])


def test_the_first_champion_needs_a_latency():
    found = judge(but(p50_ms=None), None, "", "", Limits())
    assert {gate.name for gate in found if not gate.opens} == {"latency"}


def test_a_slowdown_that_was_measured_can_be_accepted_by_nobody():
    slower = dataclasses.replace(EVEN, ratio=1.119, ci95=(1.101, 1.14))
    gate = closed(race=slower, accept=["latency"])["latency"]
    assert gate.outcome == "failed" and "1.119 (1.101 to 1.140)" in gate.reason
    assert not closed(race=slower, limits=Limits(slower_than=1.15))


def test_a_loss_beyond_doubt_and_one_that_few_photos_cannot_tell_are_said_apart():
    worse = dataclasses.replace(ENOUGH, candidate=0.75, champion=0.79, bound=-0.06)
    assert "worse by 0.0400" in closed(paired=worse)["accuracy"].reason
    few = dataclasses.replace(ENOUGH, photos=20, bound=-0.08, needed=180)
    gate = closed(paired=few)["accuracy"]
    assert "about 180 labelled photos are needed" in gate.reason
    assert (gate.number, gate.threshold) == (-0.08, -0.01)
    assert closed(paired=few, accept=["accuracy"])  # measured, so nobody may wave it through


def test_what_cannot_be_judged_passes_only_when_a_person_says_so():
    gate = closed(paired="the photos are gone")["accuracy"]
    assert gate.reason == "accuracy not judged: the photos are gone"
    assert not closed(paired="the photos are gone", accept=["accuracy"])
    unlabelled = but(accuracy=None)
    assert "no labels" in closed(unlabelled, None, "", "")["accuracy"].reason
    assert not closed(unlabelled, None, "", "", accept=["accuracy"])


def test_the_first_champion_says_that_there_was_nothing_to_compare_with():
    found = judge(GOOD, None, "", "", Limits())
    assert verdict(found) == "passed"
    assert {g.name for g in found if g.reason == FIRST} == {
        "classes", "data", "accuracy", "latency",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["verdict", "real", "parity", "precision", "classes", "budget"])
def test_nobody_may_accept_what_is_wrong(name):
    with pytest.raises(RecipeError, match="nothing that a person may accept"):
        gates.check([name])


def test_acceptance_is_kept_beside_the_gate():
    found = judge(but(data_sha256="e" * 64), CHAMPION, ENOUGH, EVEN, Limits(), ["data"])
    (data,) = [gate for gate in found if gate.name == "data"]
    assert (data.outcome, data.accepted, verdict(found)) == ("failed", True, "passed")


def test_limits_are_numbers_that_limit():
    for name in ("max_drop", "slower_than", "max_age_days"):
        for value in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(RecipeError, match=name):
                Limits(**{name: value})


def test_a_package_without_its_server_is_pending_and_one_that_does_not_fit_counts_for_none():
    waiting = but(packages=(("triton", "proven"), ("torchserve", "pending")))
    assert [(g.name, g.outcome) for g in closed(waiting).values()] == [("packages", "pending")]
    assert not closed(but(packages=(("triton", "proven"), ("torchserve", "skipped"))))
