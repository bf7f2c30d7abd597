"""Agreement is a number held against a limit; nothing that is not a number agrees."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engineworks.codec import to_json
from engineworks.errors import RecipeError
from engineworks.evaluate import parity
from engineworks.evaluate.parity import EQUAL_DB, Limit, compare, difference

INPUTS = np.random.default_rng(0).random((4, 3, 2, 2), np.float32)
TIGHT = Limit(max_relative=1e-3)


def model(batch):
    return {"y": batch.reshape(len(batch), -1) * 100, "z": batch.sum((1, 2, 3))}


WANTED = model(INPUTS)


def run(infer, batches=(1, 3), limit=TIGHT):
    return compare(infer, INPUTS, WANTED, list(batches), limit)


def test_equal_answers_agree():
    found = run(model)
    assert found.holds
    assert found.reason == ""
    assert (found.max_abs_diff, found.relative_diff, found.identical_rows_diff) == (0, 0, 0)
    assert found.snr_db == EQUAL_DB
    assert {(row.output, row.batch) for row in found.rows} == {
        ("y", 1), ("y", 3), ("z", 1), ("z", 3),
    }  # fmt: skip


@pytest.mark.parametrize(("factor", "holds"), [(1.0005, True), (1.002, False)])
def test_a_relative_difference_is_held_against_the_limit(factor, holds):
    found = run(lambda batch: {**model(batch), "y": model(batch)["y"] * np.float32(factor)})
    assert found.holds is holds
    largest = float(np.abs(WANTED["y"]).max())
    assert found.max_abs_diff == pytest.approx(largest * (factor - 1), rel=0.02)
    assert found.relative_diff == pytest.approx(factor - 1, rel=0.02)
    if not holds:
        assert "'y' at batch 1" in found.reason
        assert "0.002" in found.reason
        assert "allowed 0.001" in found.reason
        assert "'z'" not in found.reason


def test_one_wrong_row_of_the_largest_batch_is_found():
    def infer(batch):
        answers = model(batch)
        if len(batch) == 3:
            answers["y"][2] += 1
        return answers

    found = run(infer)
    assert not found.holds
    assert "'y' at batch 3" in found.reason
    assert "at batch 1" not in found.reason


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("limit", [TIGHT, Limit(min_snr_db=1), Limit()], ids=str)
def test_an_answer_that_is_no_number_never_agrees(poison, limit):
    def infer(batch):
        answers = model(batch)
        answers["y"][0, 0] = poison
        return answers

    found = run(infer, limit=limit)
    assert not found.holds
    assert "'y'" in found.reason
    assert "NaN" in found.reason


def test_the_finding_about_it_is_still_strict_json():
    """summary.json is read by other programs, most of which refuse the word Infinity."""
    found = run(lambda batch: {"y": model(batch)["y"] * np.float32(np.nan)})
    json.dumps(to_json(found), allow_nan=False)


def test_another_shape_never_agrees():
    found = run(lambda batch: {**model(batch), "z": model(batch)["z"][:, None]}, limit=Limit())
    assert not found.holds
    assert "'z'" in found.reason
    assert "shape" in found.reason


def test_a_missing_output_is_named_with_those_there_are():
    found = run(lambda batch: {"y": model(batch)["y"], "other": model(batch)["z"]})
    assert not found.holds
    assert "output 'z' is missing; it has ['other', 'y']" in found.reason


def test_no_output_at_all_does_not_agree():
    assert not run(lambda batch: {}).holds


def test_answers_that_depend_on_the_row_are_found_by_identical_rows():
    def infer(batch):  # inside the tolerance against the reference, and still wrong
        answers = model(batch)
        answers["y"] *= np.linspace(1, 1.0008, len(batch), dtype=np.float32)[:, None]
        return answers

    found = run(infer)
    assert not found.holds
    assert "identical rows of a batch of 3" in found.reason
    assert found.identical_rows_diff == pytest.approx(8e-4, rel=0.05)


def test_identical_rows_need_more_than_one_row():
    assert run(model, batches=[1]).identical_rows_diff == 0


@pytest.mark.parametrize(("noise_db", "holds"), [(31, True), (29, False)])
def test_half_precision_is_judged_by_its_signal_to_noise_ratio(noise_db, holds):
    rng = np.random.default_rng(1)
    noise = {}

    def infer(batch):
        answers = model(batch)
        for name, value in answers.items():
            key = (name, value.shape)
            raw = noise.setdefault(key, rng.standard_normal(value.shape[1:]).astype(np.float32))
            raw = np.broadcast_to(raw, value.shape)
            level = np.linalg.norm(value) / np.linalg.norm(raw) * 10 ** (-noise_db / 20)
            answers[name] = value + raw * np.float32(level)
        return answers

    found = compare(infer, INPUTS, WANTED, [1], parity.limit("fp16", judged=True))
    assert found.snr_db == pytest.approx(noise_db, abs=0.1)
    assert found.holds is holds
    if not holds:
        assert "29.0 dB, at least 30 needed" in found.reason


def test_a_batch_larger_than_the_samples_repeats_them():
    seen = []

    def infer(batch):
        seen.append(batch.copy())
        return model(batch)

    assert run(infer, batches=[6]).holds
    np.testing.assert_array_equal(seen[0], INPUTS[[0, 1, 2, 3, 0, 1]])


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Limit(), "no limit of its own: the task metric judges"),
        (TIGHT, "relative difference <= 0.001"),
        (Limit(0.5, 20), "relative difference <= 0.5, SNR >= 20 dB"),
    ],
)
def test_a_limit_reads_as_a_sentence(limit, text):
    assert str(limit) == text


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_floats_must_agree_whoever_judges(precision, judged):
    found = parity.limit(precision, judged=judged)
    wanted = {
        "fp32": Limit(max_relative=1e-3),
        "fp16": Limit(min_snr_db=30),
        "bf16": Limit(None, 20),
    }
    assert dataclasses.replace(found, min_group_db=None) == wanted[precision]
    assert (found.min_group_db is not None) is (not judged and precision != "fp32")


def test_integers_are_judged_by_the_task_and_by_their_noise_without_one():
    assert parity.limit("int8", judged=False).min_snr_db == 20
    found = parity.limit("int8", judged=True)
    assert (found.min_snr_db, found.max_relative) == (None, None)
    assert str(found) == "no limit of its own: the task metric judges"


def test_a_precision_without_a_limit_is_refused():
    with pytest.raises(RecipeError, match="there is no precision 'fp4'"):
        parity.limit("fp4", judged=True)


@pytest.mark.parametrize(("apart", "holds"), [(0.01, True), (0.03, False)])
def test_identical_rows_may_differ_by_a_level_in_integers(apart, holds):
    def infer(batch):
        answers = model(batch)
        answers["y"] *= np.linspace(1, 1 + apart, len(batch), dtype=np.float32)[:, None]
        return answers

    found = run(infer, limit=parity.limit("int8", judged=True))
    assert found.identical_rows_diff == pytest.approx(apart, rel=0.05)
    assert found.holds is holds, found.reason
    if not holds:
        assert "identical rows of a batch of 3" in found.reason
    assert not run(infer, limit=Limit()).holds


class TestDifference:
    @pytest.mark.parametrize(
        ("got", "want", "largest", "relative", "snr_db"),
        [
            ([1.0, 2.0], [1.0, 2.0], 0, 0, EQUAL_DB),
            ([0.0], [0.0], 0, 0, EQUAL_DB),
            ([0.5], [0.0], 0.5, 0.5, -EQUAL_DB),
            ([9.0], [10.0], 1, 0.1, 20.0),
            ([0.02], [0.01], 0.01, 0.01, 0.0),
            ([np.nan], [1.0], np.inf, np.inf, -EQUAL_DB),
            ([1.0], [1.0, 1.0], np.inf, np.inf, -EQUAL_DB),
            ([], [], 0, 0, EQUAL_DB),
        ],
    )
    def test_is_what_a_hand_computes(self, got, want, largest, relative, snr_db):
        found = difference(np.array(got, np.float32), np.array(want, np.float32))
        assert found == pytest.approx((largest, relative, snr_db), abs=1e-4)

    def test_large_integers_do_not_wrap(self):
        got, want = np.array([-128], np.int8), np.array([127], np.int8)
        assert difference(got, want)[0] == 255

    @given(
        arrays(np.float32, 5, elements=st.floats(-1e6, 1e6, width=32)),
        arrays(np.float32, 5, elements=st.floats(-1e6, 1e6, width=32)),
    )
    def test_agrees_with_its_definition(self, got, want):
        largest, relative, snr_db = difference(got, want)
        delta = [float(g) - float(w) for g, w in zip(got, want, strict=True)]
        assert largest == max(map(abs, delta))
        assert relative == largest / max(1, *(abs(float(w)) for w in want))
        signal, noise = math.hypot(*map(float, want)), math.hypot(*delta)
        if signal and noise:
            expected = min(EQUAL_DB, 20 * math.log10(signal / noise))
            assert snr_db == pytest.approx(expected, abs=1e-6)
