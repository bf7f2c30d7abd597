"""The fastest variant is named when it is certain; among equals the recipe decides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engineworks.bench import compare
from engineworks.bench.compare import ROUNDS, rank

RNG = np.random.default_rng(5)
SIZE = (8, 8)


def blocks(ms, noise=0.01):
    return ms * (1 + RNG.normal(0, noise, ROUNDS))


@pytest.mark.parametrize("turned", [False, True])
def test_a_clear_winner_is_recommended(turned):
    medians = {"slow": blocks(10.0), "fast": blocks(4.0), "middle": blocks(6.0)}
    if turned:
        medians = dict(reversed(medians.items()))
    found = rank(medians, SIZE)
    assert found.recommended == "fast"
    assert [c.variant for c in found.contenders] == ["fast", "middle", "slow"]
    fast, middle, slow = found.contenders
    assert (fast.ratio, fast.ci95) == (1, (1, 1))
    assert middle.ratio == pytest.approx(1.5, rel=0.03)
    assert slow.ci95[0] <= slow.ratio <= slow.ci95[1]
    assert "middle takes 1.5" in found.reason
    assert (found.size, found.batch) == (SIZE, 1)


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_among_equals_the_first_in_the_recipe_is_recommended(order):
    medians = {name: blocks(5.0) for name in order}
    found = rank(medians, SIZE)
    assert found.recommended == order[0]
    assert order[1] in found.reason
    assert "first in the recipe" in found.reason


def test_a_clearly_slower_one_is_not_recommended_for_standing_first():
    same = blocks(5.0)
    found = rank({"slow": blocks(9.0), "b": same, "a": same.copy()}, SIZE)
    assert found.recommended == "b"
    assert "slow" not in found.reason


def test_drift_of_the_machine_does_not_make_a_tie():
    """Both take twice as long in the second half; side by side one is always 5 % slower."""
    drift = np.linspace(1, 2, ROUNDS)
    found = rank(
        {"slower": blocks(5.25, 0.001) * drift, "faster": blocks(5.0, 0.001) * drift}, SIZE
    )
    assert found.recommended == "faster"
    assert found.contenders[1].ratio == pytest.approx(1.05, abs=0.005)


def test_a_single_contender_is_recommended():
    found = rank({"only": blocks(5.0)}, SIZE)
    assert found.recommended == "only"
    assert len(found.contenders) == 1
    assert found.reason == "the only variant that is shipped"


def test_the_same_blocks_give_the_same_answer():
    medians = {"a": blocks(5.0, 0.05), "b": blocks(5.05, 0.05), "c": blocks(5.1, 0.05)}
    assert rank(medians, SIZE) == rank(medians, SIZE)


class TestAlternate:
    def test_every_call_is_timed_in_every_round(self, monkeypatch):
        monkeypatch.setattr(compare, "BLOCK_S", 0.0)
        monkeypatch.setattr(compare, "SETTLE_S", 0.0)
        made = []
        calls = {name: lambda name=name: made.append(name) for name in ("one", "two", "three")}
        found = compare.alternate(calls, 4)
        assert list(found) == ["one", "two", "three"]
        assert {values.shape for values in found.values()} == {(4,)}
        order = [made[0]] + [b for a, b in itertools.pairwise(made) if a != b]
        # Reversed every round, so that nobody always comes after the same one.
        assert order == ["three", "two", "one", "two", "three", "two", "one", "two", "three"]


class TestRatio:
    def test_it_is_that_of_the_same_rounds(self):
        base = np.array([1.0, 2.0, 4.0, 8.0, 16.0])  # a machine that gets slower
        middle, (low, high) = compare.ratio(base * 1.5, base)
        assert (middle, low, high) == (1.5, 1.5, 1.5)

    def test_its_interval_holds_the_truth(self):
        middle, (low, high) = compare.ratio(blocks(6.0), blocks(5.0))
        assert low <= middle <= high
        assert low < 1.2 < high
        assert high - low < 0.05
