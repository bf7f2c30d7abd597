"""ONNX Runtime sessions on an NVIDIA GPU, which refuse to be on the CPU instead.

`get_available_providers` lists CUDA on machines without a GPU, and a session falls back without
a word; only the session's own providers are proof. Never run on a GPU so far. Source:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError
from engineworks.manifest import Manifest
from engineworks.runtime.session import SessionBase, Tensors

PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaSession(SessionBase):
    """One `InferenceSession` with the CUDA provider."""

    reuses_outputs = False

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        import onnxruntime as ort

        super().__init__(manifest)
        if hasattr(ort, "preload_dlls"):  # CUDA and cuDNN out of NVIDIA's wheels
            ort.preload_dlls()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # The file is the graph after optimisation: what was checked is what runs.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        provider = dict(manifest.details.get("provider", {}))
        self._session = ort.InferenceSession(
            str(folder / manifest.entry), options, providers=[(PROVIDER, provider)]
        )
        if PROVIDER not in self._session.get_providers():
            raise ArtifactError(
                f"{manifest.name} would run on {', '.join(self._session.get_providers())}: "
                f"{PROVIDER} did not start",
                hint="check driver, CUDA and cuDNN with `engineworks host`, or take an engine of "
                "onnxruntime-cpu",
            )
        self._names = [spec.name for spec in self.outputs]

    def __enter__(self) -> OnnxRuntimeCudaSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`."""
        self.check(feeds)
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))

    def close(self) -> None:
        """Free the session's memory."""
        self._session = None


def open_session(folder: Path, manifest: Manifest, threads: int) -> OnnxRuntimeCudaSession:
    """Open an engine of the target `onnxruntime-cuda`."""
    return OnnxRuntimeCudaSession(folder, manifest, threads)
