"""The part of this library that travels inside a package, so that a server needs no wheel of it.

What a module imports from this library, and what those import, as their text says it; no list to
keep. Knows no server.
"""

from __future__ import annotations

import ast
import pkgutil
from functools import cache
from pathlib import Path

from engineworks.runtime import heads

ROOT = "engineworks"
_SOURCE = Path(__file__).parents[1]


def runtime(*engines: str) -> dict[str, Path]:
    """Files of what prepares pictures and decodes answers, and of what opens engines.

    Args:
        engines: Files of `engineworks.runtime.engines`; empty ones are left out.
    """
    names = [each.name for each in pkgutil.iter_modules(heads.__path__)]
    return modules(
        "engineworks.runtime.elsewhere",
        *(f"{heads.__name__}.{name}" for name in names),  # found by listing, not by an import
        *(f"engineworks.runtime.engines.{name}" for name in engines if name),
    )


def modules(*roots: str) -> dict[str, Path]:
    """Files of the modules that are needed to import `roots`.

    Args:
        roots: Dotted names, for example `engineworks.runtime`.

    Returns:
        Path below the folder that goes on `sys.path` (`engineworks/errors.py`) -> file here.
    """
    files: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None:
            continue
        inside = f"{ROOT}/{path.relative_to(_SOURCE).as_posix()}"
        if inside not in files:
            files[inside] = path
            waiting += _imports(path)
            waiting += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(files.items()))


def _file(name: str) -> Path | None:
    """The file of a module of this library; None: of another, or no module."""
    first, *rest = name.split(".")
    if first != ROOT:
        return None
    path = _SOURCE.joinpath(*rest)
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    path = path.with_suffix(".py")
    return path if rest and path.is_file() else None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """What a file imports, at its top or inside functions; names may be no modules."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return tuple(names)
