"""Which files a user's own code opens beside itself: a cached result stands only while they do.

A factory may read a configuration, a decoder its anchors, a function its photos. What Python opens
in the recipe's folder while such code runs is noted with its digest; what a library opens by itself
(OpenCV's `imread`) cannot be seen. Knows Python's audit events
(https://docs.python.org/3/library/audit_events.html), no stage.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from engineworks.store import changed, file_sha256
from engineworks.usercode import SKIPPED

_CODE = tuple(importlib.machinery.all_suffixes())


class _Notes:
    """What was opened in this process; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """Files in it are noted; None: nobody's code runs."""
        self.files: dict[str, str] = {}
        self.hooked = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or self.folder is None or not isinstance(arguments[0], str | bytes):
            return
        folder, self.folder = self.folder, None  # what is opened here is not the user's
        try:
            flags = arguments[2] if len(arguments) > 2 else 0
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR):
                return
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 - links stay
            if self._matters(path, folder):
                self.files[str(path)] = file_sha256(path)
        except (OSError, ValueError):
            pass  # whoever opens it will see
        finally:
            self.folder = folder

    def _matters(self, path: Path, folder: Path) -> bool:
        return (
            str(path) not in self.files
            and path.is_relative_to(folder)
            and not path.name.endswith(_CODE)
            and not SKIPPED & set(path.relative_to(folder).parts[:-1])
            and path.is_file()
        )


_NOTES = _Notes()


@contextlib.contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Note what is opened in a folder while the block runs."""
    if not _NOTES.hooked:
        sys.addaudithook(_NOTES)
        _NOTES.hooked = True
    before, _NOTES.folder = _NOTES.folder, folder.absolute()
    try:
        yield
    finally:
        _NOTES.folder = before


def seen() -> dict[str, str]:
    """sha256 by path of all that was noted in this process.

    Raises:
        InputError: One of them changed since it was opened.
    """
    for path, sha256 in _NOTES.files.items():
        now = _now(path)
        if now != sha256:
            raise changed(Path(path), sha256, now)
    return dict(_NOTES.files)


def altered(files: Mapping[str, str]) -> str:
    """The first of some files that is not as it was; empty if all are."""
    return next((path for path, sha256 in files.items() if _now(path) != sha256), "")


def _now(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError:
        return ""
