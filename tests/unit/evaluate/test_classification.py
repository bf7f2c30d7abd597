"""Top-1 and top-5 against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.errors import ModelError
from engineworks.evaluate.classification import answers, score


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_the_shares_equal_counting(images, classes, seed):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(classes, dtype=np.float32), (images, 1)), axis=1)
    truth = rng.integers(0, classes, images)
    top = [sorted(range(classes), key=lambda c: -row[c]) for row in scores]
    found = score(scores, truth)
    assert found["top1"] == pytest.approx(
        sum(order[0] == t for order, t in zip(top, truth, strict=True)) / images
    )
    assert found["top5"] == pytest.approx(
        sum(t in order[:5] for order, t in zip(top, truth, strict=True)) / images
    )


def test_among_equal_scores_the_first_class_wins():
    assert score(np.zeros((1, 6), np.float32), np.array([0]))["top1"] == 1
    assert score(np.zeros((1, 6), np.float32), np.array([5]))["top5"] == 0


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1, 1), (2, 1, 3)])
def test_class_scores_of_any_usual_shape_are_taken(shape):
    assert answers({"y": np.zeros(shape)}, 3).shape == (2, 3)


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"a": np.zeros((1, 3)), "b": np.zeros((1, 3))}, "2"),
        ({}, "0"),
        ({"y": np.zeros((1, 1000))}, "1000 classes, task.labels names 3"),
    ],
)
def test_outputs_that_are_no_class_scores_are_refused(outputs, says):
    with pytest.raises(ModelError, match=says):
        answers(outputs, 3)
