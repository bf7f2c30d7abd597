"""Deviations and distances, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.sealed import answers, pictures, statistics


def deviations(expected, actual):
    wanted, given = (np.asarray(array, np.float64)[None] for array in (expected, actual))
    return statistics.deviations(wanted, given, statistics.scales(wanted))


def test_every_statistic_sees_its_own_kind_of_deviation():
    line = np.arange(10.0)[:, None]  # its spread is sqrt(8.25)
    spread = np.sqrt(8.25)
    shifted = deviations(line, line + 0.1)
    assert shifted["bias"][0] == pytest.approx(0.1 / spread, rel=1e-5)
    assert shifted["rms"][0] == pytest.approx(0.1 / spread, rel=1e-5)
    assert shifted["rank"][0] == pytest.approx(0, abs=1e-12)
    reversed_ = deviations(line, line[::-1])
    assert reversed_["bias"][0] == pytest.approx(0, abs=1e-9)
    assert reversed_["rank"][0] == pytest.approx(2)
    one = line.copy()
    one[3] += 1
    assert deviations(line, one)["largest"][0] == pytest.approx(1 / spread, rel=1e-5)


def test_a_small_channel_is_not_hidden_by_a_large_one():
    values = np.stack([np.linspace(0, 400, 20), np.linspace(0, 0.01, 20)], axis=1)
    other = values.copy()
    other[:, 1] *= 0.9
    found = deviations(values, other)
    assert found["rms"][0] == 0 and found["rms"][1] > 0.1


def test_what_is_no_number_is_infinitely_far():
    values = np.ones((4, 2))
    other = values.copy()
    other[2, 1] = np.nan
    found = deviations(values, other)
    assert np.isinf(found["rms"][1]) and np.isinf(found["rank"][1]) and found["rms"][0] == 0


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3549, 85), 1), ((84, 8400), 0), ((1000,), -1), ((19, 64, 64), 0), ((300, 4), 1)],
)
def test_channels_are_found_in_any_layout(shape, axis):
    assert statistics.channel_axis(shape) == axis


def boxes(rows):
    table = np.array(rows, np.float32).reshape(-1, 6)
    return {
        "xyxy": table[:, :4], "confidence": table[:, 4], "class_id": table[:, 5].astype(np.int64)
    }  # fmt: skip


ONE = [0, 0, 10, 10, 0.8, 1]
FAR = [50, 50, 60, 60, 0.4, 2]


@pytest.mark.parametrize(
    ("expected", "actual", "distance"),
    [
        ([], [], 0),
        ([ONE, FAR], [FAR, ONE], 0),
        ([ONE], [], 1),
        ([ONE, FAR], [ONE], 0.4 / 2.0),
        ([ONE], [[0, 0, 10, 10, 0.8, 3]], 1),  # another class is another object
        ([ONE], [[0, 0, 10, 10, 0.6, 1]], 0.2 / 1.4),
        ([ONE], [[0, 0, 10, 8, 0.8, 1]], 0.8 * 0.2 / 1.6),  # overlap of 0.8
    ],
)
def test_objects_count_by_their_confidence(expected, actual, distance):
    assert answers.distance(boxes(expected), boxes(actual)) == pytest.approx(distance, abs=1e-6)


def test_points_that_moved_count():
    points = np.array([[[2, 2, 1], [8, 8, 1]]], np.float32)
    here = {**boxes([ONE]), "points": points}
    near = {**boxes([ONE]), "points": points + np.array([1, 0, 0], np.float32)}
    assert answers.distance(here, here) == 0
    # Off by the reach of a box of 10 x 10: exp(-1/2) of it is left, of a confidence of 0.8.
    assert answers.distance(here, near) == pytest.approx((1 - np.exp(-0.5)) / 2, abs=1e-5)


def test_maps_count_pixels_and_classes_confidence():
    here = {"class_map": np.zeros((4, 5), np.int16)}
    there = {"class_map": here["class_map"].copy()}
    there["class_map"][0] = 2
    assert answers.distance(here, there) == pytest.approx(0.25)
    want = {"class_id": np.array([3, 1]), "confidence": np.array([0.7, 0.3])}
    got = {"class_id": np.array([3, 2]), "confidence": np.array([0.6, 0.3])}
    assert answers.distance(want, got) == pytest.approx((0.1 + 0.3 + 0.3) / 1.9)


def test_generated_pictures_are_the_same_each_time_and_every_second_is_resized():
    one, other = (list(pictures.generated(4, (32, 48))) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert [picture.shape[:2] == (32, 48) for picture in one] == [True, False, True, False]
    assert all(picture.dtype == np.uint8 and picture.std() > 20 for picture in one)
