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
from pathlib import Path
from typing import cast

from engineworks import hosts
from engineworks.errors import RecipeError
from engineworks.targets._base import SEARCHED, Int8Rules, Target
from engineworks.values import HostCard

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
        RecipeError: There is no such target, or the file lacks a part of the contract.
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
    lacking = [part for part in Target.__annotations__ if not hasattr(module, part)]
    lacking += [part for part in ("missing", "lacking", "build") if not hasattr(module, part)]
    if lacking:
        raise RecipeError(
            f"targets: {modules[name]} lacks {', '.join(lacking)}",
            hint="see docs/add-a-target.md for what a target's file holds",
        )
    return cast(Target, module)


def int8_rules(name: str, host: HostCard, precision: str = "int8") -> Int8Rules:
    """How a target wants its integers.

    Args:
        name: The target.
        host: Where its engines will run.
        precision: One of `SEARCHED`.

    Raises:
        RecipeError: It has none.
    """
    found = getattr(load(name), "int8", None)
    if found is None:
        raise RecipeError(
            f"targets: {name} lists int8 but its file has no function int8(host)",
            hint="see docs/add-a-target.md",
        )
    rules = cast(Int8Rules, found(host))
    if precision == "int8":
        return rules
    return dataclasses.replace(rules, scheme=dataclasses.replace(rules.scheme, activation="float"))


def cannot_run(name: str, host: HostCard) -> str:
    """What a machine needs to open a target's engines and this host lacks; "" when nothing."""
    found = getattr(load(name), "cannot_run", None)
    return cast(str, found(host)) if found is not None else ""


def replays(name: str) -> bool:
    """Whether a target's engines can be checked where they cannot be opened (`Target`)."""
    return hasattr(load(name), "replayed")


def replayed(name: str, entry: Path, path: Path) -> Path:
    """Write an engine as ONNX: its file `entry`, to `path`."""
    return cast(Path, load(name).replayed(entry, path))  # type: ignore[attr-defined]


@cache
def tools(*wanted: str) -> dict[str, str]:
    """Versions that decide what targets build and run: their packages, and who provides them."""
    versions = hosts.versions(*(package for name in wanted for package in load(name).PACKAGES))
    for entry in metadata.entry_points(group=GROUP):
        if entry.name.replace("_", "-") in wanted and entry.dist is not None:
            versions[entry.dist.name] = entry.dist.version
    return versions


__all__ = [
    "SEARCHED",
    "cannot_run",
    "int8_rules",
    "load",
    "names",
    "replayed",
    "replays",
    "tools",
]
