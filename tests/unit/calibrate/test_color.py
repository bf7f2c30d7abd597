"""Swapped colours are noticed by what the model itself prefers, never by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.calibrate import color


def images(count, blue=50, red=200):
    return [np.full((4, 4, 3), (blue, 100, red - n % 20), np.uint8) for n in range(count)]


def likes_blue(image):
    """A model that is the surer, the more of channel 0 it sees."""
    return float(image[..., 0].mean())


def test_a_model_that_prefers_the_swap_is_named():
    found = color.warning(images(20), likes_blue)
    assert "surer of 20 of 20 images" in found
    assert "preprocess.color" in found


def test_the_right_order_is_silent():
    assert color.warning(images(20, blue=200, red=50), likes_blue) == ""


def test_few_images_prove_nothing():
    assert color.warning(images(5), likes_blue) == ""
    assert color.warning([], likes_blue) == ""


def test_a_model_that_does_not_care_is_silent():
    assert color.warning(images(64), lambda image: 1.0) == ""
    assert color.warning(images(64), lambda image: 100 + likes_blue(image) / 1000) == ""


def test_no_more_images_than_needed_are_read():
    read = []

    def source():
        for image in images(color.IMAGES + 10):
            read.append(image)
            yield image

    color.warning(source(), likes_blue)
    assert len(read) <= color.IMAGES + 1


def test_the_sign_test_agrees_with_counting_all_outcomes():
    assert color.by_chance(0, 0) == 1
    assert color.by_chance(3, 0) == pytest.approx(1 / 8)
    assert color.by_chance(2, 1) == pytest.approx(4 / 8)
    assert color.by_chance(0, 3) == 1


@given(wins=st.integers(0, 40), losses=st.integers(0, 40))
def test_more_wins_are_never_likelier_by_chance(wins, losses):
    assert 0 < color.by_chance(wins + 1, losses) <= color.by_chance(wins, losses) <= 1
