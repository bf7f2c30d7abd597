"""What an engine does with several rows: whether they may be merged, and what each batch takes.

Asked of the engine itself, when it is opened and while it is idle. Figures are kept by engine and
host, so that the next start knows them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import default_rng  # here: `np.random` is imported when first seen, on any thread

from engineworks import hosts
from engineworks.errors import EngineworksError
from engineworks.manifest import Manifest
from engineworks.runtime import Session
from engineworks.runtime.outputs import temporary_name

_log = logging.getLogger(__name__)

Feeds = dict[str, np.ndarray[Any, Any]]

#: Rounds over all batch sizes; the best of each counts, for others use the machine too.
ROUNDS = 5

#: A batch that takes longer than this is not tried: a request might come meanwhile.
LONGEST_S = 0.5


def row(session: Session, seed: int = 0) -> Feeds | None:
    """One made-up row for every input; None where other dimensions than the first are open."""
    noise = default_rng(seed)
    feeds: Feeds = {}
    for spec in session.inputs:
        sizes = spec.shape[1:]
        if not spec.shape or not all(isinstance(size, int) for size in sizes):
            return None
        values = noise.random((1, *(int(size) for size in sizes)), np.float32)
        whole = np.dtype(spec.dtype).kind not in "f"
        feeds[spec.name] = (values * (200 if whole else 1)).astype(spec.dtype)
    return feeds


def repeated(feeds: Feeds, rows: int) -> Feeds:
    """The same row several times."""
    return {name: np.repeat(array, rows, axis=0) for name, array in feeds.items()}


def may_merge(session: Session, most: int) -> bool:
    """Whether rows of several requests may share an inference.

    They may where every input's first dimension is open and two different rows together get what
    each gets alone. An output that is a total, a list of all objects, or batched elsewhere fails.
    Runs the session on one row twice at the least, so that it is warm, if a row can be made up.
    """
    if most < 2 or any(not s.shape or isinstance(s.shape[0], int) for s in session.inputs):
        return False
    first, second = row(session, 1), row(session, 2)
    if first is None or second is None:
        return False
    try:
        alone = [_kept(session.infer(feeds)) for feeds in (first, second)]
        both = _kept(
            session.infer({name: np.concatenate([first[name], second[name]]) for name in first})
        )
    except EngineworksError as error:
        _log.warning("%s: two rows cannot be run together (%s)", session.manifest.name, error)
        return False
    for name, merged in both.items():
        parts = [answer[name] for answer in alone]
        if merged.ndim == 0 or len(merged) != 2 or any(p.shape[:1] != (1,) for p in parts):
            return False
        if any(p.shape[1:] != merged.shape[1:] for p in parts):
            return False
        for part, own in zip(parts, merged, strict=True):
            scale = float(np.abs(part).max(initial=0)) or 1.0
            near = np.isclose(own, part[0], rtol=1e-2, atol=1e-3 * scale, equal_nan=True)
            if near.mean() < 0.99:
                return False
    return True


def _kept(outputs: Any) -> Feeds:
    return {name: np.array(array) for name, array in outputs.items()}


class BatchTrial:
    """Times an engine's batches one call at a time, whenever somebody has a moment.

    Args:
        session: The engine.
        most: The largest batch.
    """

    def __init__(self, session: Session, most: int) -> None:
        self._row = row(session)
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= most]
        self._todo = [size for _ in range(ROUNDS + 1) for size in sizes]
        self._ms: dict[int, float] = {}
        self._warm: set[int] = set()

    def step(self, session: Session) -> dict[int, float] | None:
        """Run one batch on a session of the engine; the figures in ms once all are done."""
        if self._row is None or not self._todo:
            return self._ms
        size = self._todo.pop(0)
        feeds = repeated(self._row, size)
        begun = time.perf_counter()
        session.infer(feeds)
        took_s = time.perf_counter() - begun
        if size not in self._warm:
            self._warm.add(size)
            if took_s > LONGEST_S:
                self._todo = [other for other in self._todo if other < size]
        else:
            self._ms[size] = min(self._ms.get(size, took_s * 1e3), took_s * 1e3)
        return None if self._todo else self._ms


class Kept:
    """The figures of one engine on this host, in a file.

    Args:
        folder: Where; empty: nowhere.
        manifest: The engine's.
        threads: Of its session.
        device: Its GPU.
    """

    def __init__(self, folder: str, manifest: Manifest, threads: int, device: int) -> None:
        here = [manifest.sha256, hosts.cores(), threads, device, *sorted(hosts.cpu_flags())]
        key = hashlib.sha256(json.dumps(here).encode()).hexdigest()[:32]
        self._path = Path(folder) / f"{key}.json" if folder else None

    def read(self) -> dict[int, float] | None:
        """The figures; None where there are none."""
        if self._path is None:
            return None
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            return {int(size): float(ms) for size, ms in saved["batch_ms"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, ms: dict[int, float]) -> None:
        """Keep them; a disk that is full costs the figures alone."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = temporary_name(self._path)
            unfinished.write_text(json.dumps({"batch_ms": ms}, indent=1), encoding="utf-8")
            unfinished.replace(self._path)
        except OSError as error:
            _log.warning("%s: batch figures are not kept (%s)", self._path, error.strerror)
