"""How fast each promoted version is now, on the machine that built it. Judges nothing."""

from __future__ import annotations

from datetime import datetime, timezone

from artifacts.registry.promoted import Promoted
from engineworks.facts.timing import Benchmark, BenchmarkRow
from flows.fleet.measuring import Untimed, measure
from flows.fleet.timing import TimeOrder
from tasks._cache import checkout_sha256
from tasks._run import Run

Answer = BenchmarkRow | Untimed


def time_all(run: Run, versions: list[Promoted]) -> list[Answer]:
    """A latency, or the reason why there is none, for each version."""
    unfit = {
        number: reason for number, version in enumerate(versions) if (reason := _unfit(version))
    }
    wanted = [
        (version.machine, _order(version))
        for number, version in enumerate(versions)
        if number not in unfit
    ]
    answers = iter(measure(run, wanted, "benchmark"))
    return [
        Untimed(outcome="skipped", reason=unfit[number]) if number in unfit else _row(next(answers))
        for number in range(len(versions))
    ]


def _unfit(version: Promoted) -> str:
    """What a version lacks to be timed and compared; empty when nothing."""
    if not (version.sha256 and version.machine and version.run_id):
        return "it does not say which engine it is and where it was built; ship its recipe again"
    if version.size is None or version.p50_ms <= 0:
        return "it was registered without a latency at batch 1, so there is nothing to compare with"
    return ""


def _order(version: Promoted) -> TimeOrder:
    assert version.size is not None  # noqa: S101 - `_unfit` has looked
    return TimeOrder(
        engine_sha256=version.sha256,
        name=version.variant,
        target=version.target,
        precision=version.precision,
        size=version.size,
        threads=version.threads,
        asked_at=datetime.now(timezone.utc).isoformat(),
        checkout_sha256=checkout_sha256(),
    )


def _row(answer: object) -> Answer:
    if isinstance(answer, Benchmark):
        return answer.rows[0]
    assert isinstance(answer, Untimed)  # noqa: S101 - no order asked for a race
    return answer
