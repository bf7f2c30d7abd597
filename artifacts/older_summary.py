"""summary.json as schema 1 wrote it, in the words of schema 2. Knows names, no meaning."""

from __future__ import annotations

from typing import Any

#: What schema 1 called a key, and a step of the search.
KEYS = {
    "rival": "precision_comparison", "precision_truth": "delivered_precision",
    "lacking": "unsupported_operators", "rungs": "trials", "fidelity": "agreement",
}  # fmt: skip
STEPS = {"island": "float_block", "polish": "refine"}


def renamed(value: Any) -> Any:
    """The same in the words of schema 2."""
    if isinstance(value, list):
        return [renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    new = {KEYS.get(key, key): renamed(item) for key, item in value.items()}
    if "rungs" in value:
        new["chosen"] = new.pop("found")
    if "step" in value and "integer_layers" in value:
        new["step"] = STEPS.get(value["step"], value["step"])
    return new
