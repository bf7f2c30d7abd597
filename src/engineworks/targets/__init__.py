"""The targets: one file each, and the listing of this folder is the list of targets.

A file is imported when its target is first used, so a missing vendor package never hurts the
others. Packages elsewhere add targets through the entry-point group `engineworks.targets`
(name -> module). "Add a target" in docs/add-a-target.md is the guide.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from functools import cache
from importlib import metadata

from engineworks import hosts, precisions, usercode
from engineworks.errors import RecipeError
from engineworks.facts.host import HostCard
from engineworks.precisions import SEARCHED
from engineworks.targets._base import Int8Rules, Target

GROUP = "engineworks.targets"


@cache
def _modules() -> dict[str, str]:
    """Target name -> module to import, this folder's first."""
    found = {
        entry.name.replace("_", "-"): entry.value for entry in metadata.entry_points(group=GROUP)
    }
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            found[module.name.replace("_", "-")] = f"{__name__}.{module.name}"
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """All targets, whether or not this machine can build them."""
    return tuple(_modules())


@cache
def load(name: str) -> Target:
    """Import a target's file.

    Raises:
        RecipeError: There is no such target, or its file declares none.
    """
    modules = _modules()
    if name not in modules:
        raise RecipeError(
            f"targets: there is no target {name!r}", hint=f"the targets are: {', '.join(modules)}"
        )
    try:
        module = importlib.import_module(modules[name])
    except Exception as error:
        raise RecipeError(
            f"targets: {name} comes from {modules[name]}, which cannot be imported "
            f"({type(error).__name__}: {error})",
            hint="repair or uninstall the package that provides this target",
        ) from error
    target = getattr(module, "TARGET", None)
    if not isinstance(target, Target):
        raise RecipeError(
            f"targets: {modules[name]} has no TARGET = Target(...)",
            hint="see docs/add-a-target.md for what a target's file holds",
        )
    return target


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
        module = _modules()[name]
        if not module.startswith(f"{__name__}."):
            versions[f"{module} (code)"] = usercode.package_sha256(module)
    return versions


__all__ = [
    "SEARCHED",
    "Target",
    "int8_rules",
    "load",
    "names",
    "tools",
]
