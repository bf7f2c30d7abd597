"""Loads a user's `module:name`: a model factory or a decoder that lies beside the recipe.

Only ever called in a stage's child process, so that user code cannot touch the flow. Also
computes the digest that stands for that code in cache keys.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from engineworks.errors import ModelError
from engineworks.store import file_sha256

#: Folders beside a recipe that hold no model code.
SKIPPED = {".git", ".venv", "venv", "__pycache__", ".engineworks", "node_modules"}


def load(reference: str, folder: Path, what: str) -> Any:
    """Import `module:name`, looking in `folder` first.

    Args:
        reference: For example `model:build`.
        folder: Folder of the recipe.
        what: The recipe's key, for the error message.

    Raises:
        ModelError: No such module or name, or the module raises when imported.
    """
    module_name, _, name = reference.partition(":")
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what}: {reference!r} needs the module {error.name!r}, which is neither beside the "
            f"recipe ({folder}) nor installed",
            hint=f"create {folder / (module_name.replace('.', '/') + '.py')} or install it",
        ) from error
    except Exception as error:
        raise ModelError(
            f"{what}: importing {module_name!r} raised {type(error).__name__}: {error}",
            hint=f"try it alone: cd {folder} && python -c 'import {module_name}'",
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        callables = [key for key, value in vars(module).items() if callable(value)]
        raise ModelError(
            f"{what}: {module.__file__} has no callable {name!r}",
            hint=f"it has: {', '.join(sorted(callables)[:12]) or 'none'}",
        )
    return found


def code_sha256(reference: str, folder: Path) -> str:
    """Digest of the Python files that `module:name` may use, without importing them.

    Beside the recipe: every .py file under the recipe's folder. Installed: those of the
    top-level package.

    Raises:
        ModelError: The module is nowhere.
    """
    top = reference.partition(":")[0].split(".")[0]
    if (folder / f"{top}.py").is_file() or (folder / top).is_dir():
        root, files = folder, python_files(folder)
    else:
        found = _installed(top)
        if found is None:
            raise ModelError(
                f"{reference!r}: no module {top!r} beside the recipe ({folder}) or installed",
                hint=f"create {folder / (top + '.py')} or install the package",
            )
        root, files = found
    return _digest(root, files)


def package_sha256(module: str) -> str:
    """Digest of the Python files of an installed module's top-level package; "" without one."""
    found = _installed(module.split(".")[0])
    return _digest(*found) if found else ""


def _installed(top: str) -> tuple[Path, list[Path]] | None:
    """Folder and Python files of an installed top-level package, which is not imported."""
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    origin = Path(spec.origin)
    files = python_files(origin.parent) if origin.name == "__init__.py" else [origin]
    return origin.parent, files


def _digest(root: Path, files: list[Path]) -> str:
    sha256 = hashlib.sha256()
    for path in files:
        sha256.update(f"{path.relative_to(root).as_posix()}\0{file_sha256(path)}\n".encode())
    return sha256.hexdigest()


def python_files(folder: Path) -> list[Path]:
    """The Python files that belong to a recipe in this folder, sorted."""
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not SKIPPED & set(path.relative_to(folder).parts[:-1])
        and not (
            path.is_relative_to(folder / "data") and not (folder / "data/__init__.py").exists()
        )
    )
