"""Parity is judged on inputs that the model answers, and by absolute error where it never does."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.evaluate import parity
from engineworks.export import audible

DARK = [np.full((1, 2, 2), value, np.float32) for value in (0.1, 0.2, 0.3, 0.4)]
BRIGHT = np.full((1, 2, 2), 0.9, np.float32)


def detector(batch):
    """Answers on bright pictures only; `sum` always does."""
    level = batch.mean((1, 2, 3))
    return {"heat": np.where(level > 0.5, level, 1e-7)[:, None], "sum": 100 * level[:, None]}


def read_by(inputs, infer=detector, rows=4):
    taken = []

    def each():
        for one in inputs:
            taken.append(one)
            yield one

    return (*audible.choose(infer, each(), rows), len(taken))


def test_inputs_that_are_answered_stay_and_no_other_is_read():
    inputs, answers, words, taken = read_by([BRIGHT, *DARK, BRIGHT])
    np.testing.assert_array_equal(inputs, np.stack([BRIGHT, *DARK[:3]]))
    np.testing.assert_array_equal(answers["heat"], detector(inputs)["heat"])
    assert (words, taken) == ("", 4)


def test_a_silent_output_gets_an_input_on_which_it_speaks():
    inputs, answers, words, taken = read_by([*DARK, DARK[0], BRIGHT, DARK[1]])
    np.testing.assert_array_equal(inputs, np.stack([*DARK[:3], BRIGHT]))
    assert answers["heat"].max() == pytest.approx(0.9)
    assert words == "inputs were chosen on which heat answers"
    assert taken == 6


def test_one_that_never_speaks_is_said():
    _, answers, words, _ = read_by([*DARK, *DARK])
    assert answers["heat"].max() < 1e-6
    assert "heat is near silent on every input tried (at most 1.0e-07)" in words


def test_a_single_input_can_be_replaced():
    inputs, _, _, _ = read_by([DARK[0], BRIGHT], rows=1)
    np.testing.assert_array_equal(inputs, BRIGHT[None])


def test_pictures_are_pictures_and_differ():
    made = list(audible.pictures((32, 48)))
    assert {(one.shape, one.dtype.name) for one in made} == {((32, 48, 3), "uint8")}
    assert len({one.tobytes() for one in made}) == len(made)


WANTED = {"heat": np.full((4, 9), 1e-7, np.float32), "sum": np.arange(4, dtype=np.float32)[:, None]}


def compare(precision, off):
    def infer(batch):
        heat = np.full((len(batch), 9), 1e-7 + off, np.float32)
        return {"heat": heat, "sum": batch[:, :1, 0, 0]}

    inputs = np.arange(4, dtype=np.float32)[:, None, None, None]
    return parity.compare(
        infer, inputs, WANTED, [1], parity.limit(precision, judged=precision != "int8")
    )


@pytest.mark.parametrize(
    ("precision", "off", "holds"),
    [
        ("fp16", 2e-7, True),  # -6 dB, and yet nothing that anybody could see
        ("fp16", 5e-4, True),
        ("fp16", 2e-3, False),
        ("int8", 4e-3, True),
        ("int8", 0.02, False),
        ("fp32", 5e-4, True),
        ("fp32", 2e-3, False),
    ],
)
def test_a_silent_output_is_judged_by_absolute_error(precision, off, holds):
    found = compare(precision, off)
    assert found.holds is holds
    if precision != "fp32":  # whose rule is absolute below 1 anyway
        assert "output 'heat' is near silent (at most 1.0e-07)" in found.limit
