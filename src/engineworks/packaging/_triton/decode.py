"""Runs inside Triton's Python backend: an encoded picture in, the engine's input out.

The first step of the ensemble. The engine's manifest beside it (`engine/manifest.json`) says how a
picture becomes the input; the runtime that does it travels in the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from engineworks.errors import EngineworksError
from engineworks.manifest import load
from engineworks.runtime.elsewhere import image_model
from engineworks.runtime.pictures import decode_picture


class TritonPythonModel:
    """See Triton's python_backend for the names of its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read how a picture becomes the input."""
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = load(folder / "engine" / "manifest.json")
        self.model = image_model(manifest)
        batch = manifest.inputs[0].shape[0]
        self.rows = batch if isinstance(batch, int) else 1
        self.input = manifest.inputs[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        """One picture each; one that is none fails by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = pb_utils.get_input_tensor_by_name(request, "photo").as_numpy().reshape(-1)
        try:
            picture = decode_picture(bytes(given[0]), "photo")
            row, placement = self.model.prepare(picture.image)
        except EngineworksError as error:
            fault = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=fault)
        # An engine of a fixed batch gets all of its rows, the others empty.
        rows = np.zeros((self.rows, *row.shape), row.dtype)
        rows[0] = row
        place = np.array([[
            placement.scale_x, placement.scale_y, placement.offset_x, placement.offset_y,
            placement.width, placement.height,
        ]], np.float64)  # fmt: skip
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(self.input, rows), pb_utils.Tensor("placement", place)]
        )
