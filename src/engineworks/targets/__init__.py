"""The targets: one file each, and the listing of this folder is the list of targets.

A file is imported when its target is first used, so a missing vendor package never hurts the
others. Packages elsewhere add targets through the entry-point group `engineworks.targets`
(name -> module). "Add a target" in docs/add-a-target.md is the guide.
"""

from __future__ import annotations

import dataclasses
from functools import cache

from engineworks import hosts, precisions, usercode
from engineworks.errors import RecipeError
from engineworks.facts.host import HostCard
from engineworks.listing import Listing
from engineworks.precisions import SEARCHED
from engineworks.targets._base import Int8Rules, Target

LISTING = Listing(
    __name__, __path__, Target, "TARGET", noun="target", at="targets",
    guide="docs/add-a-target.md", error=RecipeError, dashes=True,
)  # fmt: skip


def names() -> tuple[str, ...]:
    """All targets, whether or not this machine can build them."""
    return tuple(LISTING.modules)


def load(name: str) -> Target:
    """Import a target's file.

    Raises:
        RecipeError: There is no such target, or its file declares none.
    """
    return LISTING.load(name)


def int8_rules(name: str, host: HostCard, precision: str = "int8") -> Int8Rules:
    """How a target wants its integers.

    Args:
        name: The target.
        host: Where its engines will run.
        precision: One that is searched for.

    Raises:
        RecipeError: It has none.
    """
    target = load(name)
    if target.int8 is None:
        raise RecipeError(
            f"targets: {name} has no {precision}", hint=f"it has: {', '.join(target.precisions)}"
        )
    rules = target.int8(host)
    if not precisions.get(precision).weights_only:
        return rules
    return dataclasses.replace(rules, scheme=dataclasses.replace(rules.scheme, activation="float"))


@cache
def tools(*wanted: str) -> dict[str, str]:
    """What decides what targets build and run: versions of their packages, and foreign code."""
    versions = hosts.versions(*(package for name in wanted for package in load(name).packages))
    for name in wanted:
        if foreign := LISTING.foreign(name):
            versions[f"{foreign} (code)"] = usercode.package_sha256(foreign)
    return versions


__all__ = [
    "SEARCHED",
    "Target",
    "int8_rules",
    "load",
    "names",
    "tools",
]
