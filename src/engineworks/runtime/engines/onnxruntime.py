"""ONNX Runtime sessions on the CPU.

Source: https://onnxruntime.ai/docs/api/python/api_summary.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.manifest import Manifest
from engineworks.runtime.session import SessionBase, Tensors

EXTRA = "onnxruntime"

CPU = "CPUExecutionProvider"

#: Severity from which ONNX Runtime writes to the console. Fatal: what fails is raised in any case,
#: and its warnings (placement, copies, devices that it looked for) say nothing to whoever runs.
QUIET = 4


class OnnxRuntimeSession(SessionBase):
    """One `InferenceSession`, with the CPU provider unless others are given."""

    reuses_outputs = False

    def __init__(
        self, folder: Path, manifest: Manifest, threads: int, providers: tuple[Any, ...] = (CPU,)
    ) -> None:
        import onnxruntime as ort

        super().__init__(manifest)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        ort.set_default_logger_severity(QUIET)
        if manifest.details.get("optimized"):
            # The file is the graph after optimisation: what was checked is what runs.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(
            str(folder / manifest.entry), options, providers=list(providers)
        )
        self.hold_to(
            {node.name: node.shape for node in self._session.get_inputs()},
            outputs=len(self._session.get_outputs()),
        )
        self._names = [spec.name for spec in self.outputs]

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`."""
        self.check(feeds)
        try:
            answers = self._session.run(self._names, dict(feeds))
        except Exception as error:
            raise self.failure(error, feeds) from error
        return dict(zip(self._names, answers, strict=True))

    def close(self) -> None:
        """Free the session's memory."""
        super().close()
        self._session = None


def open_session(folder: Path, manifest: Manifest, threads: int) -> OnnxRuntimeSession:
    """Open an engine of the target `onnxruntime-cpu`."""
    return OnnxRuntimeSession(folder, manifest, threads)
