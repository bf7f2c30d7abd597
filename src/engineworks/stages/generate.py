"""Stage `generate`: calibration images from a function of the user's.

Afterwards they are files like any others: what calibrates is what can be looked at.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import usercode, userfiles
from engineworks.codec import place
from engineworks.errors import DataError, EngineworksError
from engineworks.facts.int8 import Generated
from engineworks.facts.model import PinnedCode
from engineworks.facts.prepared import Shared
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Take images from a function of the user's."""

    shared: Shared
    function: str
    """`module:name`."""
    limit: int
    code_sha256: str
    """What the function reads beside its code is not known: other code is other images."""
    code: tuple[PinnedCode, ...] = place(default=())
    folder: str = place()


WHAT = "calibration.images"


def generate(request: GenerateRequest) -> Generated:
    """Stage `generate`: at most `limit` images, one in memory at a time.

    Raises:
        DataError: The function raises, yields something else than images, or nothing.
    """
    import cv2

    started = time.perf_counter()
    store = LocalStore(Path(request.shared.store))
    with tempfile.TemporaryDirectory() as work:
        files: dict[str, Path] = {}
        for number, value in enumerate(islice(_images(request), request.limit)):
            name = f"{number:05}.png"
            files[name] = Path(work, name)
            cv2.imwrite(str(files[name]), _checked(value, number, request.function))
        if not files:
            raise DataError(
                f"{WHAT}: {request.function!r} yielded no image",
                hint="yield uint8 arrays of (height, width, 3), blue first, as cv2.imread gives",
            )
        artifact = store.put(
            files,
            kind="samples",
            name=request.shared.name,
            entry=next(iter(files)),
            details={"function": request.function},
            provenance=provenance("generate", request.shared, (), "numpy"),
        )
    return Generated(artifact=artifact, images=len(files), elapsed_s=time.perf_counter() - started)


def _images(request: GenerateRequest) -> Iterator[Any]:
    """What the function yields; whatever it raises is told as the user's."""
    usercode.hold_to(request.code, Path(request.folder))
    folder = Path(request.folder)
    try:
        with userfiles.noted(folder):
            images = usercode.load(request.function, folder, WHAT)()
            if not isinstance(images, Iterable):
                raise TypeError(f"it returns {type(images).__name__}, nothing to go through")
            yield from images
    except EngineworksError:
        raise  # of its import, which says what is wrong
    except Exception as error:
        raise DataError(
            f"{WHAT}: {request.function!r} raised {type(error).__name__}: {error}",
            hint="it takes no argument and yields images; the stage's log.txt has the line",
        ) from error


def _checked(value: Any, number: int, function: str) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        what = f"{array.dtype} {array.shape}" if array.dtype != object else type(value).__name__
        raise DataError(
            f"{WHAT}: image {number} that {function!r} yields is {what}, not uint8 (height, "
            "width, 3)",
            hint="yield images as cv2.imread gives them; the recipe's preprocess is applied later",
        )
    return array


STAGE = Stage("generate", generate, GenerateRequest, Generated, ("opencv-python-headless",))
