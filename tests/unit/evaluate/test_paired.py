"""The paired bound is wrong no more often than it says, and says how many photos would tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engineworks.evaluate import paired, photo_scores
from engineworks.evaluate.photo_scores import PhotoScores
from engineworks.evaluate.precision import Side, average_precision


def of_classes(mine, theirs, truth, max_drop):
    scores = [photo_scores.of_classes(answers, truth) for answers in (mine, theirs)]
    return paired.compare(*scores, max_drop)


def of_objects(mine, theirs, truth, max_drop):
    """AP counted anew for every part of the photos."""

    def scores(answers):
        def on(places):
            return average_precision([answers[p] for p in places], [truth[p] for p in places])

        return PhotoScores(metric="AP", photos=len(truth), on=on)

    return paired.compare(scores(mine), scores(theirs), max_drop)


def answers(rng, truth, accuracy):
    """Class answers that are right with a probability."""
    return np.where(rng.random(len(truth)) < accuracy, truth, truth + 1)


def test_the_interval_of_agresti_and_min_by_hand():
    """b = 6, c = 2, n = 100: (6 - 2) / 102 - 1.645 sqrt(9 - 16 / 102) / 102."""
    truth = np.zeros(100, int)
    mine, theirs = truth.copy(), truth.copy()
    theirs[:6] = 1
    mine[50:52] = 1
    found = of_classes(mine, theirs, truth, 0.5)
    assert found.bound == pytest.approx(4 / 102 - 1.645 * math.sqrt(9 - 16 / 102) / 102)
    assert (found.candidate, found.champion, found.needed) == (0.98, 0.94, 0)


def test_a_candidate_at_the_limit_passes_in_at_most_one_of_twenty():
    """Its true loss is just `max_drop`; so a bound that keeps 95 % lets 5 % of them through."""
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(4000):
        truth = rng.integers(0, 5, 400)
        theirs, mine = answers(rng, truth, 0.90), answers(rng, truth, 0.87)
        passed += of_classes(mine, theirs, truth, 0.03).bound > -0.03
    assert 160 <= passed <= 240  # 200 of 4000, within three standard deviations


def test_the_number_that_is_needed_tells():
    truth = np.zeros(30, int)
    few = of_classes(truth, truth, truth, 0.01)
    assert few.bound < -0.01 and 100 < few.needed < 1000
    many = np.zeros(few.needed, int)
    assert of_classes(many, many, many, 0.01).bound > -0.01
    less = np.zeros(few.needed - 1, int)
    assert of_classes(less, less, less, 0.01).bound <= -0.01
    assert of_classes(truth[:0], truth[:0], truth[:0], 0.01).needed > 0


def photos(rng, count, shift=0.0):
    """A labelled object a photo, and answers that are off by a few pixels."""
    truth, found = [], []
    for _ in range(count):
        box = np.array([[*rng.uniform(0, 50, 2), 40.0, 40.0]])
        one = np.zeros(1, int)
        truth.append(Side(box=box, category=one, score=np.ones(1)))
        off = box + np.array([*rng.normal(shift, 2.0, 2), 0, 0])
        found.append(Side(box=off, category=one, score=rng.uniform(0.5, 1, 1)))
    return found, truth


def test_objects_equal_better_worse_and_too_few():
    rng = np.random.default_rng(1)
    good, truth = photos(rng, 100)
    same = of_objects(good, good, truth, 0.01)
    assert (same.bound, same.needed, same.difference) == (0.0, 0, 0.0)
    bad = [
        Side(box=s.box + np.array([9, 9, 0, 0]), category=s.category, score=s.score) for s in good
    ]  # fmt: skip
    worse = of_objects(bad, good, truth, 0.01)
    assert worse.difference < -0.1 and worse.bound < worse.difference and worse.needed == 0
    assert of_objects(good, bad, truth, 0.01).bound > 0
    assert of_objects(good[:19], good[:19], truth[:19], 0.01).needed == 20
    noisy, _ = photos(np.random.default_rng(1), 100)
    jitter = [
        Side(box=s.box + rng.normal(0, 0.5, (1, 4)), category=s.category, score=s.score)
        for s in noisy
    ]
    unsure = of_objects(jitter, noisy, truth, abs(
        of_objects(jitter, noisy, truth, 9.0).difference) + 0.001)  # fmt: skip
    assert unsure.needed > 100
