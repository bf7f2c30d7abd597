"""Files in a folder as people have them: among hidden copies, thumbnails, links and loops.

What an editor, a file server or another system left beside somebody's files is not theirs, and is
counted. Links are followed. Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
from collections.abc import Collection
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
    left_out: list[str] = []
    loops: list[str] = []

    def search(folder: Path, above: tuple[Path, ...]) -> None:
        here = folder.resolve()
        if here in above or len(above) > _DEEPEST:
            loops.append(folder.relative_to(root).as_posix())
            return
        for entry in _entries(folder):
            path = folder / entry.name
            is_folder = entry.is_dir()
            if not is_folder and suffixes and path.suffix.lower() not in suffixes:
                continue
            if entry.name.startswith(".") or (is_folder and entry.name.lower() in SYSTEM):
                left_out.append(path.relative_to(root).as_posix())
            elif not is_folder:
                files.append(path.relative_to(root).as_posix())
            elif deep:
                search(path, (*above, here))

    search(root, ())
    return Found(files=tuple(sorted(files)), left_out=tuple(left_out), loops=tuple(loops))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the folder {folder} cannot be read ({getattr(error, 'strerror', None) or error})",
            hint="check its permissions, or leave it out",
        ) from error
