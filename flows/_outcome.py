"""What the flows `complete` and `benchmark` tell the command that started them."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

#: A command sets a list of its own; in a worker nobody reads it.
TOLD: ContextVar[list[Any]] = ContextVar("told", default=[])  # noqa: B039


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
    """Name of the folder under `runs/` with summary.json and report.html; empty: nothing ran."""
