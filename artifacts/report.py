"""report.html: one self-contained page that answers what may ship, and shows the evidence.

Chooses what to show; `report_plots.py` draws it and `report.html.j2` writes it, escaping all text.
The page loads nothing and runs no script.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from artifacts import report_plots
from artifacts.summary import Summary, Variant, computed, main_row
from engineworks.errors import ArtifactError, DataError
from engineworks.evaluate import datasets
from engineworks.manifest import Artifact
from engineworks.runtime.preprocess import read_image
from engineworks.store import LocalStore
from engineworks.values import BenchmarkRow, PinnedData

PHOTOS = 6
TILES = 12
DASH = "\u2013"


def render(summary: Summary, store: LocalStore) -> str:
    """The page of one run.

    Args:
        summary: The run's facts.
        store: Holds the predictions. Those and photos that are gone are left out and named.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        count=count, ms=ms, mib=mib, si=si, seconds=seconds, small=small, signed=signed, snr=snr
    )
    recommended = next((v for v in summary.variants if v.recommended), None)
    page: str = environment.get_template("report.html.j2").render(
        summary=summary,
        started=_started(summary.run_id),
        best=recommended,
        best_row=main_row(recommended, summary.size) if recommended else None,
        outcomes=Counter(variant.verdict for variant in summary.variants),
        main_row=lambda variant: main_row(variant, summary.size),
        computed=computed,
        plots=[
            plot
            for width, height in ((720, 320), (360, 300))
            if (plot := report_plots.scatter(summary, width, height))
        ],
        matrix=_matrix(summary),
        doubts=_doubts(summary),
        environment=_environment(summary.variants),
        gallery=gallery(summary, store),
        log_name=lambda log: _log_name(log, summary.run_id),
        min_score=report_plots.MIN_SCORE,
        same_iou=report_plots.SAME_IOU,
    )
    return page


def _started(run_id: str) -> str:
    """Date and time as the run's name gives them."""
    found = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", run_id)
    return "{}-{}-{} {}:{}:{}".format(*found.groups()) if found else ""


def _log_name(log: str, run_id: str) -> str:
    """A log folder relative to this run's folder; a cached stage's lies in another run's."""
    inside = log.rpartition("/runs/")[2]
    return inside.removeprefix(f"{run_id}/") if inside.startswith(run_id) else f"../{inside}"


# --- tables ---

Shape = tuple[int, int, int]


def _matrix(summary: Summary) -> dict[Shape, list[tuple[Variant, BenchmarkRow]]]:
    """Benchmark rows by (height, width, batch), so that variants stand under each other."""
    matrix: defaultdict[Shape, list[tuple[Variant, BenchmarkRow]]] = defaultdict(list)
    for variant in summary.variants:
        for row in variant.benchmark:
            matrix[row.height, row.width, row.batch].append((variant, row))
    return dict(matrix)


def _doubts(summary: Summary) -> dict[tuple[str, Shape], tuple[int, str]]:
    """(variant, shape) -> (footnote number, why its figures are inconclusive)."""
    doubted = (
        ((variant.name, shape), row.inconclusive)
        for shape, entries in _matrix(summary).items()
        for variant, row in entries
        if row.inconclusive
    )
    return {key: (number, reason) for number, (key, reason) in enumerate(doubted, start=1)}


def _environment(variants: Iterable[Variant]) -> dict[str, dict[str, list[str]]]:
    """Fact -> value -> the variants that were timed under it."""
    facts: dict[str, dict[str, list[str]]] = {}
    for variant in variants:
        for fact, value in (variant.environment or {}).items():
            values = facts.setdefault(fact.replace("_", " "), {})
            values.setdefault(_word(value), []).append(variant.name)
    return facts


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def count(value: float | None) -> str:
    """12345 -> 12 345, with narrow no-break spaces."""
    return DASH if value is None else f"{value:,.0f}".replace(",", "\u202f")


def ms(value: float | None, like: float | None = None) -> str:
    """Milliseconds; `like` is the figure beside it whose number of decimals it takes."""
    if value is None:
        return DASH
    scale = value if like is None else like
    return f"{value:.{3 if scale < 1 else 2 if scale < 100 else 1}f}"


def mib(size_bytes: float | None) -> str:
    """Bytes as MiB."""
    return DASH if size_bytes is None else f"{size_bytes / 2**20:.2f}"


def si(value: float) -> str:
    """904490 -> 904 k, 1045106816 -> 1.05 G."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            scaled = value / factor
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}\u202f{unit}"
    return f"{value:g}"


def seconds(value: float) -> str:
    """A duration with its unit."""
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    return f"{value:.{2 if value < 1 else 1}f} s"


def small(value: float | None) -> str:
    """A difference: two digits and the power of ten."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "not finite"
    return "0" if value == 0 else f"{value:.1e}"


def signed(value: float) -> str:
    """Four decimals with their sign; zero has none."""
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text.replace("-", "\u2212")


def snr(value: float) -> str:
    """Decibels; 200 stands for equal answers."""
    return "equal" if value >= 200 else f"{value:.1f} dB".replace("-", "\u2212")


# --- pictures ---


@dataclass(frozen=True, kw_only=True)
class Change:
    """How one variant's answers on all images differ from the source model's."""

    variant: str
    before: int | None
    """Boxes of the source model (detection) or images it gets right (classification)."""
    after: int | None
    lost: int | None
    """Boxes, or right answers, that the source model has and the variant has not."""
    gained: int | None
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One photo with the source model's answer and a variant's; images are data URIs."""

    file: str
    note: str
    """What is known to be in it."""
    variant: str
    before: str
    before_text: str
    after: str = ""
    after_text: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a run, and every variant's differences from the source model."""

    kind: str
    variant: str
    pictures: tuple[Picture, ...]
    changes: tuple[Change, ...]
    missing: int
    """Photos that were wanted and cannot be read any more."""


def gallery(summary: Summary, store: LocalStore) -> Gallery | None:
    """Photos with the answers of the source model and of the variant to ship.

    None when the task has no answers to draw, or they are no longer in the store.
    """
    task = summary.reference.artifact.manifest.task
    source = _predictions(summary.reference.artifact, store)
    # The variant to ship first, then others that may ship: the first one is drawn.
    ranked = sorted(summary.variants, key=lambda v: (not v.recommended, v.verdict != "shipped"))
    answers = {v.name: found for v in ranked if (found := _predictions(v.predictions, store))}
    if task is None or summary.data is None or not source or not answers:
        return None
    if task.kind == "detection":
        return _detection(summary.data, source, answers)
    if task.kind == "classification":
        return _classification(summary.data, _labels(summary, store), source, answers)
    return None


def _predictions(artifact: Artifact | None, store: LocalStore) -> list[Any]:
    if artifact is None:
        return []
    try:
        text = (store.open(artifact) / "predictions.json").read_text(encoding="utf-8")
        return list(json.loads(text))
    except (ArtifactError, OSError, ValueError):
        return []


def _labels(summary: Summary, store: LocalStore) -> tuple[str, ...]:
    """Class names from an engine's manifest, in which they travel."""
    for variant in summary.variants:
        if variant.engine is not None and store.has(variant.engine.sha256):
            task = store.get(variant.engine.sha256).manifest.task
            if task is not None and not isinstance(task.labels, str):
                return task.labels
    return ()


def _detection(
    data: PinnedData, source: list[Any], answers: Mapping[str, list[Any]]
) -> Gallery | None:
    try:
        coco = datasets.read_coco(Path(data.spec.annotations or ""), ())
    except DataError:
        return None
    ids = {name: coco.image_id[name] for name in data.files if name in coco.image_id}
    names = {entry["id"]: str(entry["name"]) for entry in coco.raw["categories"]}
    objects = Counter(entry["image_id"] for entry in coco.raw["annotations"])
    before = report_plots.by_image(source)
    found = {variant: report_plots.by_image(results) for variant, results in answers.items()}
    chosen = next(iter(found))
    pictures: list[Picture] = []
    missing = 0
    for name in sorted(ids, key=lambda name: (-objects[ids[name]], name)):
        if len(pictures) == PHOTOS:
            break
        try:
            image = read_image(Path(data.spec.images) / name)
        except DataError:
            missing += 1
            continue
        old, new = before[ids[name]], found[chosen][ids[name]]
        lost, gained = report_plots.unmatched(old, new)
        pictures.append(
            Picture(
                file=name,
                note=f"{objects[ids[name]]} labelled objects",
                variant=chosen,
                before=report_plots.photo(image, old, lost, names),
                before_text=f"{len(old)} boxes, {len(lost) or 'none'} of them here only",
                after=report_plots.photo(image, new, gained, names),
                after_text=f"{len(new)} boxes, {len(gained) or 'none'} of them here only",
            )
        )
    return Gallery(
        kind="detection",
        variant=chosen,
        pictures=tuple(pictures),
        changes=tuple(_boxes_changed(v, before, boxes, ids) for v, boxes in found.items()),
        missing=missing,
    )


def _boxes_changed(
    variant: str,
    before: Mapping[Any, list[dict[str, Any]]],
    after: Mapping[Any, list[dict[str, Any]]],
    ids: Mapping[str, Any],
) -> Change:
    differ = {
        name: report_plots.unmatched(before.get(image_id, []), after.get(image_id, []))
        for name, image_id in ids.items()
    }
    return Change(
        variant=variant,
        before=sum(map(len, before.values())),
        after=sum(map(len, after.values())),
        lost=sum(len(lost) for lost, _ in differ.values()),
        gained=sum(len(gained) for _, gained in differ.values()),
        files=tuple(name for name, (lost, gained) in differ.items() if lost or gained),
    )


def _classification(
    data: PinnedData,
    labels: Sequence[str],
    source: list[Any],
    answers: Mapping[str, list[Any]],
) -> Gallery:
    """Images that changed class; where none did, some that are mistaken by both."""

    def word(index: int) -> str:
        return labels[index] if index < len(labels) else f"class {index}"

    before = {file: (word(index), score) for file, index, score in source}
    found = {
        variant: {file: (word(index), score) for file, index, score in predictions}
        for variant, predictions in answers.items()
    }
    changes = tuple(_classes_changed(v, before, after, bool(labels)) for v, after in found.items())
    wanted = [(change.variant, file) for change in changes for file in change.files]
    chosen = next(iter(found))
    if not wanted and labels:
        mistaken = [file for file, (name, _) in before.items() if name != _class(file)]
        step = max(1, len(mistaken) // TILES)
        wanted = [(chosen, file) for file in mistaken[::step]]
    pictures: list[Picture] = []
    missing = 0
    for variant, file in wanted:
        if len(pictures) == TILES:
            break
        try:
            image = report_plots.tile(read_image(Path(data.spec.images) / file))
        except DataError:
            missing += 1
            continue
        pictures.append(
            Picture(
                file=file,
                note=_class(file),
                variant=variant,
                before=image,
                before_text="{} {:.2f}".format(*before[file]),
                after_text="{} {:.2f}".format(*found[variant][file]),
            )
        )
    return Gallery(
        kind="classification",
        variant=chosen,
        pictures=tuple(pictures),
        changes=changes,
        missing=missing,
    )


Answers = Mapping[str, tuple[str, float]]


def _classes_changed(variant: str, before: Answers, after: Answers, known: bool) -> Change:
    was = {file for file, (name, _) in before.items() if name == _class(file)}
    now = {file for file, (name, _) in after.items() if name == _class(file)}
    return Change(
        variant=variant,
        before=len(was) if known else None,
        after=len(now) if known else None,
        lost=len(was - now) if known else None,
        gained=len(now - was) if known else None,
        files=tuple(file for file in after if file in before and before[file][0] != after[file][0]),
    )


def _class(file: str) -> str:
    """The true class: an image lies in its class's folder."""
    return file.partition("/")[0]
