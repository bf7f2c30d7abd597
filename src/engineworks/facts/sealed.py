"""What was made to prove an engine later: its sealed test, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engineworks.codec import place
from engineworks.manifest import Artifact


@dataclass(frozen=True, kw_only=True)
class SealedTest:
    """The sealed test of one engine; that it could not be made costs the engine nothing."""

    state: Literal["sealed", "failed", "skipped"]
    reason: str = ""
    """Why there is none, with the next step."""
    artifact: Artifact | None = None
    """kind `sealed`; its parent is the engine."""
    pictures: int = 0
    photos: int = 0
    """How many of them are photos; the others were made."""
    notes: tuple[str, ...] = ()
    """Whose answers are expected, and what the test says less of."""
    replay_s: float = place(default=0.0)
    """Seconds that the engine's own replay took."""
    elapsed_s: float = place(default=0.0)
