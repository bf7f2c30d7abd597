"""Runs inside TorchServe: encoded pictures in, boxes or classes out, by the engine's own manifest.

TorchServe gives a batch of requests and wants one item for each, in order. One that is no picture
gets its own 400; the others are answered. Needs numpy, OpenCV and the engine's runtime; no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engineworks import runtime
from engineworks.errors import EngineworksError
from engineworks.runtime.elsewhere import image_model
from engineworks.runtime.pictures import decode_picture


class EngineHandler:
    """See TorchServe's custom handlers for the names of its methods."""

    def __init__(self) -> None:
        self.model: Any = None

    def initialize(self, context: Any) -> None:
        """Open the engine and answer once, so that the first caller does not wait for it."""
        import numpy as np

        folder = Path(context.system_properties["model_dir"])
        threads = int((context.model_yaml_config or {})["handler"]["threads"])
        session = runtime.open(folder / "engine", threads=threads)
        self.model = image_model(session.manifest, session)
        self.model(np.zeros((64, 64, 3), np.uint8))

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """Answer a batch of requests."""
        answers: list[Any] = [None] * len(data)
        taken = []
        for number, request in enumerate(data):
            try:
                picture = decode_picture(self._bytes(request), "the picture")
                taken.append((number, *self.model.prepare(picture.image)))
            except EngineworksError as error:
                answers[number] = self._refuse(context, number, error)
        if taken:
            outputs = self.model.infer([row for _, row, _ in taken])
            for (number, _, placement), output in zip(taken, outputs, strict=True):
                try:
                    answers[number] = self._said(self.model.finish(output, placement))
                except EngineworksError as error:
                    answers[number] = self._refuse(context, number, error)
        return [json.dumps(answer) for answer in answers]

    @staticmethod
    def _bytes(request: dict[str, Any]) -> bytes:
        """The picture of a raw body or of a form's field `data`; empty: there is none."""
        given = request.get("data") or request.get("body")
        return bytes(given) if isinstance(given, bytes | bytearray) else b""

    @staticmethod
    def _refuse(context: Any, number: int, error: EngineworksError) -> dict[str, str]:
        context.set_response_status(code=400, phrase="Bad Request", idx=number)
        return {"error": error.message, "hint": error.hint}

    def _said(self, answer: Any) -> dict[str, Any]:
        """An answer as JSON; float32 is written so that it is read back to the last bit."""
        boxes = getattr(answer, "xyxy", None)
        entries = []
        for position, (class_id, confidence) in enumerate(
            zip(answer.class_id.tolist(), answer.confidence.tolist(), strict=True)
        ):
            entry = {
                "class_id": class_id,
                "label": self.model.label(class_id),
                "confidence": confidence,
            }
            if boxes is not None:
                entry["xyxy"] = boxes[position].tolist()
            entries.append(entry)
        return {"classes" if boxes is None else "detections": entries}
