"""Everything that the agent does to its disk, in steps that outlive a power cut.

The first methods are single operations of the file system, and all that there are: whoever records
them can rebuild what a power cut between any two of them leaves. The others are made of those. What
appears under its name is whole, and its folder was told so. Knows no engines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from engineworks.delivery.refusal import NoRoom
from engineworks.errors import DeliveryError


class Disk:
    """The file system."""

    # ---- single operations

    def mkdir(self, folder: Path, mode: int = 0o777) -> None:
        """Make one folder."""
        folder.mkdir(mode=mode)

    def create(self, path: Path, data: bytes, mode: int = 0o666) -> None:
        """Write a new file, or in the place of one of that name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(path, flags, mode), "wb") as stream:
            stream.write(data)

    def append(self, path: Path, data: bytes) -> None:
        """Add to a file's end."""
        with path.open("ab") as stream:
            stream.write(data)

    def sync(self, path: Path) -> None:
        """Make a file's bytes outlive a power cut."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder outlive a power cut."""
        self.sync(folder)

    def rename(self, old: Path, new: Path) -> None:
        """Give another name, in the place of what has it."""
        old.replace(new)

    def symlink(self, path: Path, leads_to: str) -> None:
        """Make a link."""
        path.symlink_to(leads_to)

    def unlink(self, path: Path) -> None:
        """Remove a file or a link."""
        path.unlink()

    def rmdir(self, folder: Path) -> None:
        """Remove an empty folder."""
        folder.rmdir()

    def free_bytes(self, folder: Path) -> int:
        """Room on the disk under a folder."""
        return shutil.disk_usage(folder).free

    # ---- made of those

    def folder(self, folder: Path) -> Path:
        """A folder that is there, with those above it."""
        missing = []
        above = folder
        while not above.is_dir():
            missing.append(above)
            above = above.parent
        for absent in reversed(missing):
            self.mkdir(absent)
            self.sync_folder(absent.parent)
        return folder

    def write(self, path: Path, data: bytes, mode: int = 0o666) -> None:
        """Write a file whole or not at all."""
        unfinished = path.with_name(f".{path.name}.new")
        with explained(path):
            self.create(unfinished, data, mode)
            self.sync(unfinished)
            self.rename(unfinished, path)
            self.sync_folder(path.parent)

    def point(self, link: Path, leads_to: str) -> None:
        """Let a link lead elsewhere: it leads to the one or to the other, at every moment."""
        unfinished = link.with_name(f".{link.name}.new")
        with explained(link):
            with contextlib.suppress(FileNotFoundError):
                self.unlink(unfinished)
            self.symlink(unfinished, leads_to)
            self.rename(unfinished, link)
            self.sync_folder(link.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, a link, or a folder with all that is in it."""
        if path.is_symlink() or path.is_file():
            self.unlink(path)
        elif path.is_dir():
            for entry in sorted(path.iterdir()):
                self.remove(entry)
            self.rmdir(path)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what the disk's own errors mean.

    Raises:
        NoRoom: It is full.
        DeliveryError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(
                f"the disk under {path.parent} is full",
                hint="free space there: what serves goes on, and the agent tries again by itself",
            ) from error
        raise DeliveryError(
            f"{path} cannot be written ({error.strerror or error})",
            hint="check the disk and its permissions",
        ) from error
