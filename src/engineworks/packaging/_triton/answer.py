"""Runs inside Triton's Python backend: the engine's outputs in, boxes or classes out.

The last step of the ensemble, the same decoding and suppression as everywhere else. The engine's
manifest beside it (`engine/manifest.json`) says what the outputs mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engineworks.errors import EngineworksError
from engineworks.manifest import load
from engineworks.runtime.elsewhere import image_model
from engineworks.runtime.preprocess import Placement


class TritonPythonModel:
    """See Triton's python_backend for the names of its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read what the outputs mean."""
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = load(folder / "engine" / "manifest.json")
        self.model = image_model(manifest)
        self.outputs = [spec.name for spec in manifest.outputs]
        self.given = {each["name"] for each in json.loads(args["model_config"])["output"]}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One picture each."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        def tensor(name: str) -> np.ndarray[Any, Any]:
            array: np.ndarray[Any, Any] = pb_utils.get_input_tensor_by_name(
                request, name
            ).as_numpy()
            return array

        place = [float(value) for value in tensor("placement").reshape(-1)]
        placement = Placement(
            scale_x=place[0], scale_y=place[1], offset_x=place[2], offset_y=place[3],
            width=int(place[4]), height=int(place[5]),
        )  # fmt: skip
        try:
            answer = self.model.finish({name: tensor(name)[0] for name in self.outputs}, placement)
        except EngineworksError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        columns = {
            "boxes": getattr(answer, "xyxy", None),
            "confidence": answer.confidence,
            "class_id": answer.class_id,
            "label": np.array([self.model.label(int(n)) for n in answer.class_id], np.object_),
        }
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor(name, np.ascontiguousarray(column))
                for name, column in columns.items()
                if name in self.given
            ]
        )
