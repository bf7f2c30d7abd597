"""Counts are exact, whatever comes in which order; memory and parts change nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineworks.calibrate import collect as collector
from engineworks.calibrate.collect import BINS, COUNTED, TensorCounts, collect, load, save
from engineworks.errors import DataError, ModelError
from engineworks.qdq.graph import Graph
from tests.builders import conv_net, samples

ROWS = samples(5)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(conv_net(tmp_path_factory.mktemp("collect") / "net.onnx"))


@pytest.fixture(scope="module")
def statistics(graph):
    return collect(graph, [row[None] for row in ROWS], threads=2)


@pytest.fixture(scope="module")
def truth(graph):
    """Every observed tensor of every sample, by ONNX Runtime alone."""
    import onnxruntime as ort

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in graph.observed
        if name not in known and name != "images"
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [name for name in graph.observed if name != "images"]
    found = session.run(names, {"images": ROWS})
    return {"images": ROWS, **dict(zip(names, found, strict=True))}


def counted(arrays):
    counts = TensorCounts()
    for array in arrays:
        counts.add(array)
    return counts


def agrees_with_numpy(arrays, histogram):
    """Whether bins hold what numpy counts. A value that is next to nothing beside the range may
    be on either side of its border: -1e-20 is at 0 in bins of 1e-3."""
    values = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)
    exact = np.floor(values / histogram.width).astype(np.int64) - histogram.first
    rounded = np.floor(values / histogram.width - histogram.first).astype(np.int64)
    low, high = np.minimum(exact, rounded), np.maximum(exact, rounded)
    assert low.min() >= 0
    assert high.max() < BINS
    few, many = (np.cumsum(np.bincount(places, minlength=BINS)) for places in (high, low))
    below = np.cumsum(histogram.counts)
    return bool((few <= below).all() and (below <= many).all())


def rows(scale, offset, seed, shape):
    noise = np.random.default_rng(seed).standard_normal(shape)
    return (noise * scale + offset).astype(np.float32)


ARRAYS = st.lists(
    st.builds(
        rows,
        st.sampled_from([0.0, 1e-20, 1e-6, 1.0, 37.5, 1e6, 1e20]),
        st.sampled_from([0.0, 0.0, 1e-6, -1.0, 1000.0, -1e8, 1e20]),
        st.integers(0, 99),
        st.sampled_from([(1, 1), (1, 3, 4, 5), (1, 7, 2), (50,), (1, 2, 30, 30)]),
    ),
    min_size=1,
    max_size=6,
)


class TestTensorCounts:
    @given(arrays=ARRAYS)
    @settings(max_examples=120)
    def test_counts_are_those_of_numpy_however_the_range_grows(self, arrays):
        counts = TensorCounts()
        for number, array in enumerate(arrays, start=1):
            # Every tensor of a graph keeps its shape: add each as one channel.
            counts.add(np.asarray(array).reshape(1, -1, 1))
            histogram = counts.histogram
            assert histogram.total == sum(a.size for a in arrays[:number])
        assert agrees_with_numpy(arrays, histogram)
        assert histogram.minimum == min(float(a.min()) for a in arrays)
        assert histogram.maximum == max(float(a.max()) for a in arrays)

    @given(arrays=ARRAYS)
    @settings(max_examples=60)
    def test_order_changes_nothing_but_the_place_of_the_bins(self, arrays):
        arrays = [np.asarray(a).reshape(1, -1, 1) for a in arrays]
        one, other = (counted(order).histogram for order in (arrays, arrays[::-1]))
        assert (one.minimum, one.maximum, one.total) == (other.minimum, other.maximum, other.total)
        wider = max(one.width, other.width)
        assert wider <= 2 * min(one.width, other.width)

    @given(arrays=ARRAYS)
    @settings(max_examples=60)
    def test_bins_are_as_fine_as_the_range_allows(self, arrays):
        histogram = counted([np.asarray(a).reshape(1, -1, 1) for a in arrays]).histogram
        reach = max(histogram.maximum, 0) - min(histogram.minimum, 0)
        if reach > 1e-30:
            assert reach / histogram.width > BINS / 4

    def test_channels_of_a_picture_are_its_second_dimension(self):
        pictures = [rows(2.0, 1.0, seed, (1, 3, 8, 9)) for seed in range(4)]
        low, high, total = counted(pictures).channels
        every = np.concatenate(pictures)
        np.testing.assert_array_equal(low, every.min((0, 2, 3)))
        np.testing.assert_array_equal(high, every.max((0, 2, 3)))
        np.testing.assert_allclose(total / 4, every.mean((0, 2, 3)), rtol=1e-5)

    @pytest.mark.parametrize("shape", [(1, 6), (1, 4, 6), (6,)])
    def test_elsewhere_they_are_the_last(self, shape):
        array = rows(1.0, 0.0, 0, shape)
        low, high, _ = counted([array]).channels
        flat = array.reshape(-1, 6) if array.ndim > 1 else array.reshape(-1, 1)
        np.testing.assert_array_equal(low, flat.min(0))
        np.testing.assert_array_equal(high, flat.max(0))

    def test_an_even_part_of_a_large_tensor_is_counted_and_all_of_its_extremes(self):
        generator = np.random.default_rng(0)
        arrays = [generator.normal(size=(1, 8, 512, 512)).astype(np.float32) for _ in range(3)]
        arrays[1][0, 3, 511, 511] = 40.0
        found = TensorCounts()
        for array in arrays:
            found.add(array)
        histogram = found.histogram
        assert 0.8 * COUNTED < histogram.total / 3 <= COUNTED
        assert histogram.maximum == 40.0
        assert found.channels[1].max() == 40.0
        # What is counted looks like all of it: mean and spread of the normal distribution.
        share = histogram.counts / histogram.total
        mean = float((share * histogram.centres).sum())
        assert abs(mean) < 0.02
        assert abs(float((share * histogram.centres**2).sum()) - 1.0) < 0.03

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_is_refused(self, poison):
        array = rows(1.0, 0.0, 0, (1, 3, 4, 4))
        array[0, 1, 2, 3] = poison
        with pytest.raises(ModelError, match="NaN or infinite"):
            TensorCounts().add(array)


class TestCollect:
    def test_every_tensor_is_counted_exactly_once(self, graph, statistics, truth):
        assert set(statistics.tensors) == set(graph.observed)
        assert statistics.samples == len(ROWS)
        for name, histogram in statistics.tensors.items():
            assert histogram.total == truth[name].size, name
            assert histogram.minimum == pytest.approx(float(truth[name].min()), abs=1e-5)
            assert histogram.maximum == pytest.approx(float(truth[name].max()), abs=1e-5)

    def test_channels_are_those_of_the_model(self, statistics, truth):
        for name in ("images", "stem", "deep"):
            every = truth[name]
            wanted = [every.min((0, 2, 3)), every.max((0, 2, 3)), every.mean((0, 2, 3))]
            np.testing.assert_allclose(statistics.channels[name], wanted, atol=1e-5)
        assert statistics.channels["scores"].shape == (3, 5)

    def test_ranges_are_looked_at_whenever_the_samples_have_doubled(self, graph, statistics):
        assert statistics.steps == (1, 2, 4, 5)
        assert {len(rows) for rows in statistics.history.values()} == {4}
        found = collect(graph, [row[None] for row in ROWS[:4]])
        assert found.steps == (1, 2, 4)

    def test_a_graph_in_several_parts_gives_the_same(self, graph, statistics, monkeypatch):
        monkeypatch.setattr(collector, "ALIVE_BYTES", 10_000)
        assert len(collector._parts(graph)) > 3
        found = collect(graph, [row[None] for row in ROWS])
        for name, histogram in statistics.tensors.items():
            again = found.tensors[name]
            np.testing.assert_array_equal(again.counts, histogram.counts)
            np.testing.assert_array_equal(found.channels[name], statistics.channels[name])
            np.testing.assert_array_equal(found.history[name], statistics.history[name])

    def test_order_of_the_samples_changes_no_count(self, graph, statistics):
        found = collect(graph, [row[None] for row in ROWS[::-1]])
        for name, histogram in statistics.tensors.items():
            assert found.tensors[name].total == histogram.total
            assert found.tensors[name].minimum == histogram.minimum
            assert found.tensors[name].maximum == histogram.maximum

    def test_no_sample_is_refused(self, graph):
        with pytest.raises(DataError, match="no calibration sample") as caught:
            collect(graph, [])
        assert "calibration.images" in caught.value.hint

    def test_a_sample_that_overflows_is_named_with_the_tensor(self, graph):
        bad = ROWS[2][None].copy()
        bad[0, 0, 0, 0] = np.nan
        with pytest.raises(
            ModelError, match="'images' is NaN or infinite on .* sample 3"
        ) as caught:
            collect(graph, [ROWS[0][None], ROWS[1][None], bad])
        assert "preprocessing" in caught.value.hint

    def test_an_activation_that_overflows_is_named(self, graph):
        huge = np.full((1, 3, 16, 16), 3e38, np.float32)
        with pytest.raises(ModelError, match="is NaN or infinite on calibration sample 2"):
            collect(graph, [ROWS[0][None], huge])


def test_what_was_saved_is_loaded_again(statistics, tmp_path):
    path = tmp_path / "statistics.npz"
    save(statistics, path)
    found = load(path)
    assert (found.steps, found.samples) == (statistics.steps, statistics.samples)
    assert list(found.tensors) == list(statistics.tensors)
    for name, histogram in statistics.tensors.items():
        again = found.tensors[name]
        np.testing.assert_array_equal(again.counts, histogram.counts)
        plain = dataclasses.replace(again, counts=histogram.counts)
        assert plain == histogram
        np.testing.assert_array_equal(found.channels[name], statistics.channels[name])
        np.testing.assert_array_equal(found.history[name], statistics.history[name])
