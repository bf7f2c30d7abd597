"""What of a recipe concerns one variant."""

from __future__ import annotations

import pytest

from engineworks.specs import BenchmarkSpec
from engineworks.values import PlannedVariant
from flows._variant import _served


@pytest.mark.parametrize(
    ("options", "asked", "timed"),
    [
        ({}, (1, 8, 32), (1, 8, 32)),
        ({"batch": [1, 1, 8]}, (1, 8, 32), (1, 8)),
        ({"batch": [1, 2, 2]}, (4, 8), (2,)),
    ],
)
def test_batches_that_an_engine_does_not_take_are_not_timed(options, asked, timed):
    planned = PlannedVariant(
        target="tensorrt", precision="fp16", options=options, required=True, action="run", reason=""
    )
    assert _served(BenchmarkSpec(batches=asked), planned).batches == timed
