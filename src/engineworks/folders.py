"""Files in a folder as people have them: among hidden copies, thumbnails, links and loops.

What an editor, a file server or another system left beside somebody's files is not theirs, and is
counted. Links are followed. Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from engineworks.errors import DataError

#: Folders that systems make, beside those whose names begin with a dot: thumbnails and recycle
#: bins of file servers, leftovers of archives and disks. In lower case.
SYSTEM = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin"),
        *("system volume information", "__macosx", "lost+found"),
    }
)

#: Folders in one another; a chain of links that is longer has no end in sight.
_DEEPEST = 32


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files of a folder, all paths relative to it, with forward slashes, in order."""

    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Hidden and system entries: folders, and files of a wanted kind."""
    loops: tuple[str, ...] = ()
    """Links that lead back to a folder which they lie in."""
    others: tuple[str, ...] = ()
    """Files that end in none of the wanted endings, hidden ones uncounted."""


def find(root: Path, suffixes: Collection[str] = (), *, deep: bool = True) -> Found:
    """Search a folder.

    Args:
        root: The folder; it may itself be hidden.
        suffixes: Wanted endings, in lower case; none: every file.
        deep: Whether folders inside it are searched, too.

    Raises:
        DataError: It, or a folder inside it, cannot be read.
    """
    files: list[str] = []
    others: list[str] = []
    left_out: list[str] = []
    loops: list[str] = []

    def search(folder: Path, above: tuple[Path, ...]) -> None:
        here = folder.resolve()
        if here in above or len(above) > _DEEPEST:
            loops.append(folder.relative_to(root).as_posix())
            return
        for entry in _entries(folder):
            path = folder / entry.name
            is_folder = _is_folder(entry)
            if not is_folder and suffixes and path.suffix.lower() not in suffixes:
                if not entry.name.startswith("."):
                    others.append(path.relative_to(root).as_posix())
            elif entry.name.startswith(".") or (is_folder and entry.name.lower() in SYSTEM):
                left_out.append(path.relative_to(root).as_posix())
            elif not is_folder:
                files.append(path.relative_to(root).as_posix())
            elif deep:
                search(path, (*above, here))

    search(root, ())
    return Found(
        files=tuple(sorted(files)),
        left_out=tuple(left_out),
        loops=tuple(loops),
        others=tuple(sorted(others)),
    )


def is_folder(path: Path) -> bool:
    """Whether a name that somebody gave is a folder; one that cannot be a name is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # longer than a name may be, or with a zero byte
        return False


def by_ending(names: Iterable[str]) -> str:
    """How many files end in what, in words: `2 .heic, 1 without ending`."""
    counts = Counter(Path(name).suffix.lower() or "without ending" for name in names)
    return ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one; a link that leads nowhere is a file, which its reader cannot open."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the folder {folder} cannot be read ({getattr(error, 'strerror', None) or error})",
            hint="check its permissions, or leave it out",
        ) from error
