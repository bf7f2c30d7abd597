"""What every contender of the serving benchmark answers by: the same engine, chain and JSON."""

from __future__ import annotations

from typing import Any

from engineworks import runtime
from engineworks.runtime.pictures import decode_picture


def detector(engine: str) -> runtime.Detector:
    """The engine with one session of one thread."""
    return runtime.Detector(runtime.open(engine, threads=1))


def answer(model: runtime.Detector, data: bytes) -> dict[str, Any]:
    """A photo file's boxes as plain JSON types."""
    boxes = model(decode_picture(data, "photo").image)
    rows = zip(boxes.xyxy.tolist(), boxes.confidence.tolist(), boxes.class_id.tolist(), strict=True)
    return {
        "detections": [
            {
                "label": model.label(number),
                "class_id": number,
                "confidence": round(confidence, 4),
                "xyxy": [round(side, 2) for side in box],
            }
            for box, confidence, number in rows
        ]
    }
