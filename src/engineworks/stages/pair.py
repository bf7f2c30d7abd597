"""Stage `pair`: two engines answer the same labelled photos now, held side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.codec import place
from engineworks.errors import ModelError
from engineworks.evaluate.paired import Paired
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.specs import Size
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class PairRequest:
    """A candidate beside the champion."""

    shared: Shared
    """The candidate's task, labels and preprocessing."""
    candidate: Artifact
    champion: Artifact
    data: PinnedData
    """Photos and labels, of which `spec.annotations` is here."""
    size: Size
    max_drop: float
    threads: int
    tools: dict[str, str]
    host: HostCard = place()


def pair(request: PairRequest) -> Paired:
    """Stage `pair`.

    Raises:
        ModelError: Answers to this task are not compared photo by photo.
        DataError: A photo is not here, or not the one that was judged before.
        EngineworksError: An engine does not open here.
    """
    from engineworks.evaluate import paired, tasks

    task = request.shared.task
    scores = tasks.load(task.kind).photo_scores
    if scores is None:
        raise ModelError(
            f"answers to the task {task.kind} are not compared photo by photo",
            hint="give its TASK a function photo_scores (docs/add-a-task.md), or accept accuracy",
        )
    labels = request.shared.labels
    mine, theirs = (
        scores(_answers(request, engine), request.data, task, labels)
        for engine in (request.candidate, request.champion)
    )
    return paired.compare(mine, theirs, request.max_drop)


def _answers(request: PairRequest, engine: Artifact) -> list[Any]:
    from engineworks.evaluate import judge
    from engineworks.runtime.session import open_engine

    shared, folder = request.shared, LocalStore(Path(request.shared.store)).open(engine)
    with open_engine(folder, threads=request.threads) as session:
        name = session.inputs[0].name

        def infer(batch: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
            answers = session.infer({name: np.ascontiguousarray(batch)})
            return {key: np.array(value) for key, value in answers.items()}

        _, predictions = judge.judge(
            infer, request.data, shared.task, shared.labels, shared.preprocess, request.size, None
        )
    return predictions


STAGE = Stage("pair", pair, PairRequest, Paired, ("opencv-python-headless", "pycocotools"))
