"""What the source sees is the truth: lost, gained, moved, and scores that say something else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engineworks.evaluate import seen
from engineworks.evaluate.seen import Seen

RNG = np.random.default_rng(0)
IMAGES, OBJECTS = 5, 4


def image(number):
    """Four objects far apart, each with a weaker neighbour, in classes 0..2."""
    left = np.array([[20.0 + 100 * n, 30 + 10 * number] for n in range(OBJECTS)])
    boxes = np.hstack([left, left + np.array([40, 60])])
    near = boxes + np.array([3, 2, 3, 2])
    score = np.linspace(0.9, 0.4, OBJECTS)
    class_id = np.arange(OBJECTS) % 3
    return Seen(
        xyxy=np.vstack([boxes, near]),
        score=np.concatenate([score, score - 0.05]),
        class_id=np.concatenate([class_id, class_id]),
        kept=np.arange(OBJECTS),
    )


def about(xyxy, factor):
    """Boxes with other sides about their centres."""
    centre, half = (xyxy[:, :2] + xyxy[:, 2:]) / 2, (xyxy[:, 2:] - xyxy[:, :2]) / 2
    return np.hstack([centre - half * factor, centre + half * factor])


WANT = [image(number) for number in range(IMAGES)]


def changed(change):
    return [dataclasses.replace(one, **change(one)) for one in WANT]


def compared(change):
    return seen.compare(WANT, changed(change))


def test_equal_answers_agree_in_everything():
    found = seen.compare(WANT, WANT)
    assert (found.judged, found.reasons) == (True, ())
    figures = found.figures
    assert (figures["objects"], figures["confidence"]) == (20, 0.3)
    assert (figures["lost"], figures["gained"], figures["moved"]) == (0, 0, 0)
    assert (figures["AP"], figures["AP50"], figures["score_ratio"]) == pytest.approx((1, 1, 1))
    assert found.agreement == pytest.approx(1)


def test_another_candidate_of_the_same_object_is_no_loss():
    """Engines differ in which neighbour wins, and near the threshold."""
    found = compared(lambda one: {"score": np.roll(one.score, OBJECTS), "kept": one.kept + OBJECTS})
    assert found.reasons == ()
    assert (found.figures["lost"], found.figures["gained"]) == (0, 0)


DAMAGES = {
    "scores at a third": (lambda one: {"score": one.score / 3}, ["lost", "scores are 0.33"]),
    "scores raised": (lambda one: {"score": one.score + 0.5}, ["scores are 1.7"]),
    "classes permuted": (
        lambda one: {"class_id": (one.class_id + 1) % 3}, ["20 lost", "20 gained", "AP50"],
    ),
    "boxes shifted by half a width": (
        lambda one: {"xyxy": one.xyxy + np.array([20, 0, 20, 0])}, ["20 lost", "20 gained"],
    ),
    "boxes shifted a little": (
        lambda one: {"xyxy": one.xyxy + np.array([7, 0, 7, 0])}, ["20 moved"],
    ),
    "boxes a fifth wider": (  # an overlap of 0.83: none has moved
        lambda one: {"xyxy": about(one.xyxy, np.array([1.2, 1]))}, ["1.20 times as wide"],
    ),
    "boxes a fifth lower": (
        lambda one: {"xyxy": about(one.xyxy, np.array([1, 0.8]))}, ["0.80 times as high"],
    ),
    "boxes three pixels aside": (  # of 40
        lambda one: {"xyxy": one.xyxy + np.array([3, 0, 3, 0])}, ["+0.07 of their width aside"],
    ),
    "scores in two steps": (lambda one: {"score": np.round(one.score * 2) / 2}, ["apart"]),
    "nothing": (
        lambda one: {
            "xyxy": one.xyxy[:0], "score": one.score[:0], "class_id": one.class_id[:0],
            "kept": one.kept[:0],
        },
        ["20 lost", "AP50"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_said(name):
    change, words = DAMAGES[name]
    found = compared(change)
    assert found.judged
    said = "; ".join(found.reasons)
    assert [word for word in words if word not in said] == []


def test_boxes_that_jitter_both_ways_are_sound():
    """Normal errors of 6 % of a box's sides, as rounding makes them."""
    rng = np.random.default_rng(1)

    def change(one):
        sides = np.tile(one.xyxy[:, 2:] - one.xyxy[:, :2], 2)
        return {"xyxy": one.xyxy + rng.normal(0, 0.03, one.xyxy.shape) * sides}

    found = compared(change)
    assert found.reasons == ()
    assert found.figures["width_ratio"] == pytest.approx(1, abs=0.05)


def test_objects_that_only_the_engine_sees_are_gained():
    more = np.array([[300.0, 300, 340, 340], [300, 380, 340, 420]])

    def change(one):
        return {
            "xyxy": np.vstack([one.xyxy, more]),
            "score": np.concatenate([one.score, [0.8, 0.8]]),
            "class_id": np.concatenate([one.class_id, [0, 0]]),
            "kept": np.concatenate([one.kept, [2 * OBJECTS, 2 * OBJECTS + 1]]),
        }

    found = compared(change)
    assert found.figures["gained"] == 2 * IMAGES
    assert "10 gained (allowed 2)" in "; ".join(found.reasons)


def test_a_class_that_vanishes_does_not_hide_among_the_others():
    many = [
        dataclasses.replace(one, class_id=np.where(np.arange(8) % OBJECTS == 3, 9, 0))
        for one in WANT * 5
    ]
    gone = [
        dataclasses.replace(one, score=np.where(one.class_id == 9, 0.06, one.score))
        if number < 14
        else one
        for number, one in enumerate(many)
    ]
    found = seen.compare(many, gone)
    assert "14 of 25 of class 9 are lost" in found.reasons
    few = [
        dataclasses.replace(one, score=np.where(one.class_id == 9, 0.06, one.score))
        if number < 5
        else one
        for number, one in enumerate(many)
    ]
    assert seen.compare(many, few).reasons == ()


def test_a_source_that_sees_nearly_nothing_judges_nothing():
    quiet = [dataclasses.replace(one, score=one.score / 10) for one in WANT]
    assert seen.compare(quiet, quiet).judged is False
    loud = seen.compare(quiet, WANT)
    assert loud.reasons == ("finds 20 objects where the source finds 0",)


def test_a_shy_source_is_judged_lower():
    shy = [dataclasses.replace(one, score=one.score / 4) for one in WANT]
    found = seen.compare(shy, shy)
    assert (found.judged, found.figures["confidence"]) == (True, 0.1)


def test_reading_suppresses_and_drops_what_is_no_box():
    rows = np.array(
        [
            [10, 10, 50, 50, 0.9, 0],
            [11, 10, 51, 50, 0.8, 0],
            [11, 10, 51, 50, 0.7, 1],
            [60, 60, 60, 90, 0.9, 0],
            [0, 0, np.inf, 9, 0.9, 0],
            [70, 70, 90, 90, 0.01, 0],
        ],
        np.float32,
    )

    def decode(outputs, size, confidence):
        rows = outputs["y"][outputs["y"][:, 4] > confidence]
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)

    found = seen.read({"y": rows}, decode, (96, 96))
    assert len(found.score) == 3
    assert found.score[found.kept].tolist() == pytest.approx([0.9, 0.7])
