"""The server that guides write: FastAPI, a plain function, the same engine, the same answer.

`python -m benchmarks._serving_naive PORT ENGINE`
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI

from benchmarks._serving_answer import answer, detector


def create(engine: str) -> FastAPI:
    """The application."""
    model = detector(engine)
    app = FastAPI()

    @app.post("/detect")
    def detect(body: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
        return answer(model, body)

    return app


if __name__ == "__main__":
    uvicorn.run(
        create(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning",
        access_log=False,
    )  # fmt: skip
