"""Errors carry a message and a next step, also through pickle."""

from __future__ import annotations

import pickle

import pytest

from engineworks.errors import KINDS, EngineworksError


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("it broke", hint="mend it")))  # noqa: S301
    assert type(error) is kind
    assert (error.message, error.hint) == ("it broke", "mend it")


def test_an_error_shows_what_happened_and_what_to_do():
    assert str(EngineworksError("it broke", hint="mend it")) == "it broke\n  next: mend it"


def test_every_error_can_cross_from_a_child():
    def family(kind):
        return {kind} | {found for sub in kind.__subclasses__() for found in family(sub)}

    ours = {kind for kind in family(EngineworksError) if kind.__module__ == "engineworks.errors"}
    assert ours == set(KINDS.values())
