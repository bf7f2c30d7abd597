"""Replay a sealed test on an engine, and say what holds.

Everything is asked of the engine's behaviour: pictures go in as they were taken, and what comes out
is held to what the test expects. Whether engine and test belong together is the bundle's business.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError, EngineworksError
from engineworks.manifest import Artifact
from engineworks.runtime.pictures import read_image
from engineworks.runtime.session import Session, Tensors, open_engine
from engineworks.sealed import answers, contents, running, statistics
from engineworks.sealed.answers import Fields
from engineworks.sealed.contents import Case, SealedContents

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One thing that a test expects, and what was seen."""

    name: str
    """What is held: `detections rms`, `answers mean`, `labels`, `opens` ..."""
    origin: str
    """Whose answers are expected: source, engine; empty: neither's."""
    part: str
    """Of which pictures: exact, resized; empty: of all."""
    holds: bool
    deviation: float | None
    """What was seen, at the place that comes closest to its tolerance; None: no number."""
    tolerance: float | None
    """What it may be there."""
    where: str = ""
    """The channel it was seen in, or words."""

    @property
    def used(self) -> float:
        """Share of its tolerance that is used; above 1: it does not hold."""
        if self.deviation is None or not self.tolerance:
            return 0.0 if self.holds else float("inf")
        return self.deviation / self.tolerance


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a replay has shown."""

    holds: bool
    reason: str
    """What does not hold, in words; empty where all does."""
    engine: str
    """sha256 of the engine that ran."""
    test: str
    """sha256 of the test."""
    expectations: tuple[Expectation, ...]
    pictures: int
    photos: int
    notes: tuple[str, ...]
    """What this test says less of, a sentence each."""
    elapsed_s: float

    @property
    def closest(self) -> Expectation | None:
        """The expectation with the largest share of its tolerance used."""
        return max(self.expectations, key=lambda expectation: expectation.used, default=None)


def replay(
    engine: Path | str | Artifact,
    test: Path | str | Artifact | SealedContents,
    *,
    threads: int = 0,
    batch: int = 1,
) -> Replay:
    """Run an engine on a sealed test's pictures and hold its answers to what is expected.

    Whether the test is this engine's own is not asked: that is what digests and signatures of a
    bundle say (`engineworks.sealed.prove`).

    Args:
        engine: Its folder, a `file://` URI, or the artifact.
        test: A sealed test's folder, the artifact, or what `contents.load` gave.
        threads: CPU threads for inference; 0: all that this process may use.
        batch: Pictures in a call, where the engine's batch is open.

    Returns:
        What holds. An engine that does not open, or fails while it runs, holds nothing.

    Raises:
        ArtifactError: The test is none, or its bytes were altered.
    """
    begun = time.perf_counter()
    loaded = test if isinstance(test, SealedContents) else contents.load(test)
    place, sha256 = (engine.uri, engine.sha256) if isinstance(engine, Artifact) else (engine, "")
    identity = sha256
    try:
        with open_engine(place, threads=threads, sha256=sha256) as session:
            identity = session.manifest.sha256
            seen = tuple(_expectations(session, loaded, batch))
    except EngineworksError as error:
        seen = (_broken("opens and runs", error.message),)
    except (ValueError, IndexError, TypeError) as error:
        raise ArtifactError(
            f"{loaded.folder} is no test that can be replayed ({type(error).__name__}: {error})",
            hint="do not use it: fetch it again, or seal the engine anew",
        ) from error
    missed = [expectation for expectation in seen if not expectation.holds]
    return Replay(
        holds=not missed,
        reason="; ".join(_in_words(expectation) for expectation in missed),
        engine=identity,
        test=loaded.sha256,
        expectations=seen,
        pictures=len(loaded.sealed.cases),
        photos=loaded.sealed.photos,
        notes=loaded.sealed.notes,
        elapsed_s=time.perf_counter() - begun,
    )


def _in_words(expectation: Expectation) -> str:
    if expectation.deviation is None or expectation.tolerance is None:
        return f"{expectation.name}: {expectation.where}"
    part = f" on {expectation.part} pictures" if expectation.part else ""
    text = f"{expectation.name}{part} is off by "
    return f"{text}{expectation.deviation:.3g}, allowed {expectation.tolerance:.3g}" + (
        f" ({expectation.where})" if expectation.where else ""
    )


def _broken(name: str, reason: str) -> Expectation:
    return Expectation(
        name=name, origin="", part="", holds=False, deviation=None, tolerance=None, where=reason
    )


def _expectations(session: Session, loaded: SealedContents, batch: int) -> Iterator[Expectation]:
    sealed, manifest = loaded.sealed, session.manifest
    task = manifest.task
    labels = task.labels if task is not None and isinstance(task.labels, tuple) else ()
    same = labels == sealed.labels
    yield Expectation(
        name="labels", origin="", part="", holds=same, deviation=None, tolerance=None,
        where="" if same else "the names of classes, or their order, are others",
    )  # fmt: skip
    seen = _run(session, loaded, batch)
    for number, test in enumerate(sealed.tensors):
        if number in seen.strange:
            yield _broken(f"output {test.output}", f"its shape is {seen.strange[number]}")
        else:
            yield from _tensor(loaded, number, np.stack(seen.values[number]))
    if sealed.answers:
        yield from _answers(loaded, seen.found)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is kept of a replay: outputs of all pictures may be more than a device holds."""

    values: dict[int, list[Array]]
    """Number of a tensor test -> (positions, channels) of each of its cases."""
    strange: dict[int, str]
    """Number of a tensor test -> why its output cannot be held."""
    found: list[Fields | None]


def _run(session: Session, loaded: SealedContents, batch: int) -> _Seen:
    """Run all cases, some at a time."""
    sealed = loaded.sealed
    way = running.way_of(session.manifest)
    seen = _Seen(values={n: [] for n in range(len(sealed.tensors))}, strange={}, found=[])
    for first in range(0, len(sealed.cases), batch):
        chunk = sealed.cases[first : first + batch]
        rows, placements = way.rows([read_image(loaded.folder / case.file) for case in chunk])
        outputs = running.infer(session, rows, batch)
        for case, row, where in zip(chunk, outputs, placements, strict=True):
            _keep(seen, loaded, case, row)
            seen.found.append(way.found(row, where) if sealed.answers else None)
    return seen


def _keep(seen: _Seen, loaded: SealedContents, case: Case, row: Tensors) -> None:
    """Keep what the tensor tests ask of one case."""
    for number, test in enumerate(loaded.sealed.tensors):
        if test.part != case.part:
            continue
        array = row.get(test.output)
        if array is None or array.shape != test.shape:
            mismatch = (
                "missing" if array is None else f"{list(array.shape)}, not {list(test.shape)}"
            )
            seen.strange[number] = mismatch
            continue
        places = loaded.of(number, "positions")[len(seen.values[number])]
        seen.values[number].append(statistics.columns(array, test.axis)[places])


def _tensor(loaded: SealedContents, number: int, actual: Array) -> Iterator[Expectation]:
    test = loaded.sealed.tensors[number]
    deviations = statistics.deviations(
        loaded.of(number, "values"), actual, loaded.of(number, "scale")
    )
    for name, values in deviations.items():
        limits = loaded.of(number, f"limit/{name}")
        channel = int(np.argmax(values / limits))
        value, limit = float(values[channel]), float(limits[channel])
        yield Expectation(
            name=f"{test.output} {name}",
            origin=test.origin,
            part=test.part,
            holds=value <= limit,
            deviation=value if np.isfinite(value) else None,
            tolerance=limit,
            where=f"channel {channel}" if len(values) > 1 else "",
        )


def _answers(loaded: SealedContents, fields: list[Fields | None]) -> Iterator[Expectation]:
    for test in loaded.sealed.answers:
        apart = []
        for case in loaded.sealed.numbers(test.part):
            got = fields[case]
            wanted = loaded.answer(test.origin, case)
            apart.append(1.0 if got is None else answers.distance(wanted, got))
        for name, value, limit in (
            ("mean", float(np.mean(apart)), test.mean),
            ("worst", float(np.max(apart)), test.worst),
        ):
            yield Expectation(
                name=f"answers {name}",
                origin=test.origin,
                part=test.part,
                holds=value <= limit,
                deviation=value,
                tolerance=limit,
            )
