"""What an option costs: the same engine built without it, its size and its time beside the first's.

Compatibility with other versions and GPUs costs speed, and a graph of which little is left on DLA
is slower than on the GPU alone; both are measured, not assumed. Knows no way to build.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engineworks.codec import to_json
from engineworks.errors import EngineworksError
from engineworks.targets._nvidia.timing import Timed

NAME = "twin.json"

#: A twin is built where this many times the engine's own time fits into the limit.
SPARE = 2.5


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two engines."""

    size_bytes: int
    ms: float | None
    """Median time of one inference on the GPU; None: it could not be timed."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An engine and its twin."""

    what: str
    """How the twin differs, "without version_compatible" or "on the GPU alone"."""
    own: Side
    twin: Side | None
    untold: str = ""
    """Why something is missing."""

    def words(self) -> str:
        """For a table's note."""
        if self.twin is None:
            return f"{self.what}: {self.untold}"
        mib = [side.size_bytes / 2**20 for side in (self.twin, self.own)]
        words = f"{self.what} it would be {mib[0]:.2f} MiB instead of {mib[1]:.2f}"
        if self.own.ms is None or self.twin.ms is None:
            return f"{words} (not timed: {self.untold})"
        ratio = self.twin.ms / self.own.ms
        return f"{words} and take {self.twin.ms:.3f} ms instead of {self.own.ms:.3f} ({ratio:.2f}x)"


def weigh(
    what: str,
    own: Path,
    timed: Timed | None,
    untold: str,
    build: Callable[[], tuple[Path, Callable[[], Timed]]],
    *,
    took_s: float,
    limit_s: float,
) -> Cost:
    """Build the twin and put it beside the engine; whatever fails is said and fails nothing else.

    Args:
        what: How the twin differs.
        own: The engine's plan.
        timed: Its times, when there are some.
        untold: Else why there are none.
        build: Makes the twin's plan, and gives what times it.
        took_s: Seconds that the engine itself has taken.
        limit_s: Seconds that both may take; beyond it the engine would be lost, too.
    """
    mine = Side(size_bytes=own.stat().st_size, ms=timed.ms if timed else None)
    if limit_s and took_s * SPARE > limit_s:
        spent = f"the engine took {took_s:.0f} of the {limit_s:.0f} s of limits.build_s"
        return Cost(what=what, own=mine, twin=None, untold=f"not built, since {spent}")
    try:
        plan, time = build()
    except EngineworksError as error:
        return Cost(what=what, own=mine, twin=None, untold=f"cannot be built: {error.message}")
    found: Timed | None = None
    if timed is not None:
        found, untold = attempt(time)
    other = Side(size_bytes=plan.stat().st_size, ms=found.ms if found else None)
    return Cost(what=what, own=mine, twin=other, untold=untold)


def attempt(time: Callable[[], Timed]) -> tuple[Timed | None, str]:
    """(times, "") or (None, why there are none)."""
    try:
        return time(), ""
    except EngineworksError as error:
        return None, error.message


def write(cost: Cost, work: Path) -> Path:
    """The figures as a file beside the engine."""
    path = work / NAME
    path.write_text(json.dumps(to_json(cost), indent=1) + "\n", encoding="utf-8")
    return path
