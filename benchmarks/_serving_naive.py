"""The server that guides write: FastAPI, a plain function, the same engine, the same answer.

`python -m benchmarks._serving_naive PORT ENGINE THREADS`
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI

from engineworks import runtime
from engineworks.runtime.pictures import decode_picture


def create(engine: str, threads: int) -> FastAPI:
    """The application."""
    detector = runtime.Detector(runtime.open(engine, threads=threads))
    app = FastAPI()

    @app.post("/detect")
    def detect(body: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
        found = detector(decode_picture(body, "photo").image)
        return {
            "detections": [
                {
                    "label": detector.label(number),
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

    return app


if __name__ == "__main__":
    port, engine, threads = sys.argv[1:4]
    uvicorn.run(
        create(engine, int(threads)), host="127.0.0.1", port=int(port), log_level="warning",
        access_log=False,
    )  # fmt: skip
