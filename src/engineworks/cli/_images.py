"""What commands over image files share: which files, words on a bad one, where answers go."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks import folders
from engineworks.errors import DataError, EngineworksError, StoreError
from engineworks.runtime.outputs import fitting_name, make_folder
from engineworks.runtime.pictures import SUFFIXES as SUFFIXES

if TYPE_CHECKING:
    from engineworks.runtime.metrics import Recorder

#: What drawn images are written as; others become JPEGs.
_WRITTEN = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff")


def files_of(
    options: argparse.Namespace, given: Sequence[str], suffixes: Sequence[str] = SUFFIXES
) -> tuple[list[Path], int]:
    """Files as they are, and the images of folders in the order of their names.

    What is left out of a folder for its ending is told on stderr, as is a folder that is of no
    use beside others.

    Returns:
        (files, how many folders are of no use).

    Raises:
        DataError: Nothing but folders without images, or that cannot be read.
    """
    files: list[Path] = []
    useless: dict[Path, DataError] = {}
    for path in map(Path, given):
        if not folders.is_folder(path):
            files.append(path)
            continue
        try:
            files += _images_in(path, suffixes)
        except DataError as error:
            useless[path] = error
    if not files:
        raise next(iter(useless.values()))
    for path, reason in useless.items():
        tell_failure(options, path, reason)
    return files, len(useless)


def _images_in(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    listing = folders.find(folder, suffixes, deep=False)
    others = folders.by_ending(listing.others)
    if not listing.files:
        raise DataError(
            f"{folder} holds no image ({', '.join(suffixes)})"
            + (f"; there are {others}" if others else ""),
            hint="give images or their folder",
        )
    if others:
        sys.stderr.write(f"left out of {folder}, since no image that is read ends so: {others}\n")
    return (folder / name for name in listing.files)


#: Endings of one file: a folder that is to be made is not called so.
_OF_A_FILE = (*SUFFIXES, ".npy", ".npz")


def outputs_for(folder: Path, files: Sequence[Path], suffix: str | None = None) -> list[Path]:
    """Where each file's answer goes: under its own name, numbered when two share one.

    Args:
        folder: Made if it is not there. For one file it may be the answer itself, by its ending.
        files: What is read.
        suffix: Ending of the answers; None: that of an image.

    Raises:
        StoreError: The folder holds images to read, cannot be made or takes no files; or it is
            named like a file, and there are several answers or none that ends so.
    """
    if folder.suffix.lower() in _OF_A_FILE and not folder.is_dir():
        return [_one_output(folder, files, _WRITTEN if suffix is None else (suffix,))]
    if folder.resolve() in {path.parent.resolve() for path in files}:
        raise StoreError(
            f"{folder} holds images to read: they would be overwritten",
            hint="give another folder for -o",
        )
    make_folder(folder)
    outputs: list[Path] = []
    taken: set[str] = set()
    for path in files:
        own = path.suffix if path.suffix.lower() in _WRITTEN else ".jpg"
        ending = own if suffix is None else suffix
        name, count = fitting_name(path.stem, ending), 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            count += 1
            name = fitting_name(path.stem, f"-{count}{ending}")
        taken.add(key)
        outputs.append(folder / name)
    return outputs


def _one_output(path: Path, files: Sequence[Path], written: Sequence[str]) -> Path:
    if len(files) != 1:
        raise StoreError(
            f"-o {path} is the name of one file, and {len(files)} are read",
            hint="give a folder for -o: a name without such an ending, or one that is there",
        )
    if path.suffix.lower() not in written:
        raise StoreError(
            f"-o {path}: no {path.suffix} is written here, but {', '.join(written)}",
            hint="give a file that ends so, or a folder, for -o",
        )
    return path


def tell_failure(options: argparse.Namespace, path: Path, error: EngineworksError) -> None:
    """Name a file that could not be used, on stderr and as a JSON line."""
    sys.stdout.flush()
    named = str(path) in error.message
    message = error.message if named else f"{path}: {error.message}"
    sys.stderr.write(f"{type(error).__name__}: {message}\n")
    if options.json:
        failure = {"type": type(error).__name__, "message": message}
        sys.stdout.write(json.dumps({"image": str(path), "error": failure}) + "\n")


@contextlib.contextmanager
def enough_memory(path: Path) -> Iterator[None]:
    """Let memory that ends while the block works on a file be told as that file's error.

    Raises:
        DataError: In place of a `MemoryError`.
    """
    try:
        yield
    except MemoryError as error:
        raise DataError(
            f"{path}: memory ran out while it was in work ({error})",
            hint="give smaller pictures or fewer rows at once, or end what else uses memory",
        ) from error


@contextlib.contextmanager
def counted(record: Recorder, number: int) -> Iterator[None]:
    """What the engine raises while the block runs is counted in metrics and log, and goes on."""
    try:
        yield
    except Exception as error:
        record.inference("images", {}, {}, "failed", frame=number, error=error)
        raise
