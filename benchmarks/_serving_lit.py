"""The server that LitServe's guide writes: a file as a form's field, no batching.

`python -m benchmarks._serving_lit PORT ENGINE WORKERS`, in an environment that holds LitServe. It
reads the annotations below as types: no `from __future__ import annotations`.
"""

import sys
from typing import Any

import litserve as ls
from fastapi import UploadFile

from benchmarks._serving_answer import answer, detector


class Photos(ls.LitAPI):  # type: ignore[misc] # LitServe is in no environment of ours
    """Boxes of a photo."""

    def __init__(self, engine: str) -> None:
        super().__init__(api_path="/detect")
        self._engine = engine

    def setup(self, device: str) -> None:
        """Open the engine in the worker."""
        self._detector = detector(self._engine)

    def decode_request(self, request: UploadFile) -> bytes:
        """The file's bytes."""
        data: bytes = request.file.read()
        return data

    def predict(self, data: bytes) -> dict[str, Any]:
        """Its boxes."""
        return answer(self._detector, data)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As they are."""
        return output


if __name__ == "__main__":
    api, workers = Photos(sys.argv[2]), int(sys.argv[3])
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
