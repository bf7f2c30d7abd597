"""OpenVINO sessions on the CPU.

Source: https://docs.openvino.ai/2025/api/ie_python_api/api.html
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import hosts
from engineworks.manifest import Manifest
from engineworks.runtime.session import SessionBase, Tensors

EXTRA = "openvino"

#: Held while OpenVINO's Python layer makes its tables of types, see `_make_tables`.
_MAKING = threading.Lock()


class OpenVinoSession(SessionBase):
    """One compiled model with one infer request, tuned for latency."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        import openvino as ov

        super().__init__(manifest)
        with _MAKING:
            _make_tables(ov)
        core = ov.Core()
        config = self.settings("compile", {"INFERENCE_PRECISION_HINT"})
        compiled = core.compile_model(
            core.read_model(folder / manifest.entry),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                # Sessions that share the cores would all be pinned to the first ones.
                "ENABLE_CPU_PINNING": threads >= hosts.cores(),
                **config,
            },
        )
        self.hold_to(
            {
                self._declared(port.names): [
                    size.get_length() if size.is_static else None for size in port.partial_shape
                ]
                for port in compiled.inputs
            },
            outputs=len(compiled.outputs),
        )
        self._request = compiled.create_infer_request()
        self._names = [spec.name for spec in self.outputs]

    def _declared(self, names: set[str]) -> str:
        """The name of an input that the manifest knows it by.

        Where operators behind an input cancel each other out (a transpose and its reverse),
        OpenVINO drops them and lets the input answer to the names of all their tensors.
        """
        return next(
            (spec.name for spec in self.inputs if spec.name in names), min(names, default="")
        )

    def __enter__(self) -> OpenVinoSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`."""
        self.check(feeds)
        try:
            results = self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        except Exception as error:
            raise self.failure(error, feeds) from error
        return {name: results[index] for index, name in enumerate(self._names)}

    def close(self) -> None:
        """Free the compiled model."""
        super().close()
        self._request = None


def _make_tables(ov: Any) -> None:
    """Have OpenVINO make its table of NumPy types before two threads can ask for it at once.

    `Type.to_dtype`, which every `infer` calls, makes it at its first call, as a C++ static: whoever
    comes first holds C++'s lock and lets the interpreter go to another thread, which then holds the
    interpreter and waits for that lock: neither goes on, for ever. Seen with 2026.4.1, in 3 of 20
    processes whose two sessions did their first inference together.
    """
    ov.Type.f32.to_dtype()
    assert ov.Tensor(np.zeros(1, np.float32), shared_memory=True).data.size  # noqa: S101


def open_session(folder: Path, manifest: Manifest, threads: int) -> OpenVinoSession:
    """Open an engine of the target `openvino`."""
    return OpenVinoSession(folder, manifest, threads)
