"""ONNX Runtime sessions on an NVIDIA GPU, which refuse to be on the CPU instead.

`get_available_providers` lists CUDA on machines without a GPU, and a session falls back without
a word; only the session's own providers are proof. Source:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError, EngineworksError, said
from engineworks.manifest import Manifest, TensorSpec
from engineworks.runtime import failures
from engineworks.runtime.engines.onnxruntime import QUIET, OnnxRuntimeSession
from engineworks.runtime.session import Tensors

PROVIDER = "CUDAExecutionProvider"

ON_GPU = True
EXTRA = "onnxruntime-gpu"

#: The provider's options that an engine may carry; `enable_cuda_graph` in older ones.
SETTINGS = frozenset(
    {"arena_extend_strategy", "cudnn_conv_algo_search", "use_tf32", "gpu_mem_limit",
     "enable_cuda_graph"}
)  # fmt: skip

#: Shapes that are recorded; ONNX Runtime keeps every graph until its session ends.
GRAPHS = 8

Feeds = Mapping[str, np.ndarray[Any, Any]]


class Traffic:
    """Many may run together, but who records is alone.

    While CUDA records for ONNX Runtime, no other thread of the process may ask for memory
    (`cudaStreamCaptureModeGlobal`); the sessions of a `SessionPool` would void each
    other's graphs.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._running = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run beside others, when nobody records."""
        with self._change:
            self._running += 1
        try:
            yield
        finally:
            with self._change:
                self._running -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody runs, and let nobody begin."""
        with self._change:
            self._change.wait_for(lambda: self._running == 0)
            yield


TRAFFIC = Traffic()


@dataclass(frozen=True)
class _Bound:
    """One shape's memory on the device, and the graph that was recorded with it."""

    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: Any


class OnnxRuntimeCudaSession(OnnxRuntimeSession):
    """One `InferenceSession` with the CUDA provider.

    Args:
        folder: The engine's.
        manifest: Its manifest.
        threads: CPU threads.
        device: Number of the GPU.
        recorded: Run by CUDA graphs. For proofs on a GPU alone: no recipe gets it (`targets`).
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int,
        device: int = 0,
        *,
        recorded: bool = False,
    ) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(QUIET)  # before anything looks for devices
        if hasattr(ort, "preload_dlls"):  # CUDA and cuDNN out of NVIDIA's wheels
            ort.preload_dlls()
        self.manifest = manifest
        provider = {
            **self.settings("provider", SETTINGS),
            "device_id": str(device),
            # Whatever an engine of an older version says: its recordings were not proven.
            "enable_cuda_graph": "1" if recorded else "0",
        }
        limit = provider.get("gpu_mem_limit")
        self.gpu = failures.OnGpu(
            device=device,
            option="options.memory_limit_mib",
            limit_mib=int(limit) // 2**20 if limit else None,
        )
        super().__init__(folder, manifest, threads, providers=((PROVIDER, provider),))
        running = self._session.get_providers()
        if PROVIDER not in running:
            raise ArtifactError(
                f"{manifest.name} would run on {', '.join(running)}: {PROVIDER} did not start",
                hint="check driver, CUDA and cuDNN with `engineworks host`, or take an engine of "
                "onnxruntime-cpu",
            )
        self._recorder: GraphRecorder | None = None
        if recorded:
            self._recorder = GraphRecorder(self._session, self.inputs, self.outputs, "cuda", device)
            self.reuses_outputs = True

    def infer(self, feeds: Feeds) -> Tensors:
        """See `Session.infer`."""
        if self._recorder is None:
            return super().infer(feeds)
        self.check(feeds)
        try:
            return self._recorder.infer(feeds)
        except EngineworksError:
            raise  # has words of its own
        except Exception as error:
            raise self.failure(error, feeds) from error

    def close(self) -> None:
        """Free the session's memory."""
        self._recorder = None
        super().close()


class GraphRecorder:
    """Runs a session by CUDA graphs, one for each shape: ONNX Runtime records a shape's first run.

    A graph wants its inputs and outputs at fixed addresses, so both lie in memory of the device
    that is bound once for each shape. Beyond `GRAPHS` shapes a run is an ordinary one. Answers are
    valid until the next call.

    Args:
        session: An `onnxruntime.InferenceSession`.
        inputs: The engine's.
        outputs: The engine's.
        place: ONNX Runtime's name of the device, "cuda".
        device: Its number.

    Raises:
        ArtifactError: An output's shape does not follow from those of the inputs.
    """

    def __init__(
        self, session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...],
        place: str, device: int,
    ) -> None:  # fmt: skip
        import onnxruntime as ort

        # "?" is a size without a name, of which nothing follows.
        known = {size for spec in inputs for size in spec.shape} - {"?"}
        for spec in outputs:
            open_sizes = [n for n in spec.shape if not isinstance(n, int) and n not in known]
            if open_sizes:
                raise ArtifactError(
                    f"output {spec.name!r} has a size that only running tells ({open_sizes[0]!r} "
                    f"in {list(spec.shape)}), and a CUDA graph needs fixed ones",
                    hint="build it without options.cuda_graph",
                )
        self._ort, self._session = ort, session
        self._inputs, self._outputs = inputs, outputs
        self._place, self._device = place, device
        self._bound: dict[tuple[tuple[int, ...], ...], _Bound] = {}

    def infer(self, feeds: Feeds) -> Tensors:
        """See `Session.infer`; the feeds have been checked.

        Raises:
            ArtifactError: It cannot be recorded, in ONNX Runtime's words.
        """
        names = [spec.name for spec in self._outputs]
        shapes = tuple(feeds[spec.name].shape for spec in self._inputs)
        bound = self._bound.get(shapes)
        if bound is None and len(self._bound) < GRAPHS:
            with TRAFFIC.alone():
                return self._run(self._record(shapes, feeds), feeds)
        with TRAFFIC.together():
            if bound is not None:
                return self._run(bound, feeds)
            unrecorded = self._run_options(-1)
            return dict(zip(names, self._session.run(names, dict(feeds), unrecorded), strict=True))

    def _record(self, shapes: tuple[tuple[int, ...], ...], feeds: Feeds) -> _Bound:
        bound = self._bind(feeds)
        try:
            self._run(bound, feeds)
        except Exception as error:
            raise ArtifactError(
                f"ONNX Runtime cannot record this network as a CUDA graph: {said(error)}",
                hint="build it without options.cuda_graph",
            ) from error
        self._bound[shapes] = bound
        return bound

    def _run(self, bound: _Bound, feeds: Feeds) -> Tensors:
        for name, value in bound.inputs.items():
            value.update_inplace(np.ascontiguousarray(feeds[name]))
        self._session.run_with_iobinding(bound.binding, bound.options)
        return {name: value.numpy() for name, value in bound.outputs.items()}

    def _bind(self, feeds: Feeds) -> _Bound:
        sizes = {
            name: size
            for spec in self._inputs
            for name, size in zip(spec.shape, feeds[spec.name].shape, strict=True)
        }
        inputs = {spec.name: self._memory(spec, sizes) for spec in self._inputs}
        outputs = {spec.name: self._memory(spec, sizes) for spec in self._outputs}
        binding = self._session.io_binding()
        for name, memory in inputs.items():
            binding.bind_ortvalue_input(name, memory)
        for name, memory in outputs.items():
            binding.bind_ortvalue_output(name, memory)
        return _Bound(binding, inputs, outputs, self._run_options(len(self._bound)))

    def _memory(self, spec: TensorSpec, sizes: Mapping[int | str, int]) -> Any:
        """Memory of the device for one tensor, with its open sizes filled in."""
        shape = [sizes.get(size, size) for size in spec.shape]
        dtype = np.dtype(spec.dtype).type
        return self._ort.OrtValue.ortvalue_from_shape_and_type(
            shape, dtype, self._place, self._device
        )

    def _run_options(self, graph: int) -> Any:
        """Options of a run that records or replays the graph of a number; -1: neither."""
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options


def open_session(
    folder: Path, manifest: Manifest, threads: int, device: int = 0
) -> OnnxRuntimeCudaSession:
    """Open an engine of the target `onnxruntime-cuda`."""
    return OnnxRuntimeCudaSession(folder, manifest, threads, device)
