"""The kinds of packages: one file each, and the listing of this folder is the list.

A package is what a server loads. A file is imported when its kind is first used. Packages
elsewhere add kinds through the entry-point group `engineworks.packaging` (name -> module).
docs/packages.md is the guide.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from functools import cache
from importlib import metadata
from pathlib import Path

from engineworks import usercode
from engineworks.errors import RecipeError
from engineworks.packaging import _travel
from engineworks.packaging._base import Package, PackageInput, PackageOutput, check_options
from engineworks.packaging._proof import prove
from engineworks.runtime import engines as _engines

GROUP = "engineworks.packaging"

_HERE = Path(__file__).parent


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


@cache
def code_sha256(name: str) -> str:
    """Digest of all code that a kind's packages are written with, prove with and hold.

    This folder and whatever of the library travels; for a kind from elsewhere its package as well.
    """
    sha256 = hashlib.sha256()
    own = {str(path.relative_to(_HERE)): path for path in _HERE.rglob("*.py")}
    travelling = _travel.runtime(*(each.name for each in pkgutil.iter_modules(_engines.__path__)))
    for inside, path in sorted({**own, **travelling}.items()):
        sha256.update(f"{inside}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    module = _modules()[name]
    if not module.startswith(f"{__name__}."):
        sha256.update(usercode.package_sha256(module).encode())
    return sha256.hexdigest()


__all__ = [
    "Package",
    "PackageInput",
    "PackageOutput",
    "check_options",
    "code_sha256",
    "load",
    "names",
    "prove",
]
