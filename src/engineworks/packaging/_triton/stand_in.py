"""Runs inside Triton in place of a vendor's backend library that cannot be had, for the proof.

Triton calls it for models of the backend that its folder is named after, with the repository as
it is. Opens the model file with the vendor's own package from PyPI. Never part of a package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """See Triton's python_backend for the names of its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model file with the parameters that the vendor's library would read."""
        config = json.loads(args["model_config"])
        parameters = {
            key: value["string_value"] for key, value in config.get("parameters", {}).items()
        }
        folder = Path(args["model_repository"]) / args["model_version"]
        backend = config["backend"] or config["platform"].partition("_")[0]
        opened = {"onnxruntime": onnxruntime_model, "openvino": openvino_model}[backend]
        level = config.get("optimization", {}).get("graph", {}).get("level", 0)
        self.inputs = [each["name"] for each in config["input"]]
        self.outputs = [each["name"] for each in config["output"]]
        self.run = opened(folder, parameters, self.outputs, level)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One batch of what Triton gives together."""
        feeds = [
            {
                name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in self.inputs
            }
            for request in requests
        ]
        starts = np.cumsum([0, *(len(feed[self.inputs[0]]) for feed in feeds)])
        outputs = self.run(
            {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        )
        return [
            pb_utils.InferenceResponse(
                output_tensors=[
                    pb_utils.Tensor(
                        name,
                        np.ascontiguousarray(
                            array if len(feeds) == 1 else array[starts[i] : starts[i + 1]]
                        ),
                    )
                    for name, array in zip(self.outputs, outputs, strict=True)
                ]
            )
            for i in range(len(feeds))
        ]


def onnxruntime_model(
    folder: Path, parameters: dict[str, str], outputs: list[str], level: int
) -> Any:
    """`model.onnx` by ONNX Runtime, with the names and numbers of its Triton backend."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "0"))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "0"))
    if level == 2:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: session.run(outputs, feeds)


def openvino_model(folder: Path, parameters: dict[str, str], outputs: list[str], level: int) -> Any:
    """`model.xml` by OpenVINO, with the names and numbers of its Triton backend."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(folder / "model.xml"),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": int(parameters.get("INFERENCE_NUM_THREADS", "0")),
            "INFERENCE_PRECISION_HINT": parameters.get("INFERENCE_PRECISION_HINT", "f32"),
        },
    )
    request = compiled.create_infer_request()

    def run(feeds: dict[str, Any]) -> list[Any]:
        answers = request.infer(feeds)
        return [answers[position] for position in range(len(outputs))]

    return run
