"""The table of precisions says of each what the rest of the project decides by."""

from __future__ import annotations

import pytest

from engineworks import precisions, targets
from engineworks.errors import RecipeError


@pytest.mark.parametrize(
    ("name", "bytes_each", "exact", "coarse", "searched", "calibrated", "weights_only"),
    [
        ("fp32", 4, True, False, False, False, False),
        ("fp16", 2, False, False, False, False, False),
        ("bf16", 2, False, False, False, False, False),
        ("w8a16", 1, False, True, True, False, True),
        ("int8", 1, False, True, True, True, False),
    ],
)
def test_what_a_precision_is(
    name, bytes_each, exact, coarse, searched, calibrated, weights_only
):  # fmt: skip
    row = precisions.get(name)
    assert (row.name, row.stored_bits) == (name, 8 * bytes_each)
    assert (row.exact, row.coarse, row.searched) == (exact, coarse, searched)
    assert (row.calibrated, row.weights_only, row.must_gain) == (
        calibrated, weights_only, calibrated,
    )  # fmt: skip


def test_every_precision_of_every_target_has_a_row_in_the_tables_order():
    order = list(precisions.PRECISIONS)
    for name in targets.names():
        places = [order.index(precision) for precision in targets.load(name).precisions]
        assert places == sorted(places), name


def test_one_that_is_unknown_is_refused_with_those_that_there_are():
    with pytest.raises(RecipeError, match="no precision 'fp4'") as caught:
        precisions.get("fp4")
    assert caught.value.hint == "the precisions are: fp32, fp16, bf16, w8a16, int8"


def test_numbers_alone_are_never_held_looser_than_beside_a_judge():
    for name, row in precisions.PRECISIONS.items():
        for rule in ("min_snr_db", "min_group_db"):
            assert (getattr(row.alone, rule) or 0) >= (getattr(row.judged, rule) or 0), name
