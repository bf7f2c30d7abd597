"""Which variant is built where, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from engineworks.facts.host import HostCard
from engineworks.specs import TargetSpec

Outcome = Literal["shipped", "rejected", "skipped", "failed", "pending"]


def slug(name: str) -> str:
    """A variant's name where only letters, digits, `-` and `_` are allowed.

    A label stands behind two dashes, of which it has none itself, so that it cannot be mistaken
    for a machine: `a/fp16:b` and `a/fp16@b` differ.
    """
    head, at, host = name.partition("@")
    joined = head.replace(":", "--")
    if at:
        joined += ("--" if ":" in head else "-") + host
    return re.sub(r"[^A-Za-z0-9_-]", "-", joined)


@dataclass(frozen=True, kw_only=True)
class PlannedVariant:
    """One row of the plan."""

    target: str
    precision: str
    options: dict[str, Any]
    required: bool
    action: Literal["run", "skip", "pending"]
    """pending: there are machines for it, and none can take it now."""
    reason: str
    host: str = ""
    """Machine of the fleet that it is for; empty: the one that runs the flow."""
    pool: str = ""
    everywhere: bool = False
    """Whether other machines build it too."""
    label: str = ""
    """Tells two option sets of one target apart."""

    @property
    def name(self) -> str:
        """Name of the row in every table: `target/precision`, then `:label` and `@host` if any."""
        return self.name_anywhere + (f"@{self.host}" if self.everywhere else "")

    @property
    def name_anywhere(self) -> str:
        """The name without a machine."""
        return f"{self.target}/{self.precision}" + (f":{self.label}" if self.label else "")

    def is_of(self, spec: TargetSpec) -> bool:
        """Whether it comes of this entry of `targets:`, or of another one like it."""
        return (self.target, self.label) == (spec.target, spec.label)

    def beside(self, other: PlannedVariant) -> bool:
        """Whether the other is of the same target and option set, in whatever precision."""
        return (self.target, self.label) == (other.target, other.label)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every variant of a recipe: what runs where, and why the others do not."""

    host: HostCard
    variants: tuple[PlannedVariant, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision about one variant, in a word and in numbers."""

    verdict: Outcome
    reason: str
