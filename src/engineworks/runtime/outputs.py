"""No output is ever an input, and every output can be written: both seen before work begins.

Whether two names mean one file is asked of the file system, which knows links, relative paths and
names that differ in case only. Knows no engine and no kind of source or output.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from engineworks.errors import DataError, StoreError

#: Bytes of a file's name on nearly every file system.
LONGEST_NAME = 255

#: Device and number of a file: equal for all of its names.
Identity = tuple[int, int]


def temporary_name(path: Path) -> Path:
    """Where an output is written before it has its name; as long as a file system takes it."""
    name = f".{path.stem}.writing{path.suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
        name = f".{digest}.writing{path.suffix[-16:]}"
    return path.with_name(name)


def fitting_name(stem: str, ending: str) -> str:
    """A file's name; one that is too long for a file system is cut, and told apart by a digest."""
    name = stem + ending
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    mark = "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8] + ending
    room = LONGEST_NAME - len(os.fsencode(mark))
    return os.fsencode(stem)[:room].decode(errors="ignore") + mark


def identity(path: Path | int) -> Identity | None:
    """Of a file, or of an open descriptor; None for what is no ordinary file or not there."""
    try:
        status = path.stat() if isinstance(path, Path) else os.fstat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_ino:
        return None
    return status.st_dev, status.st_ino


def identities(paths: Iterable[Path | int]) -> dict[Identity, str]:
    """Every file that is there, with a name of it for messages."""
    names: dict[Identity, str] = {}
    for path in paths:
        file_id = identity(path)
        if file_id is not None:
            names.setdefault(file_id, "standard input" if path == 0 else str(path))
    return names


def refuse_clashes(outputs: Iterable[Path], inputs: Mapping[Identity, str]) -> None:
    """Refuse outputs that are inputs, and two outputs of one name.

    Args:
        outputs: Every file that will be made or replaced.
        inputs: What `identities` found.

    Raises:
        DataError: Names both.
    """
    files: dict[Identity, Path] = {}
    names: dict[str, Path] = {}
    for path in outputs:
        for written in (path, temporary_name(path)):
            # A disk may take names for one that differ in case or in how an accent is written.
            name = unicodedata.normalize("NFC", os.path.realpath(written)).casefold()
            if name in names:
                raise _doubled(names[name], path)
            names[name] = path
            there = identity(written)
            if there is None:
                continue
            if there in inputs:
                raise DataError(
                    f"the output {written} is an input ({inputs[there]}): it would be destroyed",
                    hint="give the output another name",
                )
            if there in files:
                raise _doubled(files[there], path)
            files[there] = path


def _doubled(first: Path, second: Path) -> DataError:
    return DataError(
        f"two outputs have one name: {first} and {second}", hint="give each a name of its own"
    )


def refuse_unwritable(path: Path, *, goes_on: bool = False) -> None:
    """See whether an output can be written, leaving everything as it is.

    Args:
        path: The output.
        goes_on: The file itself is written on, where it is there; else another takes its place.

    Raises:
        DataError: Its folder is missing, or the name belongs to a folder or a device.
        StoreError: It may not be written there, or the name cannot be one.
    """
    try:
        if not path.parent.is_dir():
            raise DataError(f"there is no folder {path.parent}", hint="create it first")
        if path.is_dir():
            raise DataError(f"{path} is a folder", hint="give the output a name inside it")
        if path.exists() and not path.is_file():
            raise DataError(
                f"{path} is no ordinary file", hint="give another name, or - where it is known"
            )
        if path.exists():
            path.open("ab").close()
        if not (goes_on and path.exists()):
            _try(temporary_name(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"{path} cannot be written ({reason})", hint="give the output another place or name"
        ) from error


def _try(path: Path) -> None:
    """Open a file for writing; one that was not there is gone again afterwards."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        path.open("ab").close()  # left by a killed run
    else:
        path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, and see whether it takes files.

    Raises:
        StoreError: It cannot be made, or it takes none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try(folder / f".writable.{os.getpid()}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"{folder} cannot be written to ({reason})", hint="give another folder for -o"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all.

    Raises:
        StoreError: The disk does not take it.
    """
    unfinished = temporary_name(path)
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise StoreError(
            f"{path} cannot be written ({error.strerror})", hint="make room on the disk"
        ) from error
