"""`run`: an engine's raw outputs, whatever its task, for images or for arrays of one's own."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from engineworks.cli._engines import add_engine, open_session
from engineworks.cli._images import (
    SUFFIXES,
    counted,
    enough_memory,
    files_of,
    outputs_for,
    tell_failure,
)
from engineworks.cli._numbers import add_max_pixels
from engineworks.cli._outputs import check
from engineworks.cli._recording import add_recording, recorder
from engineworks.cli._words import add
from engineworks.errors import ArtifactError, DataError, FeedError, InferenceError, StoreError
from engineworks.files import open_file
from engineworks.runtime.metrics import name_of
from engineworks.runtime.outputs import temporary_name
from engineworks.runtime.pictures import read_picture
from engineworks.runtime.predictor import image_input
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.session import Session

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers

Array = np.ndarray[Any, Any]
ARRAYS = (".npy", ".npz")

#: Values that are looked at together.
_BLOCK = 2**20

#: Bytes of the arrays in one file: 100 inputs of 640x640. A compressed one of 3 MB may hold 3 GB.
MOST_BYTES = 2**29


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommand."""
    command = add(
        subparsers, "run", _run, "an engine's raw outputs, of any task", json_help="JSON Lines"
    )
    add_engine(command)
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="image or folder of images, prepared as the engine's manifest says; .npy with the one "
        "input, or .npz with an array for each input, given as they are",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write NAME.npz for each file there; of one file also the .npz itself",
    )
    add_max_pixels(command)
    add_recording(command)
    command.set_defaults(decoder_from=None)


def _run(options: argparse.Namespace) -> int:
    """0: all files were run; 1: some were not, each is named."""
    files, failed = files_of(options, options.files, (*SUFFIXES, *ARRAYS))
    outputs = outputs_for(options.output, files, ".npz") if options.output is not None else []
    check(options, outputs, files)
    with (
        recorder(options) as recorded,
        open_session(options) as session,
    ):
        record = recorded.of(name_of(session.manifest))
        for number, path in enumerate(files):
            try:
                with enough_memory(path):
                    feeds = _feeds(session, path, options.max_pixels)
                    with counted(record, number):
                        answers = session.infer(feeds)
                    _tell(options, path, answers)
                    if outputs:
                        save(outputs[number], answers)
            except (DataError, FeedError, InferenceError) as error:
                if isinstance(error, InferenceError) and not error.goes_on:
                    raise
                failed += 1
                tell_failure(options, path, error)
                continue
            record.inference("images", {}, {}, frame=number)
    return 1 if failed else 0


def _feeds(session: Session, path: Path, max_pixels: int) -> dict[str, Array]:
    """What the engine is given for a file: input name -> array, with the batch dimension."""
    names = [spec.name for spec in session.inputs]
    if path.suffix.lower() not in ARRAYS:
        return {names[0]: _image(session, path, max_pixels)}
    try:
        with open_file(path) as file:
            _refuse_large(path, file)
            loaded = np.load(file, allow_pickle=False)
            single = isinstance(loaded, np.ndarray)
            arrays = {"": loaded} if single else {name: loaded[name] for name in loaded}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as arrays ({getattr(error, 'strerror', None) or error})",
            hint="write it by numpy.save (.npy) or numpy.savez (.npz), without objects",
        ) from error
    if single and len(names) != 1:
        raise DataError(
            f"{path} holds one array, the engine has the inputs {', '.join(names)}",
            hint="give an .npz with an array for each",
        )
    if single:
        arrays = {names[0]: arrays[""]}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _refuse_large(path: Path, file: BinaryIO) -> None:
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes <= MOST_BYTES and zipfile.is_zipfile(file):
        size_bytes = sum(part.file_size for part in zipfile.ZipFile(file).infolist())
    file.seek(0)
    if size_bytes > MOST_BYTES:
        raise DataError(
            f"{path} holds {size_bytes:,} bytes of arrays, more than the {MOST_BYTES:,} that are "
            "read",
            hint="give fewer rows in one file",
        )


def _image(session: Session, path: Path, max_pixels: int) -> Array:
    manifest = session.manifest
    size, uint8 = image_input(manifest)
    if manifest.preprocess is None:
        raise ArtifactError(
            f"{manifest.name} does not say how an image becomes its input",
            hint="give arrays: .npy, or .npz with an array for each input",
        )
    prepare = Preprocessor(manifest.preprocess, size, uint8=uint8)
    row, _ = prepare(read_picture(path, max_pixels=max_pixels).image)
    batch = manifest.inputs[0].shape[0]
    rows = batch if isinstance(batch, int) else manifest.batches(1)[0]
    return np.ascontiguousarray(np.repeat(row[None], rows, axis=0))


def _tell(options: argparse.Namespace, path: Path, answers: Mapping[str, Array]) -> None:
    told = [
        {
            "name": name, "dtype": array.dtype.name, "shape": list(array.shape),
            **dict(zip(("min", "max", "not_finite"), extent(array), strict=True)),
        }
        for name, array in answers.items()
    ]  # fmt: skip
    if options.json:
        sys.stdout.write(json.dumps({"file": str(path), "outputs": told}) + "\n")
        return
    sys.stdout.write(f"{path}\n")
    for output in told:
        span = f"{output['min']} .. {output['max']}"
        if output["not_finite"]:
            span += f"  ({output['not_finite']} of {answers[str(output['name'])].size} NaN or inf)"
        sys.stdout.write(f"  {output['name']:<24} {output['dtype']} {output['shape']}  {span}\n")


def extent(array: Array) -> tuple[float | None, float | None, int]:
    """Smallest and largest finite value, None where there is none, and how many are not finite.

    An output may be most of what memory there is: no copy of it is made.
    """
    if array.dtype.kind not in "biuf":
        return None, None, 0
    flat, low, high, finite = array.reshape(-1), None, None, 0
    for first in range(0, flat.size, _BLOCK):
        block = flat[first : first + _BLOCK]
        values = block[np.isfinite(block)].astype(np.float64)
        finite += values.size
        if values.size:
            low = min(float(values.min()), values[0] if low is None else low)
            high = max(float(values.max()), values[0] if high is None else high)
    if low is None or high is None:
        return None, None, flat.size
    return float(f"{low:.6g}"), float(f"{high:.6g}"), flat.size - finite


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz whole or not at all; names may be any that an engine has.

    Raises:
        StoreError: The disk does not take it.
    """
    unfinished = temporary_name(path)
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(
            f"{path} cannot be written ({error.strerror})",
            hint="free space there, or give another folder for -o",
        ) from error
