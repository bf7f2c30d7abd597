"""Frames become observations: pictures one each, those of some seconds of a stream together."""

from __future__ import annotations

import pytest

from engineworks.evaluate import frame_scores
from engineworks.evaluate.sequential import SequentialTest
from engineworks.facts.shadow import ShadowAgreement
from engineworks.shadow.comparison import AnswerComparison, AnsweredFrame
from engineworks.shadow.record import changed

CAT, DOG = [{"category_id": 0, "score": 0.9}], [{"category_id": 1, "score": 0.8}]


def frame(candidate=CAT, truth=CAT, time_s=0.0, source=1, timed=True):
    return AnsweredFrame(
        champion=CAT, candidate=candidate, truth=truth, timed=timed, source=source, time_s=time_s
    )  # fmt: skip


def comparison(**changes):
    values = {"judged": True, "block_s": 2.0, "max_drop": 0.01, **changes}
    return AnswerComparison(frame_scores.of("classification"), **values)


def fed(held, frames):
    for entry in frames:
        held.add(entry)
    held.finish()
    return held


def test_frames_of_two_seconds_are_one_observation_and_no_block_spans_two_sources():
    times_s = [0.0, 1.0, 1.9, 2.0, 3.5, 6.0]
    held = fed(comparison(), [frame(time_s=at) for at in times_s])
    assert (held.compared, held.observations) == (6, 3)
    held = fed(comparison(), [frame(time_s=0.5), frame(time_s=0.5, source=2)])
    assert held.observations == 2
    pictures = [frame(time_s=at, timed=False, source=0) for at in times_s]
    assert fed(comparison(), pictures).observations == 6
    assert fed(comparison(block_s=0.0), [frame(time_s=at) for at in times_s]).observations == 6


def test_the_difference_is_the_mean_over_observations_and_what_changed_is_counted():
    held = fed(
        comparison(), [frame(DOG, time_s=0), frame(time_s=1), frame(time_s=2), frame(time_s=4)]
    )
    assert held.mean_scores == pytest.approx((1.0, (0.5 + 1 + 1) / 3))
    found = held.agreement()
    assert (found.frames, found.share, found.lost, found.gained, found.matched) == (
        1,
        0.25,
        1,
        1,
        3,
    )
    alone = SequentialTest(0.01)
    for value in (-0.5, 0.0, 0.0):
        alone.add(value)
    assert held.interval() == alone.interval()
    assert held.needed() == round(alone.needed() * 4 / 3)
    soon = fed(comparison(), [frame(DOG, time_s=float(at)) for at in range(8)])
    assert soon.needed() == (30 - 4) * 2  # two frames an observation


def test_ap_of_all_frames_is_told_beside_the_score_of_each():
    """The candidate is less sure of a right box than of a wrong one of another frame."""

    def box(left, score=1.0):
        return [{"image_id": 0, "category_id": 0, "bbox": [left, 10.0, 40.0, 40.0], "score": score}]

    held = AnswerComparison(
        frame_scores.of("detection"), judged=True, block_s=0.0, max_drop=0.01
    )  # fmt: skip
    for champion, candidate in ((box(0, 0.9), box(0, 0.4)), (box(200, 0.5), box(200, 0.5))):
        held.add(
            AnsweredFrame(
                champion=champion, candidate=candidate, truth=box(0), timed=False, source=0,
                time_s=0.0,
            )
        )  # fmt: skip
    # Half of the objects are found, 51 of 101 recalls: at precision 1, or at 1/2.
    assert held.pooled() == pytest.approx((51 / 101, 51 / 202))
    assert held.mean_scores == (0.5, 0.5)  # frame by frame there is no difference
    assert fed(comparison(), [frame()]).pooled() is None


def test_nothing_counts_after_a_decision():
    held = comparison(block_s=0.0)
    for number in range(40):
        held.add(frame(DOG, time_s=float(number), timed=False))
    assert held.decision == "worse"
    assert held.decided_frame == held.compared == held.observations < 15


def test_without_a_judge_nothing_is_decided():
    held = fed(comparison(judged=False), [frame(DOG, None, float(at)) for at in range(80)])
    assert held.decision == "" and held.interval() is None and held.mean_scores is None
    assert held.agreement().share_interval[0] > 0.5


def test_a_stream_whose_blocks_are_alike_decides_nothing():
    """Bad for 30 s, good for 30 s: with blocks of 2 s, 15 observations would repeat each other."""
    scenes = [DOG] * 30 + [CAT] * 30
    frames = [frame(seen, time_s=float(at)) for at, seen in enumerate(scenes * 8)]
    held = fed(comparison(max_drop=None), frames)
    assert held.alike and held.correlation > 0.5 and held.decision == ""
    assert fed(comparison(), frames[:30] * 1).decision == ""  # nothing but the first scene
    broken = [frame(DOG, time_s=float(at)) for at in range(100)]
    assert fed(comparison(), broken).decided_frame == 60


def test_what_changed_is_said_of_objects_or_of_classes():
    held = fed(comparison(judged=False), [frame(DOG), frame()])
    assert changed(held.agreement()).startswith("1 classes the same, 1 others; scores +0.0000")
    boxes = ShadowAgreement(matched=3, lost=1, gained=2, moved=1, mean_shift=-0.01)
    assert changed(boxes).startswith("3 objects in both, 1 lost, 2 gained, 1 moved; scores -0.0100")
