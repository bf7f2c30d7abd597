"""Detections keep their columns together."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.runtime.detections import Detections


def some(n=4, tracked=True):
    return Detections(
        xyxy=np.arange(4 * n, dtype=np.float32).reshape(n, 4),
        confidence=np.linspace(0.9, 0.1, n, dtype=np.float32),
        class_id=np.arange(n),
        track_id=np.arange(n) + 100 if tracked else None,
    )


@pytest.mark.parametrize(
    "which",
    [
        np.array([True, False, True, False]),
        np.array([0, 2]),
        slice(0, 3, 2),
    ],
)
def test_a_selection_takes_every_column_along(which):
    chosen = some().select(which)
    assert len(chosen) == 2
    assert chosen.class_id.tolist() == [0, 2]
    assert chosen.track_id.tolist() == [100, 102]
    np.testing.assert_array_equal(chosen.xyxy, some().xyxy[[0, 2]])
    np.testing.assert_array_equal(chosen.confidence, some().confidence[[0, 2]])


def test_a_slice_is_a_selection():
    assert some()[1:3].class_id.tolist() == [1, 2]
    assert some()[:0].xyxy.shape == (0, 4)


def test_untracked_detections_stay_so():
    assert some(tracked=False)[:2].track_id is None
    assert Detections.empty().track_id is None


def test_track_ids_must_be_as_many_as_boxes():
    with pytest.raises(ValueError, match="as many track ids"):
        Detections(
            xyxy=np.zeros((2, 4)),
            confidence=np.zeros(2),
            class_id=np.zeros(2, int),
            track_id=np.zeros(3, int),
        )
