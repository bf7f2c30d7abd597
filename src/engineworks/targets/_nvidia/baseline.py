"""What an option costs: the same engine built without it, its size and its time beside the first's.

Compatibility with other versions and GPUs costs speed, and a graph of which little is left on DLA
is slower than on the GPU alone; both are measured, not assumed. Knows no way to build.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engineworks.codec import to_json
from engineworks.errors import EngineworksError, said
from engineworks.targets._nvidia.timing import Timed

NAME = "baseline.json"

#: A baseline is built where this many times the engine's own time fits into the limit.
SPARE = 2.5
#: Both are timed this often, in turns.
TURNS = 2

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """One of the two engines."""

    size_bytes: int
    ms: float | None
    """Median time of one inference on the GPU; None: it could not be timed."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An engine and its baseline."""

    what: str
    """How the baseline differs, "without version_compatible" or "on the GPU alone"."""
    own: Weighed
    baseline: Weighed | None
    untold: str = ""
    """Why something is missing."""
    needs_s: float = 0.0
    """`limits.build_s` from which the baseline is built; 0: it was, or it cannot be."""

    def words(self) -> str:
        """For a table's note."""
        if self.baseline is None:
            return f"{self.what}: {self.untold}"
        mib = [side.size_bytes / 2**20 for side in (self.baseline, self.own)]
        text = f"{self.what} it would be {mib[0]:.2f} MiB instead of {mib[1]:.2f}"
        if self.own.ms is None or self.baseline.ms is None:
            return f"{text} (not timed: {self.untold})"
        without, own = self.baseline.ms, self.own.ms
        return f"{text} and take {without:.3f} ms instead of {own:.3f} ({without / own:.2f}x)"


def weigh(
    what: str,
    own: Path,
    time_own: Callable[[], Timed],
    build: Callable[[], tuple[Path, Callable[[], Timed]]],
    *,
    took_s: float,
    limit_s: float,
) -> Cost:
    """Build the baseline and time both in turns; whatever fails is said and fails nothing else.

    Args:
        what: How the baseline differs.
        own: The engine's plan.
        time_own: Times it.
        build: Makes the baseline's plan, and gives what times it.
        took_s: Seconds that the engine itself has taken.
        limit_s: Seconds that both may take; beyond it the engine would be lost, too.
    """
    mine = Weighed(size_bytes=own.stat().st_size, ms=None)
    if limit_s and took_s * SPARE > limit_s:
        spent = f"the engine took {took_s:.0f} of the {limit_s:.0f} s of limits.build_s"
        untold = f"not built, since {spent}"
        return Cost(what=what, own=mine, baseline=None, untold=untold, needs_s=took_s * SPARE)
    built, untold = attempt(build)
    if built is None:
        return Cost(what=what, own=mine, baseline=None, untold=f"cannot be built: {untold}")
    plan, time_baseline = built
    turns_ms: dict[Callable[[], Timed], list[float]] = {time_own: [], time_baseline: []}
    for time in (time_own, time_baseline) * TURNS:
        timed, untold = attempt(time)
        if timed is None:
            other = Weighed(size_bytes=plan.stat().st_size, ms=None)
            return Cost(what=what, own=mine, baseline=other, untold=untold)
        turns_ms[time].append(timed.ms)
    # The better turn of each: what else a machine does only ever slows it down.
    return Cost(
        what=what,
        own=Weighed(size_bytes=mine.size_bytes, ms=min(turns_ms[time_own])),
        baseline=Weighed(size_bytes=plan.stat().st_size, ms=min(turns_ms[time_baseline])),
    )


def attempt(call: Callable[[], T]) -> tuple[T | None, str]:
    """(what it gives, "") or (None, why it gives nothing): a vendor's refusals have any class."""
    try:
        return call(), ""
    except EngineworksError as error:
        return None, error.message
    except Exception as error:
        return None, f"{type(error).__name__}: {said(error)}"


def write(cost: Cost, work: Path) -> Path:
    """The figures as a file beside the engine."""
    path = work / NAME
    path.write_text(json.dumps(to_json(cost), indent=1) + "\n", encoding="utf-8")
    return path
