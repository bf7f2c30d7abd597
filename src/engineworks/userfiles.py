"""What a user's own code looks at: a cached result stands only while that is the same.

A factory may read a configuration, a decoder its anchors, a function its photos. While such code
runs these are noted, in the recipe's folder and elsewhere where people keep code and data: files
that are read or imported, with their digests; folders that are listed, with their names; and what
was looked for and is not there. Python tells by its audit events
(https://docs.python.org/3/library/audit_events.html), some libraries by `library_reads`; what
another one opens by itself cannot be seen. Knows no stage.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engineworks import library_reads
from engineworks.store import changed, file_sha256
from engineworks.usercode import SKIPPED

#: Of the system: what lies there is nobody's data.
_SYSTEM = (
    *("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/run"),
    *("/var/lib", "/var/cache", "/var/log", "/var/run", "/var/tmp"),  # noqa: S108 - left aside
)

#: Python's own looks for modules, and for source lines to show: nobody's result depends on them.
_PYTHONS_OWN = ("importlib", "pkgutil", "zipimport", "linecache", "inspect", "site", "warnings")

_WRITES = os.O_WRONLY | os.O_RDWR

_PATHS = ("genericpath", "posixpath", "ntpath", "os", "pathlib", "glob")

#: In place of a digest: nothing was there.
_ABSENT = ""


class _Notes:
    """What was looked at in this process; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """The recipe's; None: nobody's code runs."""
        self.seen: dict[str, str] = {}
        """Path -> digest of its bytes; a folder's ends in `/`, and its digest is of its names."""
        self.own: set[str] = set()
        """Files of `seen` that lie in the recipe's folder."""
        self.hooked = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        library_reads.watch(self.read)
        if event == "open":
            flags = arguments[2] if len(arguments) > 2 else 0
            if not (isinstance(flags, int) and flags & _WRITES):
                self.read(arguments[0])
        elif event == "import":
            self.read(arguments[1])  # an extension's file, which the system maps
        elif event in ("os.listdir", "os.scandir") and not _pythons_own():
            self.listed(arguments[0] if arguments[0] is not None else ".")

    def read(self, name: object) -> None:
        """Note a file that is about to be read; or that it is not there."""
        with self._path(name) as path:
            if path is None:
                return
            if path.parent.name == "__pycache__" and path.suffix == ".pyc":
                path = Path(importlib.util.source_from_cache(path))
            if str(path) in self.seen or not self._matters(path):
                return
            if path.is_file():
                self.seen[str(path)] = file_sha256(path)
                if path.is_relative_to(self._recipe):
                    self.own.add(str(path))
            elif not os.path.lexists(path):
                self.seen[str(path)] = _ABSENT

    def missed(self, name: object) -> None:
        """Note that there is no such file or folder."""
        with self._path(name) as path:
            if path is not None and self._matters(path):
                self.seen.setdefault(str(path), _ABSENT)

    def listed(self, name: object) -> None:
        """Note the names in a folder."""
        with self._path(name) as path:
            if path is not None and self._matters(path / "any") and path.is_dir():
                self.seen.setdefault(f"{path}/", _names_sha256(path))

    @contextlib.contextmanager
    def _path(self, name: object) -> Iterator[Path | None]:
        """The absolute path that is meant, None where it is none; nothing in the block is noted."""
        if self.folder is None or not name or not isinstance(name, str | bytes | os.PathLike):
            yield None
            return
        self._recipe, self.folder = self.folder, None  # what is opened here is not the user's
        try:
            with contextlib.suppress(OSError, ValueError):  # whoever opens it will see
                yield Path(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - links stay
        finally:
            self.folder = self._recipe

    def _matters(self, path: Path) -> bool:
        if path.is_relative_to(self._recipe):
            return not SKIPPED & set(path.relative_to(self._recipe).parts[:-1])
        return _may_be_data(path)


def _pythons_own() -> bool:
    """Whether it is Python's own machinery that looks, by way of its functions for paths."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in _PATHS:
            return module in _PYTHONS_OWN
        frame = frame.f_back
    return False


def _may_be_data(path: Path) -> bool:
    """Whether a file outside the recipe's folder may be somebody's code or data."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not any(map(path.is_relative_to, _no_data()))


@functools.cache
def _no_data() -> tuple[str, ...]:
    home = os.environ.get("ENGINEWORKS_HOME")
    own = (sys.prefix, sys.base_prefix, tempfile.gettempdir(), str(Path(__file__).parent))
    return (*_SYSTEM, *map(os.path.abspath, [*own, *([home] if home else ())]))


_NOTES = _Notes()


@contextlib.contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Note what is looked at while the block runs.

    Args:
        folder: The recipe's.
    """
    if not _NOTES.hooked:
        _no_data()  # asks for the folder of temporary files, which it tries
        sys.addaudithook(_NOTES)
        _watch_looks()
        library_reads.load_opencv()
        _NOTES.hooked = True
    library_reads.watch(_NOTES.read)
    before, _NOTES.folder = _NOTES.folder, folder.absolute()
    try:
        yield
    finally:
        _NOTES.folder = before


def _watch_looks() -> None:
    """Have a look that finds nothing noted; no audit event tells of `os.path.exists`."""

    def watched(look: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(look)
        def noting(path: Any, *arguments: Any, **named: Any) -> Any:
            try:
                return look(path, *arguments, **named)
            except (FileNotFoundError, NotADirectoryError):
                if not _pythons_own():
                    _NOTES.missed(path)
                raise

        return noting

    # Whatever asks for a file's existence in Python's library asks one of these by its name.
    for name in ("stat", "lstat"):
        plain = getattr(os, name)
        noting = watched(plain)
        for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if plain in able:
                able.add(noting)
        setattr(os, name, noting)


def seen() -> dict[str, str]:
    """What was noted in this process: a digest by path.

    An empty one: it was not there. A path that ends in `/` is a folder's, its digest of the names.
    Files outside the recipe's folder that are gone, as working files are, are left out.

    Raises:
        InputError: A file changed since it was opened.
    """
    kept = {}
    for path, sha256 in _NOTES.seen.items():
        # What the code itself has written meanwhile is what the next run finds changed.
        if sha256 != _ABSENT and not path.endswith("/"):
            now = _now(path)
            if now == _ABSENT and path not in _NOTES.own:
                continue
            if now != sha256:
                raise changed(Path(path), sha256, now)
        kept[path] = sha256
    return kept


def altered(files: Mapping[str, str]) -> str:
    """The first path of those of `seen` that is not as it was; empty if all are."""
    return next((path for path, sha256 in files.items() if _now(path) != sha256), "")


def _now(path: str) -> str:
    try:
        return _names_sha256(Path(path)) if path.endswith("/") else file_sha256(Path(path))
    except OSError:
        return "unreadable" if os.path.lexists(path) else _ABSENT


def _names_sha256(folder: Path) -> str:
    names = sorted({path.name for path in folder.iterdir()} - SKIPPED)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
