"""The photos of report.html: predictions and annotations of a run, for its task to choose from.

Which photos, and what is drawn, is the task's (`engineworks.evaluate.tasks`).
"""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from artifacts.summary import Summary, Variant
from engineworks.errors import ArtifactError, DataError, RecipeError
from engineworks.evaluate import pictures, tasks
from engineworks.evaluate.pictures import Album, Gallery, GalleryPicture
from engineworks.evaluate.tasks import GalleryRequest, Task
from engineworks.manifest import Artifact
from engineworks.specs import TaskSpec
from engineworks.store import LocalStore


def gallery(
    summary: Summary, store: LocalStore, skip: AbstractSet[tuple[str, str]] = frozenset()
) -> Gallery | None:
    """Photos with the answers of the source model and of a variant that differs from it.

    None when the task has no answers to draw, or they are no longer in the store.

    Args:
        summary: The run's facts.
        store: Holds the predictions.
        skip: (variant, file) that are drawn elsewhere on the page.
    """
    task = summary.reference.artifact.manifest.task
    source = _predictions(summary.reference.predictions, store)
    # The variant to ship first, then others that may ship: the first one is drawn in a tie.
    ranked = sorted(summary.variants, key=lambda v: (not v.recommended, v.verdict != "shipped"))
    answers = {
        v.name: predictions for v in ranked if (predictions := _predictions(v.predictions, store))
    }
    kind = _kind(task)
    if kind is None or task is None or summary.data is None or not source or not answers:
        return None
    if kind.gallery is not None:
        return kind.gallery(
            GalleryRequest(
                data=summary.data,
                task=task,
                labels=class_labels(summary, store),
                source=source,
                answers=answers,
            )
        )
    known = album(summary, store)
    if known is None:
        return None
    return pictures.gallery(known, summary.data, source, answers, skip)


def _kind(task: TaskSpec | None) -> Task | None:
    """How a task is judged; None where none is, or its package is no longer installed."""
    if task is None or not task.judged:
        return None
    try:
        return tasks.load(task.kind)
    except RecipeError:
        return None


def _predictions(artifact: Artifact | None, store: LocalStore) -> list[Any]:
    if artifact is None:
        return []
    try:
        text = (store.open(artifact) / "predictions.json").read_text(encoding="utf-8")
        return list(json.loads(text))
    except (ArtifactError, OSError, ValueError):
        return []


def class_labels(summary: Summary, store: LocalStore) -> tuple[str, ...]:
    """Class names from an engine's manifest, in which they travel."""
    for variant in summary.variants:
        if variant.engine is not None and store.has(variant.engine.sha256):
            task = store.get(variant.engine.sha256).manifest.task
            if task is not None and not isinstance(task.labels, str):
                return task.labels
    return ()


def album(summary: Summary, store: LocalStore) -> Album | None:
    """Photos and how answers are drawn into them; None when that cannot be, or data is gone."""
    task, data = summary.reference.artifact.manifest.task, summary.data
    kind = _kind(task)
    if data is None or task is None or kind is None or kind.album is None:
        return None
    try:
        truth = store.entry(data.truth) if data.truth else None
        if truth is None and data.spec.annotations is not None:
            truth = Path(data.spec.annotations)
        return kind.album(data, truth, task, class_labels(summary, store))
    except (ArtifactError, DataError):
        return None


def worst(
    summary: Summary, store: LocalStore, known: Album | None, variant: Variant, most: int
) -> tuple[tuple[GalleryPicture, ...], int]:
    """The photos in which a variant differs most from the source model, and how many are gone."""
    if known is None or variant.difference is None or summary.data is None:
        return (), 0
    sides = (
        _predictions(summary.reference.predictions, store),
        _predictions(variant.predictions, store),
    )
    return pictures.worst(known, summary.data, variant.name, variant.difference, sides, most)
