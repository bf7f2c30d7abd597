"""What whoever starts a run may change of a recipe for that run: targets, precisions, budget.

A change is made in the recipe's own mapping, before it is checked: the same rules hold for both.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class BudgetOverrides(BaseModel):
    """Limits of this run in the place of the recipe's; a limit that is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_drop: float | None = Field(default=None, description="Loss of the metric, absolute")
    max_p50_ms: float | None = Field(default=None, description="Median latency at batch 1, ms")
    max_p95_ms: float | None = Field(default=None, description="Latency of 95 % of the calls, ms")
    max_p99_ms: float | None = Field(default=None, description="Latency of 99 % of the calls, ms")
    max_size_mib: float | None = Field(default=None, description="Size of an engine, MiB")


class Overrides(BaseModel):
    """What of a recipe is another for one run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: tuple[str, ...] = Field(
        default=(),
        description="Only these targets; one that the recipe lacks is added. Empty: its own",
    )
    precisions: tuple[str, ...] = Field(
        default=(), description="These precisions of every target. Empty: the recipe's own"
    )
    budget: BudgetOverrides = BudgetOverrides()

    @property
    def words(self) -> str:
        """What is changed, in a line; empty: nothing."""
        limits = self.budget.model_dump(exclude_none=True)
        parts = [
            f"{name} {', '.join(values)}"
            for name, values in (("targets", self.targets), ("precisions", self.precisions))
            if values
        ]
        parts += [f"budget.{name} {value:g}" for name, value in limits.items()]
        return "; ".join(parts)

    def apply(self, raw: dict[str, Any]) -> dict[str, Any]:
        """A recipe's mapping with these changes; what is malformed in it stays as it is."""
        changed = dict(raw)
        entries = changed.get("targets")
        if self.targets:
            known = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
            entries = []
            for name in self.targets:
                own = [e for e in known if name in (e.get("target"), _labelled(e))]
                entries += own or [{"target": name}]
            changed["targets"] = entries
        if self.precisions and isinstance(entries, list):
            changed["targets"] = [
                {**entry, "precisions": list(self.precisions)} if isinstance(entry, dict) else entry
                for entry in entries
            ]
        limits = self.budget.model_dump(exclude_none=True)
        budget = changed.get("budget") or {}
        if limits and isinstance(budget, dict):
            changed["budget"] = {**budget, **limits}
        return changed


def _labelled(entry: dict[str, Any]) -> str:
    return f"{entry.get('target')}:{entry.get('label', '')}"


#: A run as its recipe has it.
NONE = Overrides()
