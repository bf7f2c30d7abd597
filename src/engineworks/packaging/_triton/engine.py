"""Runs inside Triton's Python backend: one engine by its own manifest, tensors in and out.

Requests that Triton gives together run as one batch. A request that the engine refuses fails by
itself; the others of its batch are answered. Beside it lie the engine (`engine/`) and the runtime.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engineworks import runtime
from engineworks.errors import EngineworksError, FeedError


class TritonPythonModel:
    """See Triton's python_backend for the names of its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine with the threads that its configuration gives it."""
        config = json.loads(args["model_config"])
        threads = int(config["parameters"]["threads"]["string_value"])
        folder = Path(args["model_repository"]) / args["model_version"] / "engine"
        self.batched = config["max_batch_size"] > 0
        self.session = runtime.open(folder, threads=threads)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests that Triton took from its queue together."""
        feeds = [self._feeds(request) for request in requests]
        if len(requests) > 1 and self.batched:
            rows = [len(next(iter(feed.values()))) for feed in feeds]
            try:
                outputs = self._together(feeds)
            except (EngineworksError, ValueError):
                pass  # one of them is at fault: each by itself
            else:
                starts = np.cumsum([0, *rows])
                return [
                    self._response({name: array[start:end] for name, array in outputs.items()})
                    for start, end in itertools.pairwise(starts)
                ]
        return [self._single(feed) for feed in feeds]

    def _feeds(self, request: Any) -> dict[str, np.ndarray[Any, Any]]:
        return {
            spec.name: pb_utils.get_input_tensor_by_name(request, spec.name).as_numpy()
            for spec in self.session.inputs
        }

    def _together(self, feeds: list[dict[str, Any]]) -> dict[str, Any]:
        names = [spec.name for spec in self.session.inputs]
        return self.session.infer(
            {name: np.concatenate([feed[name] for feed in feeds]) for name in names}
        )

    def _single(self, feed: dict[str, Any]) -> Any:
        try:
            return self._response(self.session.infer(feed))
        except FeedError as error:
            fault = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        except EngineworksError as error:
            fault = pb_utils.TritonError(str(error))
        return pb_utils.InferenceResponse(error=fault)

    def _response(self, outputs: dict[str, Any]) -> Any:
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        """Close the engine."""
        self.session.close()
