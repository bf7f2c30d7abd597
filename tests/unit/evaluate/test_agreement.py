"""Two models' answers, object by object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.evaluate import agreement
from engineworks.evaluate.agreement import WORST, difference, score


def box(left=10.0, top=10.0, width=40.0, height=40.0, *, image=1, category=1, score=0.8):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, width, height],
        "score": score,
    }


SEEN = [box(), box(100.0), box(score=0.5, category=2), box(image=2, score=0.9)]

BOXES = st.lists(
    st.builds(
        box, st.floats(0, 50), st.floats(0, 50), st.floats(1, 200), st.floats(1, 200),
        image=st.integers(1, 2), category=st.integers(1, 2), score=st.floats(0.01, 1),
    ),
    max_size=8,
)  # fmt: skip


class TestAgreement:
    def test_equal_answers_agree_fully(self):
        assert score(SEEN, SEEN) == pytest.approx(1)
        assert score(SEEN, SEEN[::-1]) == pytest.approx(1)
        assert score([], []) == 1

    @pytest.mark.parametrize(
        "other",
        [
            SEEN[1:],
            [*SEEN, box(300.0)],
            [box(14.0), *SEEN[1:]],
            [box(score=0.7), *SEEN[1:]],
            [box(category=3), *SEEN[1:]],
            [box(image=3), *SEEN[1:]],
        ],
        ids=["lost", "gained", "moved", "less sure", "another class", "another image"],
    )
    def test_any_difference_costs(self, other):
        assert 0 < score(SEEN, other) < 1

    def test_nothing_in_common_is_nothing(self):
        assert score(SEEN, []) == 0
        assert score([], SEEN) == 0
        assert score([box()], [box(300.0)]) == 0

    def test_it_is_what_a_hand_computes(self):
        # One lost (0.5), one moved by half its overlap rule and less sure: 0.8 * 2/3 * 0.6/0.8.
        found = score([box(), box(200.0, score=0.5)], [box(18.0, score=0.6)])
        assert found == pytest.approx((0.8 * (32 / 48) * (0.6 / 0.8)) / (0.8 + 0.5))

    def test_more_movement_costs_more(self):
        found = [score([box()], [box(10.0 + moved)]) for moved in (0, 1, 2, 4, 8)]
        assert found == sorted(found, reverse=True)
        assert len(set(found)) == 5

    def test_answers_that_nobody_would_show_do_not_count(self):
        assert score(SEEN, [*SEEN, box(300.0, score=0.05)]) == pytest.approx(1)

    def test_sure_objects_matter_more(self):
        pair = [box(score=0.9), box(200.0, score=0.2)]
        assert score(pair, pair[:1]) > score(pair, pair[1:])

    def test_each_object_is_matched_once(self):
        twice = [box(), box(score=0.7)]
        assert score([box()], twice) < 1
        assert score(twice, [box()]) < 1

    @given(one=BOXES, other=BOXES)
    def test_it_lies_between_0_and_1(self, one, other):
        assert 0 <= score(one, other) <= 1 + 1e-9
        assert score(one, one) == pytest.approx(1)


class TestDifference:
    def test_equal_answers_differ_in_nothing(self):
        found = difference(SEEN, SEEN)
        assert (found.matched, found.lost, found.gained, found.moved) == (4, 0, 0, 0)
        assert found.worst == ()
        assert found.lost_by_class == found.gained_by_class == {}

    def test_what_is_lost_gained_and_moved_is_counted_where_it_is(self):
        reference = [
            box(), box(200.0, category=7), box(image=2), box(image=2, width=20.0, height=20.0,
                                                               left=300.0, category=7),
        ]  # fmt: skip
        answers = [box(18.0), box(image=2), box(image=3, width=200.0, height=200.0, category=9)]
        found = difference(reference, answers)
        assert (found.matched, found.lost, found.gained, found.moved) == (2, 2, 1, 1)
        assert found.lost_by_class == {"7": 2}
        assert found.gained_by_class == {"9": 1}
        assert found.by_size == {"small": (1, 0, 0), "medium": (1, 0, 1), "large": (0, 1, 0)}
        photos = [(p.image_id, p.lost, p.gained, p.moved) for p in found.worst]
        assert photos == [(1, 1, 0, 1), (2, 1, 0, 0), (3, 0, 1, 0)]

    def test_faint_answers_are_no_objects(self):
        found = difference([box(score=0.29)], [box(200.0, score=0.29)])
        assert (found.matched, found.lost, found.gained) == (0, 0, 0)
        assert found.confidence == 0.3

    def test_an_object_whose_score_falls_below_is_lost(self):
        assert difference([box(score=0.31)], [box(score=0.29)]).lost == 1

    def test_another_class_is_one_lost_and_one_gained(self):
        found = difference([box()], [box(category=2)])
        assert (found.matched, found.lost, found.gained) == (0, 1, 1)

    def test_the_worst_photos_come_first_and_are_few(self):
        reference = [
            box(100.0 * n, image=image) for image in range(1, 12) for n in range(image)
        ]  # fmt: skip
        found = difference(reference, [])
        assert [photo.image_id for photo in found.worst] == [11, 10, 9, 8, 7, 6][:WORST]
        assert found.lost == sum(range(1, 12))

    @given(one=BOXES, other=BOXES)
    def test_every_visible_object_is_matched_or_not(self, one, other):
        found = difference(one, other)
        assert found.matched + found.lost == sum(entry["score"] >= 0.3 for entry in one)
        assert found.matched + found.gained == sum(entry["score"] >= 0.3 for entry in other)
        assert sum(n[0] for n in found.by_size.values()) == found.lost
        assert found.moved <= found.matched


@pytest.mark.parametrize(
    ("before", "after", "lost", "gained"),
    [
        ([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 10))], set(), set()),
        ([(1, (0, 0, 10, 10))], [(2, (0, 0, 10, 10))], {0}, {0}),
        ([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 5))], set(), set()),
        ([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 4.9))], {0}, {0}),
        # One box pairs up once, with its best partner.
        ([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 6)), (1, (0, 0, 10, 9))], set(), {0}),
        ([], [(1, (0, 0, 10, 10))], set(), {0}),
        ([(1, (0, 0, 0, 0))], [], {0}, set()),
    ],
)
def test_what_only_one_side_has_is_told_by_its_place(before, after, lost, gained):
    def side(entries):
        return [
            {"image_id": 1, "category_id": number, "bbox": list(box), "score": 0.9}
            for number, box in entries
        ]

    assert agreement.unmatched(side(before), side(after)) == (lost, gained)


@pytest.mark.parametrize("seed", range(5))
def test_places_and_counts_agree_on_a_crowded_picture(seed):
    """A picture that shows other objects as lost than the table counts would contradict it."""
    random = np.random.default_rng(seed)

    def side(boxes):
        return [
            {"image_id": 1, "category_id": 1, "bbox": [*box, 30.0, 30.0], "score": score}
            for box, score in zip(boxes.tolist(), random.uniform(0.3, 1, len(boxes)), strict=True)
        ]

    boxes = random.uniform(0, 60, (60, 2))
    left, right = side(boxes), side(boxes[random.permutation(60)] + random.normal(0, 5, (60, 2)))
    found = agreement.difference(left, right)
    lost, gained = agreement.unmatched(left, right)
    assert (len(lost), len(gained)) == (found.lost, found.gained)
    assert found.matched == 60 - len(lost) > 10
