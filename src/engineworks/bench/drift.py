"""Whether an engine has become slower since it was registered. Pure: two figures and a limit.

Knows no engine and no registry. An alarm must be right: doubt is said and raises none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engineworks.facts.timing import BenchmarkRow


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A figure of now beside the one of then."""

    ratio: float
    """Median latency now / then: above 1 is slower."""
    outcome: Literal["steady", "slower", "inconclusive"]
    """inconclusive: it looks slower than allowed, and the measurement cannot be trusted to say."""
    reason: str


def judge(before_ms: float, row: BenchmarkRow, slower_than: float) -> Drift:
    """Hold a new measurement against the old one.

    Args:
        before_ms: Median latency when the engine was registered, above 0.
        row: The measurement of now, of the same size, batch and threads on the same machine.
        slower_than: Largest ratio that is no alarm.
    """
    ratio = row.p50_ms / before_ms
    low, high = (limit / before_ms for limit in row.ci95_ms)
    change = (
        f"{ratio:.2f}x the {before_ms:.3g} ms of its registration "
        f"(95 % interval {low:.2f}-{high:.2f})"
    )
    if ratio <= slower_than:
        return Drift(ratio=ratio, outcome="steady", reason=change)
    doubts = [row.inconclusive] if row.inconclusive else []
    if low <= slower_than:
        doubts.append(f"the interval reaches below {slower_than:g}")
    if doubts:
        return Drift(ratio=ratio, outcome="inconclusive", reason=f"{change}: {'; '.join(doubts)}")
    return Drift(ratio=ratio, outcome="slower", reason=change)
