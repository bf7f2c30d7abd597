"""Ranges hold 0, stay inside what was seen, and cost what their method says they cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineworks.calibrate.collect import TensorCounts
from engineworks.calibrate.derive import silu
from engineworks.calibrate.ranges import METHODS, Histogram, minmax, mse, percentile
from engineworks.qdq import pairs

BOTH = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
EVERY = pytest.mark.parametrize("method", METHODS)
SCHEMES = {
    False: pairs.Scheme(activation="uint8", bias="int32", outputs=True),
    True: pairs.Scheme(activation="int8", bias="float", outputs=False),
}


def seen(*arrays) -> Histogram:
    counts = TensorCounts()
    for array in arrays:
        counts.add(np.asarray(array, np.float32).reshape(1, -1))
    return counts.histogram


def error(values, bounds, symmetric, through=None):
    """Mean squared error of values that went through 8 bits, as the graph will do it."""
    values = np.asarray(values, np.float64)
    found = pairs.step(*bounds, SCHEMES[symmetric])
    limits = (-128, 127) if symmetric else (0, 255)
    back = np.clip(np.round(values / found.scale) + found.zero, *limits) - found.zero
    back = back * found.scale
    wanted = through(values) if through else values
    return float((((through(back) if through else back) - wanted) ** 2).mean())


def cloud(seed, kind):
    """What activations look like: normal, one-sided, flattened, with outliers, far from 0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(4000) * 10.0 ** rng.integers(-6, 6)
    if kind == "relu":
        return np.maximum(values, 0)
    if kind == "negative":
        return -np.abs(values) - values.std()
    if kind == "positive":
        return np.abs(values) + 20 * values.std()
    if kind == "outlier":
        values[0] = 50 * values.std()
    if kind == "silu":
        return silu(values / values.std() * 3)
    return values


CLOUDS = st.builds(
    lambda seed, kind: cloud(seed, kind).astype(np.float32),
    st.integers(0, 10**6),
    st.sampled_from(["normal", "relu", "negative", "positive", "outlier", "silu"]),
)


@EVERY
@BOTH
class TestEvery:
    @given(values=CLOUDS)
    @settings(max_examples=12)
    def test_it_holds_0_and_lies_inside_what_was_seen(self, method, symmetric, values):
        low, high = METHODS[method](seen(values), symmetric)
        assert low <= 0 <= high
        assert low < high
        reach = float(np.abs(values).max())
        floor = -reach if symmetric else min(0.0, float(values.min()))
        ceiling = reach if symmetric else max(0.0, float(values.max()))
        assert floor * (1 + 1e-9) <= low
        assert high <= ceiling * (1 + 1e-9)
        if symmetric:
            assert low == -high

    @given(values=CLOUDS)
    @settings(max_examples=12)
    def test_it_keeps_most_of_the_values(self, method, symmetric, values):
        low, high = METHODS[method](seen(values), symmetric)
        kept = np.mean((values >= low * 1.001) & (values <= high * 1.001))
        assert kept > 0.9

    def test_a_tensor_of_zeros_gets_some_range(self, method, symmetric):
        low, high = METHODS[method](seen(np.zeros(100)), symmetric)
        assert low <= 0 < high

    @pytest.mark.parametrize("value", [1.0, -3.0, 1e-6, -1e6])
    def test_a_constant_can_be_said(self, method, symmetric, value):
        low, high = METHODS[method](seen(np.full(100, value)), symmetric)
        near = 0.01 * abs(value)
        assert low - near <= min(value, 0) and max(value, 0) <= high + near
        assert high - low <= 2 * abs(value) + near

    @pytest.mark.parametrize(("low", "high"), [(-5.0, -4.9), (100.0, 100.1), (1.0, 3.0)])
    def test_values_far_from_0_are_reached(self, method, symmetric, low, high):
        bounds = METHODS[method](seen(np.linspace(low, high, 1000)), symmetric)
        if high < 0:
            assert low <= bounds[0] <= high
        else:
            assert low <= bounds[1] <= high * 1.001

    def test_its_range_scales_with_the_values(self, method, symmetric):
        values = cloud(3, "normal") / cloud(3, "normal").std()
        one = np.array(METHODS[method](seen(values), symmetric))
        thousand = np.array(METHODS[method](seen(values * 1024), symmetric))
        np.testing.assert_allclose(thousand, one * 1024, rtol=1e-5)


@BOTH
def test_minmax_is_the_extremes(symmetric):
    values = np.float32([-1.5, 0.25, 4.0])
    assert minmax(seen(values), symmetric) == ((-4.0, 4.0) if symmetric else (-1.5, 4.0))


@BOTH
@given(values=CLOUDS, keeps=st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0)))
@settings(max_examples=40)
def test_a_percentile_that_keeps_more_is_no_narrower(symmetric, values, keeps):
    histogram = seen(values)
    few, many = (percentile(histogram, symmetric, keep=keep) for keep in sorted(keeps))
    assert many[0] <= few[0]
    assert few[1] <= many[1]


@BOTH
def test_a_percentile_of_all_is_the_extremes(symmetric):
    histogram = seen(cloud(1, "normal"))
    found = percentile(histogram, symmetric, keep=1.0)
    np.testing.assert_allclose(found, minmax(histogram, symmetric), rtol=1e-3)


@BOTH
@pytest.mark.parametrize("keep", [0.9, 0.99, 0.999])
def test_a_percentile_keeps_the_share_that_it_says(symmetric, keep):
    values = cloud(1, "normal").astype(np.float32)
    width = seen(values).width
    low, high = percentile(seen(values), symmetric, keep=keep)
    near = 1 / len(values)
    # Asymmetric: the rest is cut from each side.
    wanted = keep if symmetric else 2 * keep - 1
    assert np.mean((values > low + width) & (values < high - width)) <= wanted + 2 * near
    assert np.mean((values > low - width) & (values < high + width)) >= wanted - 2 * near


@BOTH
@given(values=CLOUDS)
@settings(max_examples=30)
def test_mse_is_no_worse_than_minmax_in_real_8_bit_error(symmetric, values):
    histogram = seen(values)
    best = error(values, mse(histogram, symmetric), symmetric)
    usual = error(values, minmax(histogram, symmetric), symmetric)
    assert best <= usual * 1.25  # it sees bins, not values


@BOTH
def test_mse_cuts_an_outlier_off(symmetric):
    rng = np.random.default_rng(0)
    values = np.append(rng.standard_normal(200_000), 300.0)
    found = mse(seen(values), symmetric)
    assert found[1] < 280
    assert error(values, found, symmetric) < error(
        values, minmax(seen(values), symmetric), symmetric
    )


def test_mse_through_a_function_spends_nothing_where_it_is_flat():
    values = np.concatenate([np.linspace(-40, -10, 2000), np.linspace(-3, 3, 8000)])
    histogram = seen(values)
    found = mse(histogram, False, through=silu)
    assert found[0] > -10
    assert error(values, found, False, silu) < 0.2 * error(
        values, mse(histogram, False), False, silu
    )


@BOTH
def test_entropy_cuts_rare_extremes_and_keeps_the_bulk(symmetric):
    rng = np.random.default_rng(0)
    values = np.append(rng.standard_normal(200_000), [-60.0, 60.0])
    low, high = METHODS["entropy"](seen(values), symmetric)
    assert 2 < high < 30
    assert -30 < low < -2


@BOTH
def test_entropy_keeps_values_that_are_spread_evenly(symmetric):
    low, high = METHODS["entropy"](seen(np.linspace(-1, 1, 100_000)), symmetric)
    assert high > 0.9
    assert low < -0.9


class TestFolded:
    @given(values=CLOUDS)
    @settings(max_examples=30)
    def test_it_is_the_histogram_of_absolute_values(self, values):
        folded = seen(values).folded()
        assert folded.total == len(values)
        assert folded.maximum == float(np.abs(values).max())
        below = np.cumsum(folded.counts)
        edges = (1 + np.arange(len(below))) * folded.width
        near = np.searchsorted(
            np.sort(np.abs(values)), [edges - folded.width, edges + folded.width]
        )
        assert (near[0] <= below).all() and (below <= near[1]).all()


def test_centres_lie_in_the_middle_of_their_bins():
    histogram = Histogram(-2, 0.5, np.array([1, 0, 3]), -0.9, 0.2)
    np.testing.assert_array_equal(histogram.centres, [-0.75, -0.25, 0.25])
    assert histogram.total == 4
