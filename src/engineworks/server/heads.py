"""The routes that take an image: one for each command of the runtime's listing of heads.

An engine's own head opens its outputs; the thresholds of a request are settings of that head. Knows
no kind of task, no queue and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import usercode
from engineworks.errors import ArtifactError
from engineworks.runtime import Predictor, Session, heads
from engineworks.runtime.heads import Decoder
from engineworks.runtime.preprocess import Placement
from engineworks.server.settings import Settings

Outputs = Mapping[str, np.ndarray[Any, Any]]
Model = Predictor[Any]

#: Classes that one request may ask for.
MOST_CLASSES = 100

#: Different thresholds that are kept ready for one engine.
_MOST_ASKED = 64

_BOX = {"label": "person", "class_id": 0, "confidence": 0.8731, "xyxy": [12.5, 40.25, 118.0, 301.7]}

#: What an answer holds beside the image's size, for the documentation of a route.
EXAMPLES: dict[str, dict[str, Any]] = {
    "detect": {"detections": [_BOX]},
    "classify": {"classes": [{"label": "cat", "class_id": 3, "confidence": 0.9312}]},
    "segment": {
        "areas": [{"label": "road", "class_id": 0, "pixels": 120332, "share": 0.3917}],
        "mask_png": "iVBORw0KGgo...",
    },
    "keypoints": {
        "detections": [
            {
                **_BOX,
                "keypoints": [{"name": "nose", "x": 60.25, "y": 55.5, "confidence": 0.9712}],
            }
        ]
    },
}


@cache
def routes() -> dict[str, str]:
    """Route -> what it does, for every head that is installed."""
    titles: dict[str, str] = {}
    for kind in heads.names():
        head = heads.load(kind)
        titles.setdefault(head.command, head.title)
    return titles


class Answering:
    """How one engine answers images.

    Args:
        session: An open engine whose task has a head.
        settings: The server's.

    Raises:
        ArtifactError: Its manifest does not say all that is needed.
    """

    def __init__(self, session: Session, settings: Settings) -> None:
        task = session.manifest.task
        kind = task.kind if task is not None else ""
        self._head = heads.load(kind)
        self.kind, self.route = kind, self._head.command
        self._session, self._most = session, settings.limits.max_batch
        self._decoder = _decoder(session, settings)
        given = {"confidence": settings.confidence, "iou": settings.iou}
        self._given = {
            name: value
            for name, value in given.items()
            if value is not None and name in self._head.settings
        }
        self.model = self._made({})
        self._asked: dict[tuple[tuple[str, Any], ...], Model] = {(): self.model}

    def _made(self, asked: Mapping[str, Any]) -> Model:
        return Predictor(
            self._session, decoder=self._decoder, max_batch=self._most, **{**self._given, **asked}
        )

    def asked(self, settings: Mapping[str, Any]) -> Model:
        """What reads outputs with the settings of a request.

        Raises:
            FeedError: This task does not have one of them.
        """
        key = tuple(sorted(settings.items()))
        known = self._asked.get(key)
        if known is None:
            known = self._made(settings)
            if len(self._asked) >= _MOST_ASKED:
                self._asked = {(): self.model}
            self._asked[key] = known
        return known


def finish(
    model: Model, outputs: Outputs, placement: Placement
) -> tuple[dict[str, Any], dict[str, int]]:
    """The answer for one image as plain JSON types, and how often each class is in it.

    Args:
        model: Of `Answering.asked`.
        outputs: Output name -> array of this image, without the batch dimension.
        placement: Where the image lies in the input.

    Raises:
        ArtifactError: The outputs are not what the manifest says.
    """
    answer = model.finish(dict(outputs), placement)
    return model.to_json(answer), model.count(answer)


def answering(session: Session, settings: Settings) -> Answering | None:
    """How an engine answers images; None where its tensors are all that it answers by."""
    task = session.manifest.task
    if task is None or task.kind not in heads.names():
        return None
    return Answering(session, settings)


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
