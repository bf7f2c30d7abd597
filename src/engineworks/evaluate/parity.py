"""Numeric agreement of an engine with the source model on the same inputs.

Checked at batch 1 and at the largest batch; a batch of identical rows must give identical
answers. Knows arrays and sessions, no task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engineworks import precisions
from engineworks.evaluate import groups
from engineworks.evaluate.groups import EQUAL_DB, Group
from engineworks.facts.engine import Parity, ParityRow
from engineworks.precisions import Limit as Limit

Array = np.ndarray[Any, Any]
Infer = Callable[[Array], Mapping[str, Array]]


#: An output whose largest value stays below this is near silent: no ratio says anything about it.
SILENT = 1e-2


def limit(precision: str, *, judged: bool) -> Limit:
    """What agreement means at a precision.

    Args:
        precision: Of the engine.
        judged: Whether a task metric, or what the answers mean, judges the engine too.

    Raises:
        RecipeError: There is no such precision.
    """
    row = precisions.get(precision)
    return row.judged if judged else row.alone


def silent(answers: Mapping[str, Array]) -> dict[str, float]:
    """Float outputs that are near zero everywhere, with their largest value."""
    peaks = {
        name: float(np.abs(answer).max())
        for name, answer in answers.items()
        if answer.size and answer.dtype.kind == "f"
    }
    return {name: peak for name, peak in peaks.items() if peak < SILENT}


def _hushed(limit: Limit) -> Limit:
    """For a near silent output: absolute error where the limit is a ratio."""
    if limit.min_snr_db is None:
        return limit
    return Limit(max_relative=limit.max_hush, identical=limit.identical)


def difference(got: Array, want: Array) -> tuple[float, float, float]:
    """(largest absolute difference, that relative to max(1, largest |want|), SNR in dB)."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf"), float("inf"), -EQUAL_DB
    if not want.size:
        return 0.0, 0.0, EQUAL_DB
    want64 = want.astype(np.float64)
    delta = got.astype(np.float64) - want64
    largest = float(np.abs(delta).max())
    noise, signal = float(np.linalg.norm(delta)), float(np.linalg.norm(want64))
    if noise == 0:
        snr_db = EQUAL_DB
    elif signal == 0:
        snr_db = -EQUAL_DB
    else:
        snr_db = min(EQUAL_DB, 20 * math.log10(signal / noise))
    return largest, largest / max(1.0, float(np.abs(want64).max())), snr_db


def compare(
    infer: Infer,
    inputs: Array,
    wanted: Mapping[str, Array],
    batches: list[int],
    limit: Limit,
    others: Mapping[str, Limit] | None = None,
) -> Parity:
    """Run an engine on recorded inputs and hold its answers against recorded ones.

    Args:
        infer: Batch (b, channels, height, width) float32 -> outputs by name.
        inputs: (n, channels, height, width) float32.
        wanted: Output name -> (n, ...) of the source model.
        batches: Batch sizes to run; rows are repeated in turn to fill them.
        limit: What counts as agreement.
        others: Limits of outputs that are held to another one.
    """
    others = others or {}
    rows, problems = [], []
    parts = {name: groups.groups(want) for name, want in wanted.items()}
    for batch in batches:
        for start in range(0, len(inputs), batch):
            picked = np.arange(start, start + batch) % len(inputs)
            got = infer(inputs[picked])
            for name, want in wanted.items():
                if name not in got:
                    problems.append(f"output {name!r} is missing; it has {sorted(got)}")
                    continue
                rows.append(_row(name, batch, got[name], want[picked], parts[name]))
    identical = _identical_rows(infer, inputs[:1], max(batches))
    merged = _worst(rows)
    own = {name: others.get(name, limit) for name in wanted}
    hushed = {name: _hushed(own[name]) for name in silent(wanted)}
    problems += [
        problem
        for row in merged
        if (problem := _broken(row, hushed.get(row.output, own[row.output])))
    ]
    if not identical <= limit.identical:
        problems.append(
            f"identical rows of a batch of {max(batches)} get answers that differ by "
            f"{identical:.2g}"
        )
    return Parity(
        holds=not problems,
        reason="; ".join(dict.fromkeys(problems)),
        limit=_in_words(limit, hushed, silent(wanted)),
        max_abs_diff=_largest([row.max_abs_diff for row in merged]),
        relative_diff=_largest([row.relative_diff for row in merged]),
        snr_db=min((row.snr_db for row in merged), default=-EQUAL_DB),
        identical_rows_diff=_finite(identical),
        rows=tuple(merged),
    )


def _in_words(limit: Limit, hushed: Mapping[str, Limit], peaks: Mapping[str, float]) -> str:
    clauses = [
        f"output {name!r} is near silent (at most {peaks[name]:.1e}) and is judged by absolute "
        f"error <= {limit.max_hush:g}"
        for name, own in hushed.items()
        if own.min_snr_db != limit.min_snr_db
    ]
    return "; ".join((str(limit), *clauses))


def _row(name: str, batch: int, got: Array, want: Array, parts: tuple[Group, ...]) -> ParityRow:
    largest, relative, snr_db = difference(got, want)
    weakest_db, whose = snr_db, groups.WHOLE
    if math.isfinite(largest):
        weakest_db, whose = groups.weakest(got, want, parts)
        relative, _ = groups.relative(got, want, parts)
    return ParityRow(
        output=name,
        batch=batch,
        max_abs_diff=_finite(largest),
        relative_diff=_finite(relative),
        snr_db=snr_db,
        group=str(whose),
        group_snr_db=weakest_db,
    )


def _finite(value: float) -> float | None:
    """JSON has no infinity: what cannot be compared is None."""
    return value if math.isfinite(value) else None


def _largest(values: list[float | None]) -> float | None:
    """The largest, or None when one of them or all are missing."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _broken(row: ParityRow, limit: Limit) -> str:
    where = f"output {row.output!r} at batch {row.batch}"
    part = f"{where}, {row.group}," if row.group else where
    if row.max_abs_diff is None or row.relative_diff is None:
        return f"{where} has another shape, NaN or infinite values"
    if limit.max_relative is not None and not row.relative_diff <= limit.max_relative:
        return (
            f"{part} is off by {row.relative_diff:.2g} (relative), allowed {limit.max_relative:.2g}"
        )
    if limit.min_snr_db is not None and not row.snr_db >= limit.min_snr_db:
        return f"{where} has an SNR of {row.snr_db:.1f} dB, at least {limit.min_snr_db:g} needed"
    if limit.min_group_db is not None and not row.group_snr_db >= limit.min_group_db:
        return (
            f"{part} has an SNR of {row.group_snr_db:.1f} dB without its mean, at least "
            f"{limit.min_group_db:g} needed"
        )
    return ""


def _identical_rows(infer: Infer, row: Array, batch: int) -> float:
    if batch == 1:
        return 0.0
    outputs = infer(np.repeat(row, batch, axis=0))
    spread = 0.0
    for output in outputs.values():
        _, relative, _ = difference(output, np.repeat(output[:1], batch, axis=0))
        spread = max(spread, relative)
    return spread


def _worst(rows: list[ParityRow]) -> list[ParityRow]:
    """The worst figures of every (output, batch)."""
    merged: dict[tuple[str, int], ParityRow] = {}
    for row in rows:
        key = (row.output, row.batch)
        old = merged.get(key, row)
        weaker = min(old, row, key=lambda side: side.group_snr_db)
        merged[key] = ParityRow(
            output=row.output,
            batch=row.batch,
            max_abs_diff=_largest([old.max_abs_diff, row.max_abs_diff]),
            relative_diff=_largest([old.relative_diff, row.relative_diff]),
            snr_db=min(old.snr_db, row.snr_db),
            group=weaker.group,
            group_snr_db=weaker.group_snr_db,
        )
    return list(merged.values())
