"""The routes that take an image: one class for each task whose answer the runtime knows.

Each opens its engine's image model and makes the JSON of an answer from the outputs of one image,
with the thresholds of the request. Knows no queue and no HTTP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from engineworks import usercode
from engineworks.errors import ArtifactError
from engineworks.runtime import Classifier, Detector, Session
from engineworks.runtime.heads import Decoder
from engineworks.runtime.heads.detection import DetectionPostprocessor
from engineworks.runtime.preprocess import Placement
from engineworks.server.settings import Settings

Outputs = Mapping[str, np.ndarray[Any, Any]]

#: Classes that one request may ask for.
MOST_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request may choose; None: as the server and the engine say."""

    confidence: float | None = None
    iou: float | None = None
    top: int = 5


class Head(ABC):
    """One task's way from an open engine to JSON.

    Args:
        session: An open engine of this task.
        settings: The server's.
    """

    task: ClassVar[str]
    route: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[dict[str, Any]]
    """What an answer holds beside the image's size, for the documentation of the route."""
    model: Detector | Classifier

    @abstractmethod
    def __init__(self, session: Session, settings: Settings) -> None: ...

    @abstractmethod
    def finish(self, outputs: Outputs, placement: Placement, ask: Ask) -> dict[str, Any]:
        """The answer for one image.

        Args:
            outputs: Output name -> array of this image, without the batch dimension.
            placement: Where the image lies in the input.
            ask: The request's thresholds.

        Raises:
            ArtifactError: The outputs are not what the manifest says.
        """

    @abstractmethod
    def counts(self, answer: Mapping[str, Any]) -> dict[str, int]:
        """Class name -> objects of an answer, for the metrics."""


class Detect(Head):
    """Boxes."""

    task = "detection"
    route = "detect"
    summary = "Find objects in one image"
    example: ClassVar[dict[str, Any]] = {
        "detections": [
            {
                "label": "person",
                "class_id": 0,
                "confidence": 0.8731,
                "xyxy": [12.5, 40.25, 118.0, 301.75],
            }
        ]
    }

    def __init__(self, session: Session, settings: Settings) -> None:
        self._decoder = _decoder(session, settings)
        self.model: Detector = Detector(
            session,
            confidence=settings.confidence,
            iou=settings.iou,
            decoder=self._decoder,
            max_batch=settings.limits.max_batch,
        )
        self._asked: dict[tuple[float, float], DetectionPostprocessor] = {}

    def finish(self, outputs: Outputs, placement: Placement, ask: Ask) -> dict[str, Any]:
        """See `Head.finish`."""
        if ask.confidence is None and ask.iou is None:
            found = self.model.finish(dict(outputs), placement)
        else:
            try:
                found = self._with(ask)(outputs, placement)
            except (ValueError, IndexError) as error:
                raise ArtifactError(
                    f"{self.model.session.manifest.name}: its outputs cannot be decoded ({error})",
                    hint="build the engine from a recipe with the layout of its head",
                ) from error
        return {
            "detections": [
                {
                    "label": self.model.label(number),
                    "class_id": number,
                    "confidence": round(confidence, 4),
                    "xyxy": [round(side, 2) for side in box],
                }
                for box, confidence, number in zip(
                    found.xyxy.tolist(),
                    found.confidence.tolist(),
                    found.class_id.tolist(),
                    strict=True,
                )
            ]
        }

    def _with(self, ask: Ask) -> DetectionPostprocessor:
        task = self.model.task
        key = (
            task.confidence if ask.confidence is None else ask.confidence,
            task.iou if ask.iou is None else ask.iou,
        )
        known = self._asked.get(key)
        if known is None:
            asked = replace(task, confidence=key[0], iou=key[1])
            known = DetectionPostprocessor(asked, self.model.size, self._decoder)
            if len(self._asked) >= 64:
                self._asked.clear()
            self._asked[key] = known
        return known

    def counts(self, answer: Mapping[str, Any]) -> dict[str, int]:
        """See `Head.counts`."""
        counted: dict[str, int] = {}
        for entry in answer["detections"]:
            counted[entry["label"]] = counted.get(entry["label"], 0) + 1
        return counted


class Classify(Head):
    """The best classes of the whole image."""

    task = "classification"
    route = "classify"
    summary = "Name what one image shows"
    example: ClassVar[dict[str, Any]] = {
        "classes": [{"label": "cat", "class_id": 3, "confidence": 0.9312}]
    }

    def __init__(self, session: Session, settings: Settings) -> None:
        self.model: Classifier = Classifier(
            session, top=MOST_CLASSES, max_batch=settings.limits.max_batch
        )

    def finish(self, outputs: Outputs, placement: Placement, ask: Ask) -> dict[str, Any]:
        """See `Head.finish`."""
        found = self.model.finish(dict(outputs), placement)
        least = ask.confidence or 0.0
        best = zip(found.class_id.tolist(), found.confidence.tolist(), strict=True)
        return {
            "classes": [
                {"label": self.model.label(number), "class_id": number, "confidence": round(p, 4)}
                for number, p in list(best)[: ask.top]
                if p >= least
            ]
        }

    def counts(self, answer: Mapping[str, Any]) -> dict[str, int]:
        """See `Head.counts`."""
        return {entry["label"]: 1 for entry in answer["classes"][:1]}


#: Every task that has a route.
HEADS: tuple[type[Head], ...] = (Detect, Classify)


def head_of(session: Session, settings: Settings) -> Head | None:
    """The head for an engine's task; None where its tensors are all that it answers by."""
    task = session.manifest.task
    kind = task.kind if task is not None else "none"
    found = next((head for head in HEADS if head.task == kind), None)
    return found(session, settings) if found else None


def _decoder(session: Session, settings: Settings) -> Decoder | None:
    task = session.manifest.task
    if task is None or ":" not in task.layout:
        return None
    if not settings.decoder_from:
        raise ArtifactError(
            f"{session.manifest.name} has a layout of its own, {task.layout}, and an engine holds "
            "no code",
            hint="give --decoder-from DIR, the folder of its recipe",
        )
    decoder: Decoder = usercode.load(task.layout, Path(settings.decoder_from), "task.layout")
    return decoder
