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


def test_inputs_that_are_answered_stay_and_few_others_are_read():
    inputs, answers, words, taken = read_by([BRIGHT, *DARK, *[BRIGHT] * 100])
    np.testing.assert_array_equal(inputs, np.stack([BRIGHT, *DARK[:3]]))
    np.testing.assert_array_equal(answers["heat"], detector(inputs)["heat"])
    assert (words, taken) == ("", 4 + audible.TRIES)


def test_a_silent_output_gets_an_input_on_which_it_speaks():
    inputs, answers, words, _ = read_by([*DARK, DARK[0], BRIGHT, DARK[1]])
    np.testing.assert_array_equal(inputs, np.stack([*DARK[:3], BRIGHT]))
    assert answers["heat"].max() == pytest.approx(0.9)
    assert words == "inputs were chosen on which heat answers"


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


TEXT = np.full((1, 4, 4), 0.5, np.float32)
TEXT[:, 1, 1] = 0.0
PLAIN = [np.full((1, 4, 4), value, np.float32) for value in (0.5, 0.6, 0.7, 0.8)]


def _text(batch, dead):
    """-16 where there is no ink, 16 where there is; an engine whose branch is dead says -16."""
    return np.where((batch < 0.2) & (not dead), 16.0, -16.0).astype(np.float32)


LAYOUTS = {
    "logits": lambda x, dead: _text(x, dead),
    "softmax": lambda x, dead: np.concatenate(
        [1 / (1 + np.exp(_text(x, dead))), 1 / (1 + np.exp(-_text(x, dead)))], 1
    ),
    "beside a loud one": lambda x, dead: np.concatenate([x + 1, _text(x, dead) / 16], 1),
    "channels last": lambda x, dead: np.stack([x[:, 0] + 1, _text(x, dead)[:, 0]], -1),
    "sigmoid": lambda x, dead: 1 / (1 + np.exp(-_text(x, dead))),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_that_never_answers_fails_whatever_silence_looks_like(layout, precision):
    def source(batch):
        return {"map": LAYOUTS[layout](batch, False)}

    def engine(batch):
        return {"map": LAYOUTS[layout](batch, True)}

    inputs, answers, words = audible.choose(source, [*PLAIN, *PLAIN, TEXT, *PLAIN], 4)
    assert words == "inputs were chosen on which map answers"
    assert any((row == TEXT).all() for row in inputs)
    limit = parity.limit(precision, judged=False)
    assert parity.compare(source, inputs, answers, [1, 4], limit).holds
    assert not parity.compare(engine, inputs, answers, [1, 4], limit).holds


def test_a_channel_that_never_moves_is_said_by_its_number():
    def model(batch):
        return {"map": np.concatenate([batch, np.full_like(batch, 7.0)], 1)}

    _, _, words = audible.choose(model, [*DARK, *DARK, BRIGHT], 4)
    assert words == "channel 1 of map hardly moves on any input tried"


def test_two_channels_that_two_inputs_move_get_both():
    left, right = TEXT.copy(), np.full((1, 4, 4), 0.5, np.float32)
    right[:, 2, 3] = 0.0

    def model(batch):
        ink = (batch < 0.2).astype(np.float32)
        return {"map": np.concatenate([ink[..., :2], ink[..., 2:]], 1)}

    inputs, answers, _ = audible.choose(model, [*PLAIN, left, PLAIN[0], right], 4)
    np.testing.assert_array_equal(inputs, np.stack([*PLAIN[:2], left, right]))
    assert answers["map"].max((0, 2, 3)).tolist() == [1.0, 1.0]


RAMP = np.linspace(0, 8, 4, dtype=np.float32)
HIDDEN = {
    "a pattern that is the same in every picture": lambda x, dead: _text(x, dead) + RAMP,
    "a channel that wobbles a little": lambda x, dead: _text(x, dead) + 2 * x,
    "one of eighty channels": lambda x, dead: np.concatenate(
        [x + n for n in range(79)] + [_text(x, dead)], 1
    ),
    "labels of every pixel": lambda x, dead: (_text(x, dead) > 0).astype(np.int64),
}


@pytest.mark.parametrize("layout", HIDDEN)
def test_no_pattern_wobble_crowd_or_type_hides_silence(layout):
    def source(batch):
        return {"map": HIDDEN[layout](batch, False)}

    def engine(batch):
        return {"map": HIDDEN[layout](batch, True)}

    inputs, answers, _ = audible.choose(source, [*PLAIN, *PLAIN, TEXT, *PLAIN], 4)
    assert any((row == TEXT).all() for row in inputs)
    # Of eighty channels of one size a single dead one is below what lower precisions may be off.
    for precision in ("fp32",) if "eighty" in layout else ("fp32", "fp16", "int8"):
        limit = parity.limit(precision, judged=False)
        assert parity.compare(source, inputs, answers, [1], limit).holds
        assert not parity.compare(engine, inputs, answers, [1], limit).holds


def test_of_many_channels_those_that_never_move_are_not_listed():
    def model(batch):
        return {"scores": np.arange(200, dtype=np.float32)[None].repeat(len(batch), 0)}

    _, _, words = audible.choose(model, [*DARK, *DARK], 4)
    assert words == ""
