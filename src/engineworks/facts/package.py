"""What was found about one package: whether a real server loads it and answers as the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engineworks.codec import place
from engineworks.manifest import Artifact


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was asked of a running server."""

    name: str
    holds: bool
    detail: str
    """What was seen, with its numbers."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a real server, started on the package in an environment of its own, answered.

    Only `proven` lets a package ship. `pending`: nobody asked a server yet; `skipped`: the engine
    does not fit into such a package.
    """

    package: str
    """Kind of package, for example `triton`."""
    state: Literal["proven", "failed", "pending", "skipped"]
    reason: str
    """Why it is not proven, with the next step; empty where it is."""
    server: str = ""
    """What the server said of itself, and how it was had."""
    client: str = ""
    photos: int = 0
    """Pictures that were sent."""
    checks: tuple[Check, ...] = ()
    unproven: tuple[str, ...] = ()
    """What this proof says nothing of, a sentence each."""
    command: str = place(default="")
    """How the server was started."""
    log: str = place(default="")
    """Path of what the server printed."""
    elapsed_s: float = place(default=0.0)


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A shipped variant's package of one kind, and its proof."""

    kind: str
    proof: Proof
    artifact: Artifact | None = None
    """None where it was not written: the proof's reason says why."""
