"""What flows tell the command that started them, and the command them."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from artifacts.promotion.ledger import Move
from engineworks.promotion.gates import Gate

#: A command sets a list of its own; in a worker nobody reads it.
TOLD: ContextVar[list[Any] | None] = ContextVar("told", default=None)

#: Who asks, as the system knows them; a command sets it. Prefect does not tell a worker.
WHO: ContextVar[str] = ContextVar("who", default="not told")


def tell(outcomes: Sequence[Any]) -> None:
    """Hand outcomes to whoever listens; in a worker nobody does."""
    told = TOLD.get()
    if told is not None:
        told.extend(outcomes)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What became of one model of which something waited."""

    model: str
    outcome: Literal["completed", "waits", "left", "failed"]
    """completed: nothing waits any more; left: it cannot be gone on with here; failed: it could
    have been, and something went wrong."""
    reason: str
    pending: tuple[str, ...] = ()
    """Variants that still wait."""
    missed: tuple[str, ...] = ()
    """Required variants that are there now and do not ship."""
    run_id: str = ""
    """Name of the folder under `runs/` with summary.json and report.html; empty: nothing came."""


@dataclass(frozen=True, kw_only=True)
class TimedVersion:
    """How fast one promoted version is now, or why that is not known."""

    model: str
    version: str
    variant: str
    machine: str
    """The one that it was built on, which is the one that timed it."""
    outcome: Literal["steady", "slower", "inconclusive", "skipped", "pending", "failed"]
    """inconclusive: it looks slower, and the measurement cannot be trusted; skipped: it cannot be
    timed; pending: its machine is away; failed: something went wrong."""
    reason: str
    before_ms: float | None = None
    """Median latency when it was registered; now `p50_ms`."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    throughput_per_s: float | None = None
    ratio: float | None = None
    """p50_ms / before_ms."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What became of one variant that was to be promoted or rolled back."""

    model: str
    variant: str
    version: str
    before: str
    """Version that was live; empty: none."""
    outcome: Literal[
        "promoted", "rolled back", "passes", "unchanged", "refused", "pending", "overtaken",
        "failed",
    ]  # fmt: skip
    """passes: nothing was moved, since that was a dry run; refused: a gate says no; pending: a gate
    cannot be answered yet; overtaken: somebody else moved it meanwhile."""
    reason: str
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class History:
    """The moves of one variant, oldest first, and whether they are the ones that were made."""

    model: str
    variant: str
    champion: str
    previous: str
    broken: str
    """What is not whole; empty: every entry fits."""
    moves: tuple[Move, ...]
    lost: dict[str, str] = field(default_factory=dict)
    """Versions that were live and cannot be gone back to, each with the reason."""
