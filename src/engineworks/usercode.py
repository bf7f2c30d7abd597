"""Loads a user's `module:name`: a model factory or a decoder that lies beside the recipe.

In a run only ever called in a stage's child process, so that user code cannot touch the flow; a
command that is given a recipe's folder runs its code itself. Also
computes the digest that stands for that code in cache keys, and lets a process import no other
bytes than those. Knows Python's import system, no model.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engineworks.errors import EngineworksError, ModelError, said
from engineworks.facts.model import PinnedCode
from engineworks.store import file_sha256, pinned_bytes

#: Folders beside a recipe that hold no model code.
SKIPPED = {".git", ".venv", "venv", "__pycache__", ".engineworks", "node_modules"}

#: Endings of what Python imports: source, compiled extensions, and bytecode without its source.
IMPORTED = tuple(importlib.machinery.all_suffixes())


def load(reference: str, folder: Path, what: str) -> Any:
    """Import `module:name`, looking in `folder` first.

    Args:
        reference: For example `model:build`.
        folder: Folder of the recipe.
        what: The recipe's key, for the error message.

    Raises:
        ModelError: No such module or name, or the module raises when imported.
        InputError: Its code is not what `hold_to` was told.
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
    except EngineworksError:
        raise
    except Exception as error:
        raise ModelError(
            f"{what}: importing {module_name!r} raised {type(error).__name__}: {said(error)}",
            hint=f"try it alone: cd {folder} && python -c 'import {module_name}'",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        callables = [key for key, value in vars(module).items() if callable(value)]
        raise ModelError(
            f"{what}: {module.__file__} has no callable {name!r}",
            hint=f"it has: {', '.join(sorted(callables)[:12]) or 'none'}",
        )
    return function


def pin(reference: str, folder: Path) -> PinnedCode:
    """Fix the code that `module:name` may use, without importing it.

    Beside the recipe: every file under the recipe's folder that Python could import. Installed:
    those of the top-level package.

    Raises:
        ModelError: The module is nowhere.
    """
    files = _digests(*_code(reference, folder))
    return PinnedCode(reference=reference, files=files, sha256=_digest(files))


def sha256(code: Sequence[PinnedCode]) -> str:
    """One digest over several; empty for none."""
    text = "".join(module.sha256 for module in code)
    return hashlib.sha256(text.encode()).hexdigest() if code else ""


def _code(reference: str, folder: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files."""
    top = reference.partition(":")[0].split(".")[0]
    if (folder / top).is_dir() or any((folder / f"{top}{ending}").is_file() for ending in IMPORTED):
        return folder, code_files(folder)
    package = _installed(top)
    if package is None:
        raise ModelError(
            f"{reference!r}: no module {top!r} beside the recipe ({folder}) or installed",
            hint=f"create {folder / (top + '.py')} or install the package",
        )
    return package


def package_sha256(module: str) -> str:
    """Digest of the Python files of an installed module's top-level package; "" without one."""
    package = _installed(module.split(".")[0])
    return _digest(_digests(*package)) if package else ""


def _installed(top: str) -> tuple[Path, list[Path]] | None:
    """Folder and code of an installed top-level package, which is not imported."""
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    origin = Path(spec.origin)
    files = code_files(origin.parent) if origin.name == "__init__.py" else [origin]
    return origin.parent, files


def _digests(root: Path, files: list[Path]) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): file_sha256(path) for path in files}


def _digest(files: Mapping[str, str]) -> str:
    text = "".join(f"{name}\0{digest}\n" for name, digest in files.items())
    return hashlib.sha256(text.encode()).hexdigest()


def code_files(folder: Path) -> list[Path]:
    """The files in a folder that Python could import, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.endswith(IMPORTED) and _belongs(path, folder) and path.is_file()
    )


def _belongs(path: Path, folder: Path) -> bool:
    """Whether a file beside the recipe may be code of it."""
    return not SKIPPED & set(path.relative_to(folder).parts[:-1])


def hold_to(code: Iterable[PinnedCode], folder: Path) -> None:
    """From now on this process imports from these folders only the bytes that were pinned.

    Every file is read once: what was hashed is what is compiled, never `__pycache__`, which
    Python trusts by size and time.

    Args:
        code: What was pinned.
        folder: Folder of the recipe.
    """
    for pinned in code:
        root, _ = _code(pinned.reference, folder)
        sys.meta_path.insert(0, _Finder(root, pinned.files))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what Python would find, and has it read by a loader that compares."""

    def __init__(self, root: Path, files: Mapping[str, str]) -> None:
        self._root, self._files = root.resolve(), files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec with our own loader; None for what lies elsewhere."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if spec is None or origin is None or not origin.is_file():
            return None
        place = origin.parent.resolve() / origin.name
        if not place.is_relative_to(self._root) or not _belongs(place, self._root):
            return None
        sha256 = self._files.get(place.relative_to(self._root).as_posix(), "")
        if isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _SourceLoader(fullname, str(origin), sha256)
            spec.cached = None
        else:  # the system maps an extension itself: it can only be looked at before
            pinned_bytes(origin, sha256)
        return spec


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the bytes whose digest it has compared."""

    def __init__(self, fullname: str, path: str, sha256: str) -> None:
        super().__init__(fullname, path)
        self._sha256 = sha256

    def get_code(self, fullname: str) -> types.CodeType:
        """The module's code, from its source alone."""
        data = pinned_bytes(Path(self.path), self._sha256)
        # Without a time nobody looks at the file again: inspect and TorchScript read these lines.
        lines = importlib.util.decode_source(data).splitlines(keepends=True)
        linecache.cache[self.path] = (len(data), None, lines, self.path)
        code: types.CodeType = self.source_to_code(data, self.path)
        return code
