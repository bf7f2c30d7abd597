"""What a user's own code looks at: a cached result stands only while that is the same.

A factory may read a configuration, a decoder its anchors, a function its photos. While such code
runs these are noted, in the recipe's folder and elsewhere where people keep code and data: files
that are read or imported, with their digests; folders that are listed, with their names; where
links lead; what was asked for its size, its time or whether it is there, and what is not there.
Python tells by its audit events (https://docs.python.org/3/library/audit_events.html), some
libraries by `library_reads`; what another one, or another program, opens by itself cannot be seen.
Knows no stage.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import stat
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
#: Python's functions for paths: who calls them is who looks.
_PATHS = ("genericpath", "posixpath", "ntpath", "os", "pathlib", "glob")
#: Those of them that ask no more than whether something is there.
_THERE = ("exists", "lexists", "isfile", "isdir", "is_file", "is_dir", "access")

#: In place of a digest: nothing was there.
_ABSENT = ""

#: What follows a path in the key of what was asked of it, where that is not its bytes.
NAMES, KIND, TIME, LINK = "/", "\0kind", "\0time", "\0link"


class _Notes:
    """What was looked at in this process; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """The recipe's; None: nobody's code runs."""
        self.seen: dict[str, str] = {}
        """Path -> digest of its bytes, or path with one of the endings above -> what was told."""
        self.own: set[str] = set()
        """Files of `seen` that lie in the recipe's folder."""
        self.written: set[str] = set()
        """Files that were opened for writing, too: they may be others afterwards."""
        self.searched: set[str] = set()
        """Folders that modules were looked for in before."""
        self.spill: Path | None = None
        """Where forked processes leave what they note."""
        self._pid = os.getpid()

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        library_reads.watch(self.read)
        if event == "open":
            flags = arguments[2] if len(arguments) > 2 else 0
            self._opened(arguments[0], flags if isinstance(flags, int) else 0)
        elif event == "import":
            self.read(arguments[1])  # an extension's file, which the system maps
        elif event == "sqlite3.connect":
            self._opened(arguments[0], os.O_RDWR)
        elif event in ("os.listdir", "os.scandir"):
            self.listed(arguments[0] if arguments[0] is not None else ".", own=_by_whom()[0])

    def _opened(self, name: object, flags: int) -> None:
        if flags & os.O_WRONLY or (flags & os.O_RDWR and flags & (os.O_TRUNC | os.O_CREAT)):
            return
        if flags & os.O_RDWR and isinstance(name, str | bytes | os.PathLike):
            self.written.add(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - links stay
        self.read(name)

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
                self._note(str(path), file_sha256(path))
                if path.is_relative_to(self._recipe):
                    self.own.add(str(path))
            elif not path.exists():
                self._note(str(path), _ABSENT)

    def told(self, name: object, what: str) -> None:
        """Note what a look told: one of the endings above, or "" for that nothing is there."""
        with self._path(name) as path:
            if path is not None and self._matters(path):
                self._note(f"{path}{what}", _now(f"{path}{what}"))

    def listed(self, name: object, *, own: bool) -> None:
        """Note the names in a folder.

        Args:
            name: The folder.
            own: Whether Python looks for modules: of meaning where the user's code sent it there.
        """
        with self._path(name) as path:
            if path is None or not self._matters(path / "any"):
                return
            if own and (str(path) in self.searched or path.is_relative_to(self._recipe)):
                return  # the code beside the recipe is pinned
            if path.is_dir():
                self._note(f"{path}{NAMES}", _names_sha256(path))
            elif not path.exists():
                self._note(str(path), _ABSENT)

    def _note(self, key: str, value: str) -> None:
        if key in self.seen:
            return
        self.seen[key] = value
        if os.getpid() != self._pid and self.spill is not None:
            with self.spill.open(
                "ab", buffering=0
            ) as file:  # one write a line: whole beside others
                file.write(json.dumps([key, value]).encode() + b"\n")

    def gather(self) -> None:
        """Take over what forked processes have noted."""
        with contextlib.suppress(OSError, ValueError):
            if self.spill is not None:
                for line in self.spill.read_text(encoding="utf-8").splitlines():
                    key, value = json.loads(line)
                    self.seen.setdefault(key, value)

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


def _by_whom() -> tuple[bool, bool]:
    """Whether it is Python's own machinery that looks, and whether only for being there.

    What an installed library does with times and sizes of files that it is given is its own affair.
    """
    frame: types.FrameType | None = sys._getframe(2)
    only_there = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in _PATHS:
            library = frame.f_code.co_filename.startswith((sys.prefix, sys.base_prefix))
            return module in _PYTHONS_OWN, only_there or library
        only_there = only_there or frame.f_code.co_name in _THERE
        frame = frame.f_back
    return False, only_there


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
    if _NOTES.spill is None:
        _no_data()  # asks for the folder of temporary files, which it tries
        descriptor, name = tempfile.mkstemp(prefix="engineworks-looks-")
        os.close(descriptor)
        _NOTES.spill = Path(name)
        atexit.register(_NOTES.spill.unlink, missing_ok=True)
        _NOTES.searched = {os.path.abspath(entry) for entry in sys.path}  # noqa: PTH100
        sys.addaudithook(_NOTES)
        _watch_looks()
        library_reads.load_opencv()
    library_reads.watch(_NOTES.read)
    before, _NOTES.folder = _NOTES.folder, folder.absolute()
    try:
        yield
    finally:
        _NOTES.folder = before


def _watch_looks() -> None:
    """Have noted what no audit event tells of: `os.path.exists`, sizes, times, links."""

    def looking(plain: Callable[..., Any], found: Callable[[Any, Any], str | None]) -> None:
        @functools.wraps(plain)
        def noting(path: Any, *arguments: Any, **named: Any) -> Any:
            try:
                answer = plain(path, *arguments, **named)
            except (FileNotFoundError, NotADirectoryError):
                if not _by_whom()[0]:
                    _NOTES.told(path, _ABSENT)
                raise
            own, only_there = _by_whom()
            what = None if own else found(answer, only_there)
            if what is not None:
                _NOTES.told(path, what)
            return answer

        for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if plain in able:
                able.add(noting)
        setattr(os, plain.__name__, noting)

    # Whatever asks for such a thing in Python's library asks one of these by its name.
    looking(os.stat, _of_stat)
    looking(os.lstat, lambda answer, only_there: None)
    looking(os.readlink, lambda answer, only_there: LINK)
    looking(os.access, lambda answer, only_there: None if answer else _ABSENT)


def _of_stat(answer: os.stat_result, only_there: bool) -> str | None:
    if only_there:
        return KIND
    return TIME if stat.S_ISREG(answer.st_mode) else None


def seen() -> dict[str, str]:
    """What was noted in this process and those that it forked: what was told, by path.

    An empty value: it was not there. Files outside the recipe's folder that are gone, as working
    files are, are left out.

    Raises:
        InputError: A file changed since it was opened.
    """
    _NOTES.gather()
    kept = {}
    for key, value in _NOTES.seen.items():
        # What the code itself has written meanwhile is what the next run finds changed.
        if value != _ABSENT and _path_of(key) == key and key not in _NOTES.written:
            now = _now(key)
            if now == _ABSENT and key not in _NOTES.own:
                continue
            if now != value:
                raise changed(Path(key), value, now)
        kept[key] = value
    return kept


def altered(files: Mapping[str, str]) -> str:
    """The first path of those of `seen` that is not as it was; empty if all are."""
    return next((_path_of(key) for key, value in files.items() if _now(key) != value), "")


def _path_of(key: str) -> str:
    return key.partition("\0")[0] if "\0" in key else key.removesuffix(NAMES) or NAMES


def _now(key: str) -> str:
    """What would be told now."""
    path = Path(_path_of(key))
    try:
        if key.endswith(LINK):
            return f"-> {path.readlink()}"
        if key.endswith(KIND):
            return "file" if path.is_file() else "folder" if path.is_dir() else _ABSENT
        if key.endswith(TIME):
            told = path.stat()
            return f"{told.st_size} bytes at {told.st_mtime_ns}"
        return _names_sha256(path) if key.endswith(NAMES) else file_sha256(path)
    except OSError:
        return "unreadable" if path.exists() else _ABSENT


def _names_sha256(folder: Path) -> str:
    names = sorted({path.name for path in folder.iterdir()} - SKIPPED)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
