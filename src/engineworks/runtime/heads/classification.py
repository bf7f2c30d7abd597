"""Classification: what a whole image shows, the best classes first."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError
from engineworks.runtime.heads._base import Decoder, Finish, Head, Outputs, label, only
from engineworks.runtime.predictor import Predictor
from engineworks.runtime.preprocess import Placement
from engineworks.runtime.scores import ASSUMED, confidences
from engineworks.runtime.session import Session
from engineworks.specs import ScoreKind, Size, TaskSpec

_log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

#: Classes that an answer names.
TOP = 5


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The best classes of one image.

    Attributes:
        class_id: int64 (k,), index into the model's labels, best first.
        confidence: float32 (k,) in 0..1, highest first. They sum to 1 over all classes, unless
            the model's labels do not exclude each other (`task.scores`).
    """

    class_id: Array
    confidence: Array


def open_head(task: TaskSpec, size: Size, decode: Decoder | None) -> Finish:
    """See `Head`: the best classes, by the task's word for what the scores are."""
    top = int(task.options.get("top", TOP))

    def finish(outputs: Outputs, placement: Placement) -> Classification:
        confidence = confidences(only(outputs).reshape(-1), task.scores)
        best = np.argsort(-confidence, kind="stable")[:top]
        return Classification(class_id=best.astype(np.int64), confidence=confidence[best])

    return finish


class Classifier(Predictor[Classification]):
    """Names what a whole image shows.

    Args:
        session: An open engine of a classification model: one output of scores or logits.
        top: How many classes to name.
        scores: What the engine's scores are; None: as the manifest says. One that does not say is
            taken to give logits, with a warning.
        max_batch: Images per inference where the engine's batch is open.

    Raises:
        ArtifactError: The engine is no classifier, or its manifest does not say all that is
            needed.
    """

    kind = "classification"

    def __init__(
        self,
        session: Session,
        *,
        top: int = TOP,
        scores: ScoreKind | None = None,
        max_batch: int = 8,
    ) -> None:
        super().__init__(session, max_batch=max_batch, top=top, scores=scores)
        if len(session.outputs) != 1:
            raise ArtifactError(
                f"a classifier has one output, {session.manifest.name} has "
                f"{len(session.outputs)}: {[spec.name for spec in session.outputs]}",
                hint="export a model with one output of class scores",
            )
        if self.task.scores == "auto":
            self.task = dataclasses.replace(self.task, scores=ASSUMED)
            _log.warning(
                "%s does not say what its scores are: %s are assumed; give Classifier(scores=...), "
                "or build the engine anew",
                session.manifest.name, ASSUMED,
            )  # fmt: skip


def _classes(answer: Classification, task: TaskSpec) -> list[dict[str, Any]]:
    return [
        {"label": label(task, number), "class_id": number, "confidence": round(score, 4)}
        for number, score in zip(answer.class_id.tolist(), answer.confidence.tolist(), strict=True)
    ]


def to_json(answer: Classification, task: TaskSpec) -> dict[str, Any]:
    """See `Head`."""
    return {"classes": _classes(answer, task)}


def lines(answer: Classification, task: TaskSpec) -> list[str]:
    """See `Head`."""
    return [f"{row['label']:<16} {row['confidence']:.4f}" for row in _classes(answer, task)]


def count(answer: Classification, task: TaskSpec) -> dict[str, int]:
    """See `Head`: the best class alone."""
    return {label(task, int(answer.class_id[0])): 1} if len(answer.class_id) else {}


def check_options(options: Mapping[str, Any]) -> None:
    """See `Head`."""
    top = options.get("top", TOP)
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ValueError(f"top: {top!r} classes cannot be named")


HEAD = Head(
    title="name what images show",
    command="classify",
    open=open_head,
    to_json=to_json,
    lines=lines,
    count=count,
    scores=True,
    columns={},
    settings={"top": TOP, "scores": None},
    options={"top": f"how many classes an answer names (default: {TOP})"},
    check_options=check_options,
)
