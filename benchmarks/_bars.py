"""Bars: a name, a figure and a limit; printed one a line, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engineworks.bench import environment


@dataclass(frozen=True)
class Bar:
    """A figure that must not be above its limit, or with `at_least` not below it."""

    name: str
    value: float
    unit: str
    limit: float
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether the limit holds."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def finish(name: str, bars: Sequence[Bar], details: dict[str, Any]) -> int:
    """Print every bar, write `benchmarks/<name>.json`; 0 only if all hold."""
    for bar in bars:
        state = "ok" if bar.ok else "short"
        rule = ">=" if bar.at_least else "<="
        word = bar.name.replace(" ", "_")  # one word, so that the line can be read by a program
        print(f"bar: {word} {bar.value:.4g} {bar.unit} ({rule} {bar.limit:g}) {state}")
    path = Path(__file__).parent / f"{name}.json"
    rows = [{**asdict(bar), "ok": bar.ok} for bar in bars]
    data = {"bars": rows, "environment": environment.record(), **details}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0 if all(bar.ok for bar in bars) else 1
