"""Make the sealed test of an engine: its pictures, what is expected of them, how exactly.

What is expected comes from the source model wherever the engine agrees with it as closely as a
replay must agree; else from the engine itself, and from the source only what is found in the
pictures. Knows no stage; the source model is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import manifest as manifests
from engineworks.errors import ArtifactError
from engineworks.manifest import Manifest
from engineworks.runtime.preprocess import Placement, Preprocessor
from engineworks.runtime.session import Tensors
from engineworks.sealed import answers, contents, honest, pictures, running, statistics
from engineworks.sealed.answers import Fields
from engineworks.sealed.contents import AnswerTest, Case, Draft, Origin, Part, Sealed, TensorTest
from engineworks.sealed.honest import Asked

Array = np.ndarray[Any, Any]

#: Batch (b, channels, height, width) float32 -> outputs in the order of the engine's.
Source = Callable[[Array], Mapping[str, Array]]

#: Layouts whose rows are sorted by score: two that change places are no deviation.
_SORTED = ("end2end", "end2end_pose")

#: Distances of answers below which nothing is told from honest rounding: (mean, worst).
_CLOSE = (0.003, 0.02)

#: The same of an engine that rounds values to 16 bits or fewer.
_COARSE = (0.01, 0.05)

#: A source model whose answers are further from the engine's is not held against it.
_FAR = 0.35

_PARTS: tuple[Part, ...] = ("exact", "resized")


@dataclass(frozen=True, kw_only=True)
class SealedPicture:
    """A picture to ask: uint8 (height, width, 3) BGR."""

    image: Array
    photo: bool


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What is kept of one run through all cases: outputs may have a hundred megabytes."""

    words: str
    values: dict[str, Array]
    """Output -> float32 (cases, positions, channels)."""
    found: list[Fields] | None
    """What was found in each picture; None where nothing here decodes the outputs."""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What of a run is kept, chosen on the engine's own first one."""

    way: running.Way
    cases: tuple[Case, ...]
    placements: list[Placement]
    shapes: dict[str, tuple[int, ...]]
    """Output -> shape of a row; of those whose tensors are held."""
    positions: dict[str, list[Array]]
    """Output -> positions that are kept of every case."""

    def numbers(self, part: Part) -> list[int]:
        return [number for number, case in enumerate(self.cases) if case.part == part]

    def kept(self, description: str, outputs: list[Tensors]) -> _Kept:
        """A run, without what is not kept; outputs of another shape are left out."""
        values = {}
        for output, shape in self.shapes.items():
            if all(row[output].shape == shape for row in outputs):
                axis = statistics.channel_axis(shape)
                values[output] = np.stack([
                    statistics.columns(row[output], axis)[places].astype(np.float32)
                    for row, places in zip(outputs, self.positions[output], strict=True)
                ])  # fmt: skip
        fields = [
            self.way.found(row, where) for row, where in zip(outputs, self.placements, strict=True)
        ]
        known = [answer for answer in fields if answer is not None]
        return _Kept(
            words=description, values=values, found=known if len(known) == len(fields) else None
        )


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What engine and source answered."""

    frame: _Frame
    base: _Kept
    replays: list[_Kept]
    """The first of them is `base`."""
    source: _Kept | None

    @property
    def manifest(self) -> Manifest:
        return self.frame.way.manifest


def seal(
    engine: Path, asked: Sequence[SealedPicture], source: Source | None, work: Path
) -> tuple[Sealed, dict[str, Path]]:
    """Make a test; the files of its artifact lie in `work` then.

    Args:
        engine: Folder of the engine.
        asked: Pictures; every second one is first placed in the input's own size, so that nothing
            is resampled when it is replayed.
        source: The source model, fp32; None: only the engine itself says what is expected.
        work: An empty folder.

    Returns:
        The test, and path inside the artifact -> file.

    Raises:
        ArtifactError: The engine takes no image, or nothing of its answers can be held.
    """
    manifest = manifests.load(engine / manifests.MANIFEST_NAME)
    way = running.way_of(manifest)
    cases, images = _cases(way, asked, work)
    rows, placements = way.rows(images)
    resized = [case.part == "resized" for case in cases]
    run = Asked(folder=engine, way=way, rows=rows, resized=resized)
    first = honest.first(run)
    frame = _frame(way, cases, placements, first.outputs)
    base = frame.kept(first.words, first.outputs)
    replays = [base, *(frame.kept(replay.words, replay.outputs) for replay in honest.others(run))]
    truth = None
    if source is not None:
        truth = frame.kept("source", _source_outputs(source, way, images))
    seen = _Seen(frame=frame, base=base, replays=replays, source=truth)
    draft = Draft()
    tensors_from = _tensors(seen, draft)
    answers_from = _answers(seen, draft)
    if not draft.tensors and not draft.answers:
        raise ArtifactError(
            f"{manifest.name}: nothing of its answers can be held: their order is free, and no "
            "head here decodes them",
            hint="use a layout of this project, or a model whose outputs keep their order",
        )
    task = manifest.task
    sealed = Sealed(
        schema=contents.SCHEMA,
        engine=manifest.sha256,
        variant=f"{manifest.target}/{manifest.precision}",
        task=task.kind if task is not None else "none",
        labels=task.labels if task is not None and isinstance(task.labels, tuple) else (),
        cases=cases,
        tensors=tuple(draft.tensors),
        answers=tuple(draft.answers),
        honest=tuple(dict.fromkeys(replay.words for replay in replays)),
        notes=_notes(cases, tensors_from, answers_from, source is not None),
    )
    return sealed, contents.write(work, sealed, draft.arrays)


def _cases(
    way: running.Way, asked: Sequence[SealedPicture], work: Path
) -> tuple[tuple[Case, ...], list[Array]]:
    """The cases, and their pictures as they are kept."""
    prepare = way.prepare
    place = Preprocessor(prepare.spec, (prepare.height, prepare.width), uint8=True)
    cases, images = [], []
    for number, picture in enumerate(asked):
        part = _PARTS[number % 2]
        if part == "exact":
            image = _unscaled(place(picture.image)[0], prepare.spec.resize, number // 2)
        else:
            image = pictures.kept(picture.image)
        name = f"{number:03}.png"
        pictures.write(work / name, image)
        cases.append(Case(file=name, photo=picture.photo, part=part))
        images.append(image)
    return tuple(cases), images


def _unscaled(placed: Array, resize: str, turn: int) -> Array:
    """A picture that goes in without being resampled, every second time not of the input's shape.

    A letterbox then gets a border, and a crop something to cut: where they go is tested to the
    pixel, too.

    Args:
        placed: Of the input's size.
        resize: The word of the preprocessing.
        turn: Number of this picture among such.
    """
    if turn % 2 == 0 or resize not in ("letterbox", "center_crop"):
        return placed
    axis = turn // 2 % 2
    quarter = placed.shape[axis] // 4
    if resize == "letterbox":
        return placed.take(range(placed.shape[axis] - quarter), axis=axis)
    widths = [(0, 0)] * 3
    widths[axis] = (quarter, quarter)
    return np.pad(placed, widths, mode="edge")


def _source_outputs(source: Source, way: running.Way, images: list[Array]) -> list[Tensors]:
    """The source model's outputs under the engine's names, without the batch dimension."""
    names = [spec.name for spec in way.manifest.outputs]
    prepare = Preprocessor(way.prepare.spec, (way.prepare.height, way.prepare.width))
    rows = []
    for image in images:
        row, _ = prepare(image)
        rows.append({
            name: np.array(array[0])
            for name, array in zip(names, source(row[None]).values(), strict=True)
        })  # fmt: skip
    return rows


def _frame(
    way: running.Way,
    cases: tuple[Case, ...],
    placements: list[Placement],
    outputs: list[Tensors],
) -> _Frame:
    """What is kept of every run.

    Raises:
        ArtifactError: An output holds what is no number.
    """
    manifest = way.manifest
    shapes: dict[str, tuple[int, ...]] = {}
    positions: dict[str, list[Array]] = {}
    free = manifest.task is not None and manifest.task.layout in _SORTED
    for spec in () if free else manifest.outputs:
        rows = [row[spec.name] for row in outputs]
        if rows[0].dtype.kind != "f":
            continue  # numbers of classes: what they mean is held, not how far apart they are
        if not all(np.isfinite(row).all() for row in rows):
            raise ArtifactError(
                f"{manifest.name}: output {spec.name!r} holds what is no number",
                hint="an engine that answers so cannot be sealed: look at the pictures, or build "
                "it in a higher precision",
            )
        axis = statistics.channel_axis(rows[0].shape)
        shapes[spec.name] = rows[0].shape
        positions[spec.name] = [statistics.chosen(statistics.columns(row, axis)) for row in rows]
    return _Frame(
        way=way, cases=cases, placements=placements, shapes=shapes, positions=positions
    )  # fmt: skip


def _tensors(seen: _Seen, draft: Draft) -> dict[str, Origin]:
    """Expectations of every output; output -> whose answers alone suffice, or the engine's own."""
    floor = honest.coarseness(seen.manifest)
    nearest: dict[str, Origin] = {}
    for output in seen.frame.shapes:
        nearest[output] = _nearest(seen, output, floor)
        origins: list[Origin] = [nearest[output]]
        if origins == ["engine"] and seen.source is not None and output in seen.source.values:
            origins.append("source")
        for part in _PARTS:
            for origin in origins if seen.frame.numbers(part) else ():
                _tensor(seen, draft, output, part, origin, floor)
    return nearest


def _nearest(seen: _Seen, output: str, floor: float) -> Origin:
    """The source, where the engine is as close to it as a replay must be."""
    if seen.source is None or output not in seen.source.values:
        return "engine"
    want, got = seen.source.values[output], seen.base.values[output]
    apart = statistics.deviations(want, got, statistics.scales(want))
    close = all((apart[name] <= least * floor).all() for name, least in statistics.FLOORS.items())
    return "source" if close else "engine"


def _tensor(
    seen: _Seen, draft: Draft, output: str, part: Part, origin: Origin, floor: float
) -> None:
    expected = seen.source if origin == "source" and seen.source is not None else seen.base
    shape, numbers = seen.frame.shapes[output], seen.frame.numbers(part)
    values = expected.values[output][numbers]
    scale = statistics.scales(values)
    limits = statistics.tolerances(
        [
            statistics.deviations(values, replay.values[output][numbers], scale)
            for replay in seen.replays
        ],
        floor,
    )
    room = honest.RESIZED_ROOM if part == "resized" else 1.0
    draft.add_tensor(
        TensorTest(
            output=output, part=part, origin=origin, axis=statistics.channel_axis(shape),
            shape=shape,
        ),
        values=values,
        positions=np.stack([seen.frame.positions[output][number] for number in numbers]),
        scale=scale,
        **{f"limit/{name}": limit * room for name, limit in limits.items()},
    )  # fmt: skip


def _answers(seen: _Seen, draft: Draft) -> dict[Origin, float]:
    """Expectations of what is found; whose answers are held -> the engine's distance from them."""
    base = seen.base.found
    if base is None:
        return {}
    replays = [replay.found for replay in seen.replays if replay.found is not None]
    expected: dict[Origin, list[Fields]] = {"engine": base}
    if seen.source is not None and seen.source.found is not None:
        expected["source"] = seen.source.found
    held: dict[Origin, float] = {}
    for origin, wanted in expected.items():
        apart = [_distance(wanted, base, seen.frame.numbers(part))[0] for part in _PARTS]
        if max(apart) > _FAR:
            continue
        held[origin] = float(np.mean(apart))
        for part in _PARTS:
            numbers = seen.frame.numbers(part)
            if not numbers:
                continue
            room = honest.RESIZED_ROOM if part == "resized" else 1.0
            mean, worst = (
                limit * room for limit in _limits(seen.manifest, wanted, replays, numbers)
            )
            draft.add_answers(
                AnswerTest(
                    part=part, origin=origin, mean=mean, worst=worst,
                    sealed=_distance(wanted, base, numbers)[0],
                ),
                {number: wanted[number] for number in numbers},
            )  # fmt: skip
    return held


def _limits(
    manifest: Manifest, wanted: list[Fields], replays: list[list[Fields]], numbers: list[int]
) -> tuple[float, float]:
    """Largest mean and single distance that an honest replay may have."""
    floors = np.array(_CLOSE if honest.coarseness(manifest) == 1 else _COARSE)
    apart = np.array([_distance(wanted, fields, numbers) for fields in replays])
    limits = [statistics.tolerance(apart[:, [place]], 0.0)[0] + floors[place] for place in range(2)]
    return float(limits[0]), float(limits[1])


def _distance(wanted: list[Fields], got: list[Fields], numbers: list[int]) -> tuple[float, float]:
    """(mean, worst) over some of the cases."""
    apart = [answers.distance(wanted[number], got[number]) for number in numbers]
    return (float(np.mean(apart)), float(np.max(apart))) if apart else (0.0, 0.0)


def _notes(
    cases: tuple[Case, ...],
    tensors: Mapping[str, Origin],
    distances: Mapping[Origin, float],
    asked: bool,
) -> tuple[str, ...]:
    """Where expectations come from, and what this test says less of."""
    notes = []
    if not any(case.photo for case in cases):
        notes.append(
            "weaker: its pictures were made, none is a photo of what the model is for; name "
            "photos that may leave the house in sealed.photos of the recipe"
        )
    own = [name for name, origin in tensors.items() if origin == "engine"]
    theirs = [name for name, origin in tensors.items() if origin == "source"]
    if theirs:
        notes.append(f"{', '.join(theirs)}: the source model says what is expected")
    if own:
        why = (
            "for it rounds; that it gets no further from the source model is held, too"
            if asked
            else "for the source model was not at hand"
        )
        notes.append(f"{', '.join(own)}: the engine itself says what is expected, {why}")
    if not tensors:
        notes.append("no tensor is held: rows are sorted by score, or hold numbers of classes")
    if "source" in distances:
        notes.append(
            "what is found in the pictures is held to the source model's answers, from which the "
            f"engine was {distances['source']:.4f} away when it was sealed "
            "(0: the same, 1: nothing)"
        )
    elif asked and distances:
        notes.append("what is found in the pictures is held to the engine's own answers only")
    if not distances:
        notes.append("weaker: no head here decodes the outputs, only numbers are held")
    return tuple(notes)
