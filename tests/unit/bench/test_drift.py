"""When a benchmark of now is an alarm."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks.bench.drift import judge
from engineworks.facts.timing import BenchmarkRow
from tests import builders


def row(p50_ms, low_ms, high_ms, inconclusive=""):
    return dataclasses.replace(
        builders.example(BenchmarkRow),
        p50_ms=p50_ms, ci95_ms=(low_ms, high_ms), inconclusive=inconclusive,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        (row(10.0, 9.9, 10.1), "steady"),
        (row(5.0, 4.9, 5.1), "steady"),  # faster is no alarm
        (row(11.5, 11.5, 11.5), "steady"),  # just what is allowed
        (row(11.4, 11.3, 12.5), "steady"),  # the ratio itself is within the limit
        (row(11.6, 11.55, 11.7), "slower"),
        (row(20.0, 19.0, 21.0), "slower"),
        (row(11.6, 11.5, 11.7), "inconclusive"),  # the interval touches the limit
        (row(20.0, 11.0, 21.0), "inconclusive"),
        (row(20.0, 19.0, 21.0, "other processes used 40% of the CPU"), "inconclusive"),
        (row(10.0, 9.0, 11.0, "noisy"), "steady"),  # noise makes slower, not faster
    ],
)
def test_only_a_measurement_without_doubt_raises_an_alarm(now, outcome):
    found = judge(10.0, now, 1.15)
    assert found.outcome == outcome
    assert found.ratio == pytest.approx(now.p50_ms / 10)


def test_the_words_carry_the_figures_and_the_doubt():
    found = judge(10.0, row(20.0, 11.0, 21.0, "noisy"), 1.15)
    assert found.reason == (
        "2.00x the 10 ms of its registration (95 % interval 1.10-2.10): noisy; "
        "the interval reaches below 1.15"
    )
