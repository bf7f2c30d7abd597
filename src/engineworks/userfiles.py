"""Which files a user's own code opens beside itself: a cached result stands only while they do.

A factory may read a configuration, a decoder its anchors, a function its photos. What Python or
OpenCV's `imread` opens while such code runs is noted with its digest: in the recipe's folder, and
elsewhere where people keep data. What another library opens by itself cannot be seen. Knows
Python's audit events (https://docs.python.org/3/library/audit_events.html), no stage.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engineworks.store import changed, file_sha256
from engineworks.usercode import SKIPPED

_CODE = tuple(importlib.machinery.all_suffixes())

#: Of the system: what lies there is nobody's data.
_SYSTEM = (
    *("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/run"),
    *("/var/lib", "/var/cache", "/var/log", "/var/run", "/var/tmp"),  # noqa: S108 - left aside
)

#: What OpenCV opens without Python.
_READERS = ("imread", "imreadmulti")


class _Notes:
    """What was opened in this process; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """Files in it are noted; None: nobody's code runs."""
        self.files: dict[str, str] = {}
        self.own: set[str] = set()
        """Those of `files` that lie in the recipe's folder."""
        self.hooked = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        flags = arguments[2] if len(arguments) > 2 else 0
        if event == "open" and not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            self.note(arguments[0])

    def note(self, name: object) -> None:
        """Note a file that is about to be read, if its name is one and somebody's code runs."""
        if self.folder is None or not isinstance(name, str | bytes | os.PathLike):
            return
        folder, self.folder = self.folder, None  # what is opened here is not the user's
        try:
            path = Path(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - links stay
            if self._matters(path, folder):
                self.files[str(path)] = file_sha256(path)
                if path.is_relative_to(folder):
                    self.own.add(str(path))
        except (OSError, ValueError):
            pass  # whoever opens it will see
        finally:
            self.folder = folder

    def _matters(self, path: Path, folder: Path) -> bool:
        if str(path) in self.files or path.name.endswith(_CODE) or not path.is_file():
            return False
        if path.is_relative_to(folder):
            return not SKIPPED & set(path.relative_to(folder).parts[:-1])
        return _may_be_data(path)


def _may_be_data(path: Path) -> bool:
    """Whether a file outside the recipe's folder may be somebody's data."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not any(map(path.is_relative_to, _no_data()))


@functools.cache
def _no_data() -> tuple[str, ...]:
    home = os.environ.get("ENGINEWORKS_HOME")
    own = (sys.prefix, sys.base_prefix, tempfile.gettempdir(), *([home] if home else ()))
    return (*_SYSTEM, *map(os.path.abspath, own))


_NOTES = _Notes()


@contextlib.contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Note what is opened in a folder while the block runs."""
    if not _NOTES.hooked:
        sys.addaudithook(_NOTES)
        _watch_opencv()
        _NOTES.hooked = True
    before, _NOTES.folder = _NOTES.folder, folder.absolute()
    try:
        yield
    finally:
        _NOTES.folder = before


def _watch_opencv() -> None:
    """Have what OpenCV reads noted, too, from now on in this process."""
    if importlib.util.find_spec("cv2") is None:
        return
    import cv2

    def watched(read: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(read)
        def noting(*arguments: Any, **named: Any) -> Any:
            _NOTES.note(arguments[0] if arguments else named.get("filename"))
            return read(*arguments, **named)

        return noting

    for name in _READERS:
        setattr(cv2, name, watched(getattr(cv2, name)))


def seen() -> dict[str, str]:
    """sha256 by path of all that was noted in this process, and is not gone as a working file is.

    Raises:
        InputError: One of them changed since it was opened.
    """
    kept = {}
    for path, sha256 in _NOTES.files.items():
        now = _now(path)
        if not now and not Path(path).exists() and path not in _NOTES.own:
            continue
        if now != sha256:
            raise changed(Path(path), sha256, now)
        kept[path] = sha256
    return kept


def altered(files: Mapping[str, str]) -> str:
    """The first of some files that is not as it was; empty if all are."""
    return next((path for path, sha256 in files.items() if _now(path) != sha256), "")


def _now(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError:
        return ""
