"""Timing says what was measured and how far it can be trusted. No test here asserts a time."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

from engineworks.bench import protocol


def nothing():
    return None


def test_the_figures_of_an_instant_call_are_in_order():
    found = protocol.measure(nothing, seconds=0.02)
    assert found.n >= protocol.MIN_CALLS
    assert found.warmup >= 5 * protocol.WINDOWS
    assert 0 < found.p50_ms <= found.p95_ms
    low, high = found.ci95_ms
    assert low * 0.99 <= found.p50_ms <= high * 1.01  # nanoseconds: blocks differ in rounding
    assert found.mean_ms > 0
    assert found.std_ms >= 0
    assert found.cpu_ms >= 0
    assert all(map(math.isfinite, (found.mean_ms, found.std_ms, found.p95_ms, found.cpu_ms)))


def test_p99_is_told_from_660_calls_on():
    many = protocol.measure(nothing, seconds=0.3)
    assert many.n >= protocol.P99_CALLS
    assert many.p99_ms >= many.p95_ms


def test_p99_is_not_told_from_fewer():
    found = protocol.measure(nothing, seconds=1e-9)
    assert found.n == protocol.MIN_CALLS < protocol.P99_CALLS
    assert found.p99_ms is None


def test_every_call_is_counted():
    calls = itertools.count(1)
    found = protocol.measure(lambda: next(calls), seconds=0.01)
    assert next(calls) - 1 == found.n + found.warmup


def test_an_error_of_the_call_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        protocol.measure(lambda: 1 / 0, seconds=0.01)


def test_latency_that_never_settles_is_said():
    sizes = itertools.cycle([1, 300, 60_000, 5])
    calls = itertools.count()
    state = {"size": 1}

    def ever_slower():
        if next(calls) % 5 == 0:
            state["size"] = next(sizes)
        return sum(range(state["size"]))

    assert protocol.warm_up(ever_slower, limit_s=0.1)[1] is False


@pytest.mark.parametrize("n", [20, 100, 1000])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_the_interval_covers_the_true_median_nine_times_in_ten(n, kind):
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        times = rng.normal(5, 1, n) if kind == "normal" else rng.lognormal(0, 0.5, n)
        low, high = protocol.median_interval(times)
        hits += low <= (5 if kind == "normal" else 1) <= high
    assert hits >= 180


@pytest.mark.parametrize("n", [1, 2, 5, 19, 21])
def test_the_interval_of_few_calls_lies_within_them(n):
    times = np.random.default_rng(n).random(n)
    low, high = protocol.median_interval(times)
    assert times.min() <= low <= np.median(times) <= high <= times.max()


def test_the_interval_of_equal_calls_is_a_point():
    assert protocol.median_interval(np.full(100, 3.0)) == (3.0, 3.0)


def test_other_processes_never_use_a_negative_share():
    for _ in range(20):
        watch = protocol.CpuWatch()
        sum(range(100_000))
        assert watch.others() >= 0


def test_p99_of_a_slow_engine_is_known_when_so_many_calls_are_asked_for():
    """A millisecond a call and no time at all: the calls are made nevertheless."""
    found = protocol.measure(lambda: time.sleep(0.001), seconds=0.01, calls=protocol.P99_CALLS)
    assert found.n == protocol.P99_CALLS
    assert found.p99_ms is not None
    assert found.p99_ms >= found.p95_ms
