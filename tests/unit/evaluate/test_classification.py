"""Top-1 and top-5 against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.errors import ModelError
from engineworks.evaluate.tasks.classification import agreement_score, answers, score


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


class TestAgreement:
    REFERENCE = [["a.png", 0, 0.9], ["b.png", 1, 0.6], ["c.png", 2, 0.5]]

    def test_equal_answers_agree_fully(self):
        assert agreement_score(self.REFERENCE, self.REFERENCE) == 1

    def test_another_class_costs_its_share(self):
        other = [self.REFERENCE[0], ["b.png", 2, 0.6], self.REFERENCE[2]]
        assert agreement_score(self.REFERENCE, other) == pytest.approx(2 / 3)

    def test_another_score_costs_less_than_another_class(self):
        other = [self.REFERENCE[0], ["b.png", 1, 0.3], self.REFERENCE[2]]
        assert agreement_score(self.REFERENCE, other) == pytest.approx((1 + 0.75 + 1) / 3)

    def test_scores_may_be_logits(self):
        reference, other = [["a.png", 0, -2.0]], [["a.png", 0, 2.0]]
        assert agreement_score(reference, other) == 0.5
        assert agreement_score([["a.png", 0, 0.0]], [["a.png", 0, 0.0]]) == 1
