"""ONNX Runtime sessions on an NVIDIA GPU, which refuse to be on the CPU instead.

`get_available_providers` lists CUDA on machines without a GPU, and a session falls back without
a word; only the session's own providers are proof. Never run on a GPU so far. Source:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from pathlib import Path

from engineworks.errors import ArtifactError
from engineworks.manifest import Manifest
from engineworks.runtime.engines.onnxruntime import OnnxRuntimeSession

PROVIDER = "CUDAExecutionProvider"

ON_GPU = True


class OnnxRuntimeCudaSession(OnnxRuntimeSession):
    """One `InferenceSession` with the CUDA provider."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int, device: int = 0) -> None:
        import onnxruntime as ort

        if hasattr(ort, "preload_dlls"):  # CUDA and cuDNN out of NVIDIA's wheels
            ort.preload_dlls()
        provider = {**manifest.details.get("provider", {}), "device_id": str(device)}
        super().__init__(folder, manifest, threads, providers=((PROVIDER, provider),))
        running = self._session.get_providers()
        if PROVIDER not in running:
            raise ArtifactError(
                f"{manifest.name} would run on {', '.join(running)}: {PROVIDER} did not start",
                hint="check driver, CUDA and cuDNN with `engineworks host`, or take an engine of "
                "onnxruntime-cpu",
            )


def open_session(
    folder: Path, manifest: Manifest, threads: int, device: int = 0
) -> OnnxRuntimeCudaSession:
    """Open an engine of the target `onnxruntime-cuda`."""
    return OnnxRuntimeCudaSession(folder, manifest, threads, device)
