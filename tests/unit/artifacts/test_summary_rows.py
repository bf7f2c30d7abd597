"""One outcome is flattened once: what a variant came to, as a row of summary.json."""

from __future__ import annotations

import dataclasses

from artifacts import summary as summaries
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
    assert row.precision_truth == built.truth
    for name in ("accuracy", "parity", "meaning", "predictions", "difference"):
        assert getattr(row, name) == getattr(checked, name) is not None
    assert (row.benchmark, row.environment) == (WHOLE.timed.rows, WHOLE.timed.environment)
    packaged = WHOLE.packages[0]
    assert (row.package[0].kind, row.package[0].state) == (packaged.kind, packaged.proof.state)
    assert row.package[0].sha256 == packaged.artifact.sha256
    assert row.package[0].checks == packaged.proof.checks
    assert (row.quantized, row.rival, row.host) == (WHOLE.quantized, WHOLE.compared, WHOLE.host)


def test_what_failed_on_its_way_says_why_and_what_was_found_before():
    failed = VariantOutcome(
        planned=WHOLE.planned,
        verdict=Verdict(verdict="failed", reason="so"),
        quantized=WHOLE.quantized,
    )
    row = summaries.variant(failed)
    assert (row.verdict, row.reason, row.quantized) == ("failed", "so", WHOLE.quantized)
    assert row.engine is row.accuracy is row.precision_truth is None and row.benchmark == ()


def test_what_waits_for_its_machine_shows_the_engine_that_there_is():
    waits = dataclasses.replace(WHOLE, checked=None, timed=None, compared=None)
    row = summaries.variant(waits)
    assert row.engine is not None and row.parity is None and row.benchmark == ()
