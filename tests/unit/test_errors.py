"""Errors carry a message and a next step, also through pickle."""

from __future__ import annotations

import pickle

import pytest

from engineworks.errors import KINDS, DataError, EngineworksError, said


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("it broke", hint="mend it")))  # noqa: S301
    assert type(error) is kind
    assert (error.message, error.hint) == ("it broke", "mend it")


def test_an_error_shows_what_happened_and_what_to_do():
    assert str(EngineworksError("it broke", hint="mend it")) == "it broke\n  next: mend it"


def test_an_error_fits_a_line_and_a_terminal():
    error = DataError("data.images: 3 are unreadable:\n  a.png\n  b.png", hint="copy them again")
    assert error.line == "data.images: 3 are unreadable:; next: copy them again"
    assert error.block == (
        "DataError: data.images: 3 are unreadable:\n  a.png\n  b.png\n  next: copy them again\n"
    )
    assert DataError("", hint="x").line == "; next: x"


def test_every_error_can_cross_from_a_child():
    def family(kind):
        return {kind} | {found for sub in kind.__subclasses__() for found in family(sub)}

    ours = {kind for kind in family(EngineworksError) if kind.__module__ == "engineworks.errors"}
    assert ours == set(KINDS.values())


class TestSaid:
    def test_short_words_stay_on_one_line(self):
        assert said(ValueError("no  such\n  axis 3")) == "no such axis 3"

    def test_long_words_keep_their_beginning_and_their_end(self):
        words = said("at node Conv_3: " + "because " * 200 + "channels must be 3")
        assert words.startswith("at node Conv_3: because")
        assert words.endswith("channels must be 3")
        assert len(words) <= 400

    def test_a_page_of_weights_is_left_out(self):
        page = ", ".join(f"{n / 7:.4f}" for n in range(300))
        words = said(f"bad attribute [{page}\n] of node Conv_3: shape must be [1, 3, 8, 8]")
        assert words == "bad attribute [... ] of node Conv_3: shape must be [1, 3, 8, 8]"

    def test_an_error_without_words_is_its_kind(self):
        assert said(RuntimeError()) == "RuntimeError"
        assert said("") == "no reason given"
