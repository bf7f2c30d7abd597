"""What is quiet beside something loud is judged by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engineworks.evaluate import groups, parity
from engineworks.evaluate.groups import WHOLE
from engineworks.evaluate.parity import Limit

RNG = np.random.default_rng(0)


def heads(cells=200, rows=4):
    """Boxes in pixels and scores in 0..1 of two classes: (rows, 6, cells)."""
    boxes = RNG.uniform(20, 400, (rows, 4, cells))
    scores = RNG.uniform(0, 1, (rows, 2, cells)) ** 4
    return np.concatenate([boxes, scores], axis=1).astype(np.float32)


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_and_scores_are_two_groups(turned):
    want = np.swapaxes(heads(), 1, 2) if turned else heads()
    found = groups.groups(want)
    assert [group.channels for group in found] == [(0, 1, 2, 3), (4, 5)]
    assert {group.axis for group in found} == {2 if turned else 1}
    assert [str(group) for group in found] == ["channels 0..3", "channels 4..5"]


@pytest.mark.parametrize(
    "want",
    [
        RNG.standard_normal((4, 10)),
        RNG.standard_normal((4, 3, 16, 16)),
        RNG.integers(0, 9, (4, 20)),
        np.full((2, 3), np.nan),
        RNG.standard_normal(4),
    ],
    ids=["logits", "map", "whole numbers", "no numbers", "one value a row"],
)
def test_what_has_one_order_of_magnitude_is_one_group(want):
    assert groups.groups(want) == (WHOLE,)
    assert str(WHOLE) == ""


def test_snr_leaves_the_mean_out():
    want = 1000 + RNG.standard_normal(1000)
    noise = 0.1 * RNG.standard_normal(1000)
    by_hand = 20 * math.log10(np.linalg.norm(want - want.mean()) / np.linalg.norm(noise))
    assert groups.snr_db(want + noise, want) == pytest.approx(by_hand, abs=1e-6)
    assert parity.difference(want + noise, want)[2] > by_hand + 50  # with it, nothing is seen


def test_a_constant_is_held_against_itself():
    want = np.full(5, 4.0)
    assert groups.snr_db(want * 0.9, want) == pytest.approx(20)
    assert groups.snr_db(want, want) == groups.EQUAL_DB
    assert groups.snr_db(np.ones(3), np.zeros(3)) == -groups.EQUAL_DB


@pytest.mark.parametrize("precision", ["int8", "w8a16", "fp16", "bf16", "fp32"])
@pytest.mark.parametrize("damage", ["crushed", "raised"])
def test_crushed_scores_do_not_hide_behind_boxes(precision, damage):
    want = heads()
    got = want.copy()
    got[:, 4:] = got[:, 4:] * 0.1 if damage == "crushed" else got[:, 4:] + 0.3
    assert parity.difference(got, want)[2] > 50, "one figure over the tensor sees nothing"
    assert parity.difference(got, want)[1] < 3e-3

    def infer(batch):
        return {"y": got[np.argmin(np.abs(INPUTS - batch[:, :1, :1, :1]).sum((1, 2, 3)))][None]}

    found = parity.compare(infer, INPUTS, {"y": want}, [1], parity.limit(precision, judged=False))
    assert not found.holds
    assert "channels 4..5" in found.reason
    assert found.rows[0].group_snr_db < 20


INPUTS = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)


def test_silent_channels_beside_loud_ones_may_differ_a_little():
    want = heads()
    want[:, 4:] *= 0.01  # nothing is found anywhere
    parts = groups.groups(want)
    assert groups.weakest(want * np.float32(1.0), want, parts)[0] == groups.EQUAL_DB
    got = want.copy()
    got[:, 4:] *= -1
    assert groups.weakest(got, want, parts)[0] == groups.EQUAL_DB
    got[:, 4:] += 0.2
    worst, whose = groups.weakest(got, want, parts)
    assert worst < 0
    assert whose.channels == (4, 5)


def test_floats_are_held_to_the_scale_of_their_group():
    want = heads()
    got = want.copy()
    got[:, 4:] += 0.01  # a tenth of a pixel's thousandth, and a score that is wrong
    limit = Limit(max_relative=1e-3)
    found = parity.compare(lambda batch: {"y": got[:1]}, INPUTS[:1], {"y": want[:1]}, [1], limit)
    assert not found.holds
    assert found.relative_diff == pytest.approx(0.01, rel=0.01)
