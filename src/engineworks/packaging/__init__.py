"""The kinds of packages: one file each, and the listing of this folder is the list.

A package is what a server loads. A file is imported when its kind is first used. Packages
elsewhere add kinds through the entry-point group `engineworks.packaging` (name -> module).
docs/packages.md is the guide.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib import metadata

from engineworks.errors import RecipeError
from engineworks.packaging._base import Package, PackageInput, PackageOutput, check_options
from engineworks.packaging._proof import prove

GROUP = "engineworks.packaging"


@cache
def _modules() -> dict[str, str]:
    """Kind of package -> module to import; a file of this folder wins over one of its name."""
    modules = {
        entry.name.replace("_", "-"): entry.value for entry in metadata.entry_points(group=GROUP)
    }
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            modules[module.name.replace("_", "-")] = f"{__name__}.{module.name}"
    return dict(sorted(modules.items()))


def names() -> tuple[str, ...]:
    """All kinds of packages."""
    return tuple(_modules())


@cache
def load(name: str) -> Package:
    """Import the file of a kind of package.

    Raises:
        RecipeError: There is no such kind, or its file declares none.
    """
    modules = _modules()
    if name not in modules:
        raise RecipeError(
            f"packages: there is no package {name!r}",
            hint=f"the packages are: {', '.join(modules)}",
        )
    try:
        module = importlib.import_module(modules[name])
    except Exception as error:
        raise RecipeError(
            f"packages: {name} comes from {modules[name]}, which cannot be imported "
            f"({type(error).__name__}: {error})",
            hint="repair or uninstall the package that provides it",
        ) from error
    package = getattr(module, "PACKAGE", None)
    if not isinstance(package, Package):
        raise RecipeError(
            f"packages: {modules[name]} has no PACKAGE = Package(...)",
            hint="see docs/packages.md for what a package's file holds",
        )
    return package


__all__ = [
    "Package",
    "PackageInput",
    "PackageOutput",
    "check_options",
    "load",
    "names",
    "prove",
]
