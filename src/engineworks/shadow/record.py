"""The record of a shadow run: made of what was found, said in words, written and read back.

Knows no engine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from engineworks import files, hosts
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError
from engineworks.facts.shadow import (
    SCHEMA,
    Decision,
    ShadowAgreement,
    ShadowFrames,
    ShadowLatency,
    ShadowRecord,
)
from engineworks.runtime.engines import simulated
from engineworks.runtime.outputs import write_text
from engineworks.shadow.comparison import AnswerComparison
from engineworks.shadow.run import ShadowRun

#: Of a record's file; real ones have some 3 kB.
_MOST_BYTES = 2**20

#: Packages whose versions may change answers.
_PACKAGES = ("engineworks", "numpy", "onnxruntime", "openvino", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class ShadowTerms:
    """What was asked for, as far as the record says it."""

    sources: tuple[str, ...]
    judged_by: Literal["labels", "reference", "nothing"]
    labels_sha256: str
    cpu_share: float
    max_delay: float | None


def record(run: ShadowRun, terms: ShadowTerms, started: datetime) -> ShadowRecord:
    """What a run has found, whatever ended it."""
    comparison, lane = run.comparison, run.lane
    scores, interval = comparison.mean_scores, comparison.interval()
    agreement, pooled = comparison.agreement(), comparison.pooled()
    decision = _decision(run, agreement)
    engines = [engine for engine in (run.champion.engine, lane.candidate, lane.reference) if engine]
    fell = run.decided_at
    return ShadowRecord(
        champion=run.champion.engine,
        candidate=lane.candidate,
        reference=lane.reference,
        judged_by=terms.judged_by,
        labels_sha256=terms.labels_sha256,
        simulated=any(simulated(engine.target) for engine in engines),
        sources=terms.sources,
        started=_iso(started),
        ended=_iso(datetime.now(timezone.utc)),
        why_ended="failed" if lane.broken else run.why_ended,
        frames=ShadowFrames(**run.counts, compared=comparison.compared),
        block_s=comparison.block_s,
        observations=comparison.observations,
        correlation=comparison.correlation,
        metric=comparison.scores.metric if comparison.judged else "",
        champion_score=scores[0] if scores else None,
        candidate_score=scores[1] if scores else None,
        difference=scores[1] - scores[0] if scores else None,
        interval=(interval.low, interval.high) if interval and scores else None,
        pooled_metric=comparison.scores.pooled if pooled else "",
        pooled=pooled,
        max_drop=comparison.max_drop if comparison.judged else None,
        decision=decision,
        decided_frame=comparison.decided_frame,
        decided=_iso(datetime.fromtimestamp(fell, timezone.utc)) if fell is not None else "",
        needed=comparison.needed(),
        reason=_reason(run, decision, agreement),
        agreement=agreement,
        latency=_latency(run),
        cpu_share=terms.cpu_share,
        cpu_share_used=lane.used,
        max_delay=terms.max_delay,
        notes=tuple(_notes(run)),
        versions=hosts.versions(*_PACKAGES),
    )


def _iso(when: datetime) -> str:
    return when.astimezone(timezone.utc).isoformat(timespec="seconds")


def _decision(run: ShadowRun, agreement: ShadowAgreement) -> Decision:
    if run.lane.broken:
        return "failed"
    if run.comparison.judged:
        return run.comparison.decision or "not decided"
    if not run.comparison.compared:
        return "not decided"
    return "different" if agreement.frames else "same"


def _latency(run: ShadowRun) -> ShadowLatency:
    figures = []
    for spent in (list(run.alone_ms), list(run.beside_ms)):
        ranked = sorted(spent)
        p95 = ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))] if ranked else 0.0
        figures.append((len(ranked), statistics.median(ranked) if ranked else 0.0, p95))
    return ShadowLatency(
        alone=figures[0][0], alone_p50_ms=figures[0][1], alone_p95_ms=figures[0][2],
        beside=figures[1][0], beside_p50_ms=figures[1][1], beside_p95_ms=figures[1][2],
        growth=run.growth(),
    )  # fmt: skip


def _reason(run: ShadowRun, decision: Decision, agreement: ShadowAgreement) -> str:
    if decision == "failed":
        return run.lane.broken
    if not run.comparison.compared:
        return "no frame was compared"
    reason = _judged(run.comparison) if run.comparison.judged else _unjudged(run, agreement)
    if run.counts["unanswered"]:
        reason += (
            f"; the candidate raised an error on {run.counts['unanswered']} frames, the last: "
            f"{run.last_error}"
        )
    return reason


def _judged(comparison: AnswerComparison) -> str:
    scores, interval = comparison.mean_scores, comparison.interval()
    if scores is None or interval is None:
        return f"{comparison.compared} frames are no whole observation yet"
    text = (
        f"{comparison.scores.metric} {scores[1]:.4f}, the champion {scores[0]:.4f} on the same "
        f"{comparison.compared} frames; difference {signed(scores[1] - scores[0])} "
        f"({interval.low:+.4f} to {interval.high:+.4f})"
    )
    if comparison.decision:
        return text
    if comparison.alike:
        return (
            f"{text}: neighbouring observations resemble each other ({comparison.correlation:.2f})"
            f", so they do not count as one each; give blocks longer than {comparison.block_s:g} s "
            "(--block-s)"
        )
    needed = comparison.needed()
    if not needed:
        return f"{text}: no number of frames would tell at this difference"
    return f"{text}: about {needed} more frames would decide"


def _unjudged(run: ShadowRun, agreed: ShadowAgreement) -> str:
    compared = run.comparison.compared
    low, high = (100 * share for share in agreed.share_interval)
    what = "something was lost, gained or moved" if agreed.objects else "the class was another one"
    if not agreed.frames:
        nothing = what.replace("something", "nothing").replace("another one", "the same")
        return (
            f"{nothing} in {compared} frames (95 %: otherwise in fewer than {high:.1f} % of them "
            f"all); scores differ by at most {agreed.largest_shift:.4f}"
        )
    return (
        f"in {agreed.frames} of {compared} frames {what} ({low:.1f} to {high:.1f} % of them all): "
        f"{changed(agreed)}; who is right nobody has said"
    )


def changed(agreed: ShadowAgreement) -> str:
    """What two engines see differently, in words."""
    scores = f"scores {signed(agreed.mean_shift)} in the mean, {agreed.largest_shift:.4f} at most"
    if not agreed.objects:
        return f"{agreed.matched} classes the same, {agreed.lost} others; {scores}"
    return (
        f"{agreed.matched} objects in both, {agreed.lost} lost, {agreed.gained} gained, "
        f"{agreed.moved} moved; {scores}"
    )


def signed(value: float) -> str:
    """A difference in words: `+0.0000` where it is next to nothing."""
    return f"{round(value, 4) + 0.0:+.4f}"


def _notes(run: ShadowRun) -> Sequence[str]:
    notes = list(run.material.notes)
    if not run.comparison.judged:
        notes.append("better or worse needs --labels or --reference")
    if run.reference_errors:
        notes.append(f"{run.reference_errors} frames were left out: the reference did not answer")
    return notes


def age_days(outcome: ShadowRecord, now: datetime) -> float:
    """Days since a run ended; below 0: its clock is ahead.

    Raises:
        ArtifactError: The record does not say when.
    """
    try:
        ended = datetime.fromisoformat(outcome.ended)
        return (now - ended).total_seconds() / 86400
    except (ValueError, TypeError) as error:  # no time, or one without a zone
        raise ArtifactError(
            f"the record of a shadow run says that it ended at {outcome.ended[:40]!r}, which is no "
            "time with a zone",
            hint="give the file as `engineworks shadow -o FILE` has written it",
        ) from error


def write(outcome: ShadowRecord, path: Path) -> None:
    """Write a record as JSON, whole or not at all.

    Raises:
        StoreError: The disk does not take it.
    """
    write_text(path, json.dumps(to_json(outcome), indent=1) + "\n")


def read(path: Path) -> ShadowRecord:
    """Read a record back.

    Raises:
        ArtifactError: It is none, or of a form that this version does not read.
    """
    try:
        data = json.loads(files.read_bytes(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is no record of a shadow run ({getattr(error, 'strerror', None) or error})",
            hint="give the file that `engineworks shadow -o FILE` has written",
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path} is no record of a shadow run that this version reads: schema {schema!r}, "
            f"not {SCHEMA}",
            hint="run `engineworks shadow -o FILE` with this version",
        )
    return from_json(ShadowRecord, data, at=str(path))
