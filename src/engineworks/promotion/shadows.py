"""The gate `shadow`: what a candidate answered beside the champion on live frames.

Pure: records in, a gate out. A record counts only for the two engines that it names. It is a plain
file: whoever may promote is believed to have made it as `engineworks shadow` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engineworks.facts.shadow import ShadowRecord
from engineworks.promotion.gates import FIRST, Gate, Limits, Standing

#: Days by which a record may be ahead of the clock here: those of two machines differ.
_AHEAD = 0.01


@dataclass(frozen=True, kw_only=True)
class ShadowEvidence:
    """A record, and how old it is."""

    record: ShadowRecord
    age_days: float
    """Since it ended; below 0: it has not."""


def gate(
    candidate: Standing,
    champion: Standing | None,
    shadows: Sequence[ShadowEvidence],
    limits: Limits,
) -> Gate:
    """Whether a shadow run lets a candidate through.

    Args:
        candidate: The version that is to be promoted.
        champion: The one in its place now; None: there is none.
        shadows: The records that were given.
        limits: What may be lost, and how old evidence may be.
    """
    if champion is None:
        return _gate("passed", FIRST)
    of_both = [
        shadow
        for shadow in shadows
        if shadow.record.candidate.sha256 == candidate.sha256
        and shadow.record.champion.sha256 == champion.sha256
    ]
    if not of_both:
        return _gate("failed", _strangers(candidate, champion, shadows))
    newest = min(of_both, key=lambda shadow: shadow.age_days)
    record, age_days = newest.record, newest.age_days
    if record.simulated:
        return _gate("failed", "one of its engines is a double that replays recorded answers")
    if age_days < -_AHEAD:
        return _gate("failed", f"its record says that it ended at {record.ended}, which is to come")
    if age_days > limits.max_age_days:
        return _gate(
            "failed",
            f"it ended {age_days:.1f} days ago, allowed {limits.max_age_days:g}: run it again",
        )
    return _said(record, limits)


def _said(record: ShadowRecord, limits: Limits) -> Gate:
    """What the figures of a record say; its word alone is not taken."""
    if record.decision in ("same", "different"):
        return _gate("pending", "nothing judged it: run it with --labels or --reference")
    if record.decision == "not decided" or record.interval is None:
        outcome: Literal["failed", "pending"] = (
            "failed" if record.decision == "failed" else "pending"
        )
        return _gate(outcome, record.reason)
    low, high = record.interval
    judge = f"by {record.judged_by}: {record.reason}"
    if record.decision in ("worse", "failed") or high < 0:
        return _gate("failed", judge, low, limits)
    if record.decision in ("better", "not worse") and low > -limits.max_drop:
        return _gate("passed", judge, low, limits)
    return _gate(
        "failed", f"{judge}; {limits.max_drop:g} is allowed: run it with --max-drop "
        f"{limits.max_drop:g}", low, limits,
    )  # fmt: skip


def _strangers(candidate: Standing, champion: Standing, shadows: Sequence[ShadowEvidence]) -> str:
    """Whose records they are instead."""
    mine = [s.record for s in shadows if s.record.candidate.sha256 == candidate.sha256]
    if mine:
        return (
            f"its champion was {mine[0].champion.sha256[:12]}, live is version {champion.version} "
            f"({champion.sha256[:12]}): run it beside that one"
        )
    others = ", ".join(sorted({s.record.candidate.sha256[:12] for s in shadows}))
    return f"the records are of {others}, this version is {candidate.sha256[:12]}"


def _gate(
    outcome: Literal["passed", "failed", "pending"],
    reason: str,
    number: float | None = None,
    limits: Limits | None = None,
) -> Gate:
    return Gate(
        name="shadow", outcome=outcome, reason=reason, number=number,
        threshold=-limits.max_drop if limits is not None else None,
    )  # fmt: skip
