"""The kinds of packages: one file each, and the listing of this folder is the list.

A package is what a server loads. A file is imported when its kind is first used. Packages
elsewhere add kinds through the entry-point group `engineworks.packaging` (name -> module).
docs/packages.md is the guide.
"""

from __future__ import annotations

import hashlib
import pkgutil
from functools import cache
from pathlib import Path

from engineworks import usercode
from engineworks.errors import RecipeError
from engineworks.listing import Listing
from engineworks.packaging import _travel
from engineworks.packaging._base import Package, PackageInput, PackageOutput, check_options
from engineworks.packaging._proof import prove
from engineworks.runtime import engines as _engines

LISTING = Listing(
    __name__, __path__, Package, "PACKAGE", noun="package", at="packages",
    guide="docs/packages.md", error=RecipeError, dashes=True,
)  # fmt: skip

_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """All kinds of packages."""
    return tuple(LISTING.modules)


def load(name: str) -> Package:
    """Import the file of a kind of package.

    Raises:
        RecipeError: There is no such kind, or its file declares none.
    """
    return LISTING.load(name)


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
    if foreign := LISTING.foreign(name):
        sha256.update(usercode.package_sha256(foreign).encode())
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
