"""A recipe: the YAML a user writes, read once, checked, and fixed by digests.

The sections are the frozen values of `specs/`; which machine builds what is `plan.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from engineworks import plan as planning
from engineworks.facts.host import HostCard, RegisteredHost
from engineworks.facts.plan import Plan
from engineworks.recipe.labels import read_labels
from engineworks.recipe.load import load
from engineworks.recipe.pin import pin_model
from engineworks.recipe.rules import refuse_float
from engineworks.recipe.schema import Loaded, Recipe, json_schema, resolved


def plan(
    loaded: Loaded,
    host: HostCard | None = None,
    *,
    registered: Sequence[RegisteredHost] | None = None,
    code_sha256: str = "",
) -> Plan:
    """See `plan.plan`."""
    return planning.plan(
        loaded.recipe.targets, host, registered=registered, code_sha256=code_sha256
    )


__all__ = [
    "Loaded",
    "Recipe",
    "json_schema",
    "load",
    "pin_model",
    "plan",
    "read_labels",
    "refuse_float",
    "resolved",
]
