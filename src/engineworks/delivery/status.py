"""What came of a look at the repository, as it is kept, shown and reported. Knows values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Word = Literal[
    "current",
    "switched",
    "not its turn",
    "gone back",
    "refused",
    "failed",
    "nothing named",
    "not reached",
]
"""What came of one slot."""


@dataclass(frozen=True, kw_only=True)
class SlotOutcome:
    """What came of one look for one slot."""

    slot: str
    model: str = ""
    variant: str = ""
    outcome: Word
    reason: str
    check: str = ""
    running: str = ""
    """Identity of the engine that the link leads to; empty: none."""
    version: str = ""
    wanted: str = ""
    generation: int = 0
    p50_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Status:
    """What came of one look."""

    at: str
    device: str
    sequence: int = 0
    """Grows with each look."""
    problem: str = ""
    """Why nothing could be asked; empty: it could."""
    check: str = ""
    slots: tuple[SlotOutcome, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)
    expires: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 all is as wanted; 1 something is refused or failed; 3 it could not be asked."""
        outcomes = {slot.outcome for slot in self.slots}
        if outcomes & {"refused", "failed", "gone back"} or self.check:
            return 1
        return 3 if self.problem or "not reached" in outcomes else 0
