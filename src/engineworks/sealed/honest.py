"""Replays of an engine that change nothing that matters: what a tolerance must allow.

Other threads, another batch, another level of graph optimisation, and noise below what one kernel
or one resizer differs from the next. They are measured when an engine is sealed, on the machine
that seals; noise stands for the machines that are not there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import manifest as manifests
from engineworks import precisions
from engineworks.manifest import Manifest
from engineworks.runtime.session import Tensors, open_engine
from engineworks.sealed.running import Way, infer

Array = np.ndarray[Any, Any]

#: Noise on the input, relative to its largest value: what summing in another order amounts to. It
#: moves an integer engine as far as a rebuild at another level of optimisation does.
ROUNDING = 2.0**-20

#: Share of pixels that another resizer rounds the other way: OpenCV's integer and exact linear
#: interpolation differ in an eighth of them, all in one direction.
RESIZED = 0.125

#: Tolerances of what is resampled are so many times as wide: resizers differ along edges, and not
#: by chance as the noise does that stands for them.
RESIZED_ROOM = 3.0

#: Share of pixels where nothing is resampled, for an engine that takes pixels as they are: one that
#: is rounded the other way somewhere inside.
TIPPED = 1e-4

#: Directions of the noise in levels, a replay each.
DRAWS = ((-1,), (1,), (-1, 1))

#: Rows in a call of the replay in batches.
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class HonestReplay:
    """Outputs of every case, and what was changed."""

    words: str
    outputs: list[Tensors]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The engine, the way into it, and the rows of its cases."""

    folder: Path
    way: Way
    rows: list[Array]
    resized: list[bool]
    """Whether a row's picture was resampled."""


def first(asked: Asked) -> HonestReplay:
    """The engine as it answers with one thread, a picture at a time."""
    with open_engine(asked.folder, threads=1) as session:
        return HonestReplay(words="1 thread, batch 1", outputs=infer(session, asked.rows))


def others(asked: Asked) -> Iterator[HonestReplay]:
    """Further replays of the same engine."""
    manifest = asked.way.manifest
    with open_engine(asked.folder, threads=2) as session:
        yield HonestReplay(words="2 threads", outputs=infer(session, asked.rows))
        if manifest.dynamic_batch:
            _, high = manifest.batches(BATCH)
            yield HonestReplay(words=f"batches of {high}", outputs=infer(session, asked.rows, high))
        draws = np.random.default_rng(0)
        for signs in DRAWS:
            noisy = [
                _noisy(row, asked.way, draws, signs, resized=resized)
                for row, resized in zip(asked.rows, asked.resized, strict=True)
            ]
            yield HonestReplay(words="noise of rounding", outputs=infer(session, noisy))
    yield from _optimised(asked)


def _optimised(asked: Asked) -> Iterator[HonestReplay]:
    """The same graph, optimised once more by the runtime that opens it."""
    manifest = asked.way.manifest
    if not manifest.details.get("optimized"):
        return
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "engine")
        shutil.copytree(asked.folder, folder)
        details = {key: value for key, value in manifest.details.items() if key != "optimized"}
        text = manifests.dump(replace(manifest, details=details))
        (folder / manifests.MANIFEST_NAME).write_text(text, encoding="utf-8")
        with open_engine(folder, threads=2) as session:
            yield HonestReplay(
                words="graph optimised once more", outputs=infer(session, asked.rows)
            )


def _noisy(
    row: Array, way: Way, draws: np.random.Generator, signs: tuple[int, ...], *, resized: bool
) -> Array:
    """A row as another machine might have it."""
    spec = way.prepare.spec
    share = RESIZED if resized else TIPPED if row.dtype == np.uint8 else 0.0
    if not share:
        reach = ROUNDING * max(float(np.abs(row).max()), 1e-6)
        return np.asarray(row + draws.uniform(-reach, reach, row.shape), row.dtype)
    step = (draws.random(row.shape) < share) * draws.choice(signs, row.shape)
    if row.dtype == np.uint8:
        return np.asarray(np.clip(row.astype(np.int16) + step, 0, 255), np.uint8)
    level = np.array([spec.scale / std for std in spec.std], row.dtype)
    return np.asarray(row + step * level[:, None, None], row.dtype)


def coarseness(manifest: Manifest) -> float:
    """How many times coarser than fp32's rounding the floors of tolerances are.

    By the agreement that the engine's precision is held to: 30 dB are 10 times, 20 dB 32 times.
    """
    if manifest.precision not in precisions.PRECISIONS:
        return 1.0
    row = precisions.get(manifest.precision)
    if row.exact:
        return 1.0
    wanted_db = row.judged.min_snr_db or row.alone.min_snr_db or 20.0
    return float(10 ** ((50.0 - wanted_db) / 20))
