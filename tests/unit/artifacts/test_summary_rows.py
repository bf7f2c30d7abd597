"""One outcome is flattened once: what a variant came to, as a row of summary.json."""

from __future__ import annotations

import dataclasses

import pytest

from artifacts import older_summary
from artifacts import summary as summaries
from engineworks.codec import to_json
from engineworks.errors import ArtifactError
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.plan import Verdict
from tests.builders import example

WHOLE = example(VariantOutcome)


def test_every_fact_of_an_outcome_is_in_its_row():
    row = summaries.variant(WHOLE)
    planned, built, checked = WHOLE.planned, WHOLE.built, WHOLE.checked
    assert (row.name, row.target, row.required) == (planned.name, planned.target, planned.required)
    assert (row.verdict, row.reason) == (WHOLE.verdict.verdict, WHOLE.verdict.reason)
    assert (row.engine.sha256, row.engine.uri) == (built.engine.sha256, built.engine.uri)
    assert row.delivered_precision == built.delivered_precision
    for name in ("accuracy", "parity", "meaning", "predictions", "difference"):
        assert getattr(row, name) == getattr(checked, name) is not None
    assert (row.benchmark, row.environment) == (WHOLE.timed.rows, WHOLE.timed.environment)
    packaged = WHOLE.packages[0]
    assert (row.package[0].kind, row.package[0].state) == (packaged.kind, packaged.proof.state)
    assert row.package[0].sha256 == packaged.artifact.sha256
    assert row.package[0].checks == packaged.proof.checks
    assert (row.quantized, row.precision_comparison, row.host) == (
        WHOLE.quantized,
        WHOLE.compared,
        WHOLE.host,
    )


def test_what_failed_on_its_way_says_why_and_what_was_found_before():
    failed = VariantOutcome(
        planned=WHOLE.planned,
        verdict=Verdict(verdict="failed", reason="so"),
        quantized=WHOLE.quantized,
    )
    row = summaries.variant(failed)
    assert (row.verdict, row.reason, row.quantized) == ("failed", "so", WHOLE.quantized)
    assert row.engine is row.accuracy is row.delivered_precision is None and row.benchmark == ()


def test_what_waits_for_its_machine_shows_the_engine_that_there_is():
    waits = dataclasses.replace(WHOLE, checked=None, timed=None, compared=None)
    row = summaries.variant(waits)
    assert row.engine is not None and row.parity is None and row.benchmark == ()


def test_what_schema_1_wrote_is_read_in_todays_words(tmp_path):
    today = example(summaries.Summary)
    path = tmp_path / "summary.json"
    summaries.write(today, path)
    text = path.read_text()
    for old, new in {
        "rival": "precision_comparison", "precision_truth": "delivered_precision",
        "lacking": "unsupported_operators", "rungs": "trials",
        "fidelity": "agreement",
    }.items():  # fmt: skip
        assert f'"{new}":' in text
        text = text.replace(f'"{new}":', f'"{old}":')
    text = text.replace('"chosen": {', '"found": {')
    path.write_text(text.replace(f'"schema": {today.schema}', '"schema": 1', 1))
    wanted = dataclasses.replace(today, schema=summaries.SCHEMA)
    assert to_json(summaries.read(path)) == to_json(wanted)
    path.write_text('{"schema": 3}')
    with pytest.raises(ArtifactError, match="schema 3; this version reads 1 and 2"):
        summaries.read(path)


@pytest.mark.parametrize(("old", "new"), [("island", "float_block"), ("polish", "refine")])
def test_the_steps_of_schema_1_have_todays_names(old, new):
    rung = {"step": old, "integer_layers": 3, "fidelity": 0.9}
    assert older_summary.renamed([rung]) == [{"step": new, "integer_layers": 3, "agreement": 0.9}]


@pytest.mark.parametrize(
    ("required", "state", "failed", "waiting"),
    [
        (True, "failed", ("v triton",), ()),
        (True, "pending", (), ("v triton",)),
        (True, "proven", (), ()),
        (True, "skipped", (), ()),
        (False, "failed", (), ()),
    ],
)
def test_a_run_is_held_to_the_packages_of_required_variants(required, state, failed, waiting):
    row = summaries.PackageRow(kind="triton", state=state, reason="so")
    row_of = dataclasses.replace(
        summaries.variant(WHOLE), name="v", required=required, package=(row,)
    )
    summary = dataclasses.replace(example(summaries.Summary), variants=(row_of,))
    assert (summary.failed_packages, summary.waiting_packages) == (failed, waiting)
