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
from engineworks.sealed.honest import Asked, HonestReplay

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
class Picture:
    """A picture to ask: uint8 (height, width, 3) BGR."""

    image: Array
    photo: bool


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What engine and source answered."""

    way: running.Way
    cases: tuple[Case, ...]
    placements: list[Placement]
    base: list[Tensors]
    replays: list[HonestReplay]
    source: list[Tensors] | None

    def numbers(self, part: Part) -> list[int]:
        return [number for number, case in enumerate(self.cases) if case.part == part]


def seal(
    engine: Path, asked: Sequence[Picture], source: Source | None, work: Path
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
    base = honest.first(run)
    replays = [base, *honest.others(run)]
    seen = _Seen(
        way=way,
        cases=cases,
        placements=placements,
        base=base.outputs,
        replays=replays,
        source=_source_outputs(source, way, images) if source is not None else None,
    )
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
    way: running.Way, asked: Sequence[Picture], work: Path
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
    found = []
    for image in images:
        row, _ = prepare(image)
        found.append({
            name: np.array(array[0])
            for name, array in zip(names, source(row[None]).values(), strict=True)
        })  # fmt: skip
    return found


def _tensors(seen: _Seen, draft: Draft) -> dict[str, Origin]:
    """Expectations of every output; output -> whose answers alone suffice, or the engine's own."""
    manifest = seen.way.manifest
    if manifest.task is not None and manifest.task.layout in _SORTED:
        return {}
    floor = honest.coarseness(manifest)
    nearest: dict[str, Origin] = {}
    for spec in manifest.outputs:
        if seen.base[0][spec.name].dtype.kind != "f":
            continue  # numbers of classes: what they mean is held, not how far apart they are
        _refuse_broken(seen, spec.name)
        nearest[spec.name] = _nearest(seen, spec.name, floor)
        origins: list[Origin] = [nearest[spec.name]]
        if origins == ["engine"] and _comparable(seen, spec.name):
            origins.append("source")
        for part in _PARTS:
            for origin in origins if seen.numbers(part) else ():
                _tensor(seen, draft, spec.name, part, origin, floor)
    return nearest


def _refuse_broken(seen: _Seen, output: str) -> None:
    if not all(np.isfinite(row[output]).all() for row in seen.base):
        raise ArtifactError(
            f"{seen.way.manifest.name}: output {output!r} holds what is no number",
            hint="an engine that answers so cannot be sealed: look at the pictures, or build it "
            "in a higher precision",
        )


def _comparable(seen: _Seen, output: str) -> bool:
    """Whether the source has this output in the same form."""
    return seen.source is not None and seen.source[0][output].shape == seen.base[0][output].shape


def _nearest(seen: _Seen, output: str, floor: float) -> Origin:
    """The source, where the engine is as close to it as a replay must be."""
    if seen.source is None or not _comparable(seen, output):
        return "engine"
    axis = statistics.channel_axis(seen.base[0][output].shape)
    want, got = (
        np.stack([statistics.columns(row[output], axis) for row in rows])
        for rows in (seen.source, seen.base)
    )
    apart = statistics.deviations(want, got, statistics.scales(want))
    close = all((apart[name] <= least * floor).all() for name, least in statistics.FLOORS.items())
    return "source" if close else "engine"


def _tensor(
    seen: _Seen, draft: Draft, output: str, part: Part, origin: Origin, floor: float
) -> None:
    expected = seen.source if origin == "source" and seen.source is not None else seen.base
    shape = expected[0][output].shape
    axis, numbers = statistics.channel_axis(shape), seen.numbers(part)
    wanted = [statistics.columns(expected[number][output], axis) for number in numbers]
    positions = [statistics.chosen(values) for values in wanted]

    def held(outputs: list[Tensors]) -> Array:
        return np.stack([
            statistics.columns(outputs[number][output], axis)[kept]
            for number, kept in zip(numbers, positions, strict=True)
        ])  # fmt: skip

    values = held(expected).astype(np.float32)
    scale = statistics.scales(values)
    limits = statistics.tolerances(
        [statistics.deviations(values, held(replay.outputs), scale) for replay in seen.replays],
        floor,
    )
    room = honest.RESIZED_ROOM if part == "resized" else 1.0
    draft.add_tensor(
        TensorTest(output=output, part=part, origin=origin, axis=axis, shape=shape),
        values=values,
        positions=np.stack(positions),
        scale=scale,
        **{f"limit/{name}": limit * room for name, limit in limits.items()},
    )


def _answers(seen: _Seen, draft: Draft) -> dict[Origin, float]:
    """Expectations of what is found; whose answers are held -> the engine's distance from them."""
    base = _found(seen, seen.base)
    if base is None:
        return {}
    replays = [found for one in seen.replays if (found := _found(seen, one.outputs)) is not None]
    expected: dict[Origin, list[Fields]] = {"engine": base}
    if seen.source is not None and (source := _found(seen, seen.source)) is not None:
        expected["source"] = source
    held: dict[Origin, float] = {}
    for origin, wanted in expected.items():
        apart = [_distance(wanted, base, seen.numbers(part))[0] for part in _PARTS]
        if max(apart) > _FAR:
            continue
        held[origin] = float(np.mean(apart))
        for part in _PARTS:
            numbers = seen.numbers(part)
            if not numbers:
                continue
            room = honest.RESIZED_ROOM if part == "resized" else 1.0
            mean, worst = (
                limit * room for limit in _limits(seen.way.manifest, wanted, replays, numbers)
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
    apart = np.array([_distance(wanted, found, numbers) for found in replays])
    limits = [statistics.tolerance(apart[:, [place]], 0.0)[0] + floors[place] for place in range(2)]
    return float(limits[0]), float(limits[1])


def _distance(wanted: list[Fields], got: list[Fields], numbers: list[int]) -> tuple[float, float]:
    """(mean, worst) over some of the cases."""
    apart = [answers.distance(wanted[number], got[number]) for number in numbers]
    return (float(np.mean(apart)), float(np.max(apart))) if apart else (0.0, 0.0)


def _found(seen: _Seen, outputs: list[Tensors]) -> list[Fields] | None:
    found = [
        seen.way.found(row, where) for row, where in zip(outputs, seen.placements, strict=True)
    ]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else None


def _notes(
    cases: tuple[Case, ...],
    tensors: Mapping[str, Origin],
    found: Mapping[Origin, float],
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
    if "source" in found:
        notes.append(
            "what is found in the pictures is held to the source model's answers, from which the "
            f"engine was {found['source']:.4f} away when it was sealed (0: the same, 1: nothing)"
        )
    elif asked and found:
        notes.append("what is found in the pictures is held to the engine's own answers only")
    if not found:
        notes.append("weaker: no head here decodes the outputs, only numbers are held")
    return tuple(notes)
