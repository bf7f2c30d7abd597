"""Power cuts: what an agent does to its disk is recorded, and every prefix of it rebuilt.

A name that its folder was not told to keep, and bytes that were not synced, may be there after a
power cut or not. Four ways of losing them are rebuilt for each prefix: all of it lost; the names
there and the bytes lost; nothing lost (a kill); and some of it, by chance.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engineworks.delivery.disk import Disk

WAYS = ("all lost", "bytes lost", "nothing lost", "some lost")

#: Operations on names: they last when the folder they were made in is synced.
_NAMES = {"mkdir", "create", "symlink", "unlink", "rmdir", "rename"}


class RecordingDisk(Disk):
    """Takes note of every operation, by paths relative to a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.operations: list[tuple[str, tuple[Any, ...]]] = []

    def _note(self, name: str, *arguments: Any) -> None:
        inside = tuple(
            one.relative_to(self._folder).as_posix() if isinstance(one, Path) else one
            for one in arguments
        )
        self.operations.append((name, inside))

    def mkdir(self, folder: Path, mode: int = 0o777) -> None:
        """See `Disk`."""
        super().mkdir(folder, mode)
        self._note("mkdir", folder)

    def create(self, path: Path, data: bytes, mode: int = 0o666) -> None:
        """See `Disk`."""
        super().create(path, data, mode)
        self._note("create", path, data)

    def append(self, path: Path, data: bytes) -> None:
        """See `Disk`."""
        super().append(path, data)
        self._note("append", path, data)

    def sync(self, path: Path) -> None:
        """See `Disk`."""
        self._note("sync", path)

    def sync_folder(self, folder: Path) -> None:
        """See `Disk`."""
        self._note("sync_folder", folder)

    def rename(self, old: Path, new: Path) -> None:
        """See `Disk`."""
        super().rename(old, new)
        self._note("rename", old, new)

    def symlink(self, path: Path, leads_to: str) -> None:
        """See `Disk`."""
        super().symlink(path, leads_to)
        self._note("symlink", path, leads_to)

    def unlink(self, path: Path) -> None:
        """See `Disk`."""
        super().unlink(path)
        self._note("unlink", path)

    def rmdir(self, folder: Path) -> None:
        """See `Disk`."""
        super().rmdir(folder)
        self._note("rmdir", folder)


@dataclass
class _File:
    data: bytes
    synced: bytes


@dataclass
class _Tree:
    """Path -> folder (None), link (str) or file."""

    nodes: dict[str, _File | str | None] = field(default_factory=dict)

    def has_parent(self, path: str) -> bool:
        parent = path.rpartition("/")[0]
        return not parent or (parent in self.nodes and self.nodes[parent] is None)

    def children(self, path: str) -> list[str]:
        return [one for one in self.nodes if one.startswith(f"{path}/")]


def read_tree(folder: Path) -> dict[str, bytes | str | None]:
    """A folder as it lies: path -> bytes, where a link leads, or None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)  # noqa: PTH115 - as text
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def rebuilt(
    before: dict[str, bytes | str | None], operations: list[tuple[str, tuple[Any, ...]]],
    way: str, chance: random.Random,
) -> dict[str, bytes | str | None]:  # fmt: skip
    """What a power cut after some operations leaves.

    Args:
        before: The folder before the first of them, all of it synced.
        operations: Those that were done.
        way: One of `WAYS`.
        chance: For what is lost by chance.
    """
    files = {path: _File(one, one) for path, one in before.items() if isinstance(one, bytes)}
    tree = _Tree({path: files.get(path, one) for path, one in before.items()})  # type: ignore[arg-type]
    lasting = _lasting(operations)
    names: dict[str, _File] = dict(files)  # as the running system sees them, for bytes
    for number, (name, arguments) in enumerate(operations):
        _bytes(names, name, arguments)
        if name not in _NAMES:
            continue
        kept = lasting[number] or way in ("bytes lost", "nothing lost")
        if kept or (way == "some lost" and chance.random() < 0.5):
            _apply(tree, names, name, arguments)
    lost = {"all lost": 0.0, "bytes lost": 0.0, "nothing lost": 1.0}

    def content(file: _File) -> bytes:
        share = lost.get(way, chance.random())
        if file.data == file.synced or share == 1.0:
            return file.data
        if not share:
            return file.synced
        cut = max(len(file.synced), int(len(file.data) * share))
        return file.data[:cut]

    return {
        path: content(one) if isinstance(one, _File) else one for path, one in tree.nodes.items()
    }


def _lasting(operations: list[tuple[str, tuple[Any, ...]]]) -> list[bool]:
    """Which operations on names were made to last by a later sync of their folder."""
    synced: set[str] = set()
    found = []
    for name, arguments in reversed(operations):
        if name == "sync_folder":
            synced.add("" if arguments[0] == "." else arguments[0])
        target = arguments[1] if name == "rename" else arguments[0]
        found.append(target.rpartition("/")[0] in synced)
    return found[::-1]


def _bytes(names: dict[str, _File], name: str, arguments: tuple[Any, ...]) -> None:
    path = arguments[0]
    if name == "create":
        if path in names:
            names[path].data, names[path].synced = arguments[1], b""
        else:
            names[path] = _File(arguments[1], b"")
    elif name == "append":
        names[path].data += arguments[1]
    elif name == "sync":
        names[path].synced = names[path].data
    elif name == "unlink":
        names.pop(path, None)
    elif name == "rename":
        old, new = arguments
        for one in [one for one in names if one == old or one.startswith(f"{old}/")]:
            names[new + one.removeprefix(old)] = names.pop(one)


def _apply(tree: _Tree, names: dict[str, _File], name: str, arguments: tuple[Any, ...]) -> None:
    """Do an operation on names, where what it needs is there."""
    path = arguments[0]
    if name == "rename":
        old, new = arguments
        if not tree.has_parent(new):
            return
        if old not in tree.nodes:
            if new in names:  # its old name was lost; the new one leads to the same file
                tree.nodes[new] = names[new]
            return
        for one in [new, *tree.children(new)]:
            tree.nodes.pop(one, None)
        for one in [old, *tree.children(old)]:
            tree.nodes[new + one.removeprefix(old)] = tree.nodes.pop(one)
    elif name in ("unlink", "rmdir"):
        if not tree.children(path):
            tree.nodes.pop(path, None)
    elif tree.has_parent(path):
        if name == "create":
            tree.nodes[path] = names[path]
        else:
            tree.nodes[path] = None if name == "mkdir" else arguments[1]


def write_tree(tree: dict[str, bytes | str | None], folder: Path) -> Path:
    """Make a folder as described, in the place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, one in sorted(tree.items()):
        place = folder / path
        if one is None:
            place.mkdir(exist_ok=True)
        elif isinstance(one, str):
            place.symlink_to(one)
        else:
            place.write_bytes(one)
    return folder
