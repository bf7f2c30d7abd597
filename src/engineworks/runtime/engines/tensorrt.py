"""TensorRT sessions: of `tensorrt` 8.5 to 11 and of `tensorrt_rtx`, on one GPU.

Tensors are named, host buffers are pinned, and everything runs in one stream; a shape inside the
optimization profile may change from call to call. Never run on a GPU so far: proven against
doubles of the vendor's API only. Source:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError, EngineworksError, FeedError, MissingDependency
from engineworks.hosts import nvidia
from engineworks.manifest import Manifest, TensorSpec
from engineworks.runtime import devices
from engineworks.runtime.devices import Device, DeviceTimes
from engineworks.runtime.failures import OnGpu
from engineworks.runtime.session import SessionBase, Tensors

log = logging.getLogger(__name__)

ON_GPU = True
EXTRA = "tensorrt"


@dataclass(frozen=True)
class _Buffer:
    """Memory of one tensor, as large as the profile's largest shape."""

    address: int
    host: np.ndarray[Any, Any]
    """uint8, pinned."""

    def view(self, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The first bytes as a tensor of a shape."""
        dtype = np.dtype(spec.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return self.host[:size].view(dtype).reshape(shape)


class TensorRtSession(SessionBase):
    """One execution context with buffers of its own. Use it from one thread at a time."""

    def __init__(self, folder: Path, manifest: Manifest, device: int) -> None:
        super().__init__(manifest)
        # NVIDIA's runtime crashes without a driver, so nothing of it is called before this.
        devices.require_driver(f"{manifest.target}/{manifest.precision}")
        module = str(manifest.details.get("module", "tensorrt"))
        trt = _import(module)
        check_engine(manifest, str(trt.__version__), device)
        self.gpu = OnGpu(device=device)
        self._device: Device | None = devices.open_device(device)
        try:
            self._open(trt, folder / manifest.entry)
        except BaseException:
            self.close()
            raise

    def _open(self, trt: Any, path: Path) -> None:
        self._trt = trt
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)
        if self.manifest.details.get("any_version"):
            # Such a plan brings its own lean runtime, which is code; its bytes were verified.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ArtifactError(
                f"{path} is refused by TensorRT {trt.__version__} on this GPU",
                hint="build this variant on this machine",
            )
        self._captures = bool(self.manifest.details.get("cuda_graph"))
        self._settled = self._captured = False
        self._context = self._new_context(trt)
        self.limits = {spec.name: self._limits(spec) for spec in self.inputs}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for spec in self.inputs:
            self._set_shape(spec.name, self.limits[spec.name][1])
        device = self._device
        assert device is not None  # noqa: S101 - opened by the caller
        self._buffers = {}
        for spec in (*self.inputs, *self.outputs):
            largest = self._shape(spec.name)
            size = int(np.prod(largest)) * np.dtype(spec.dtype).itemsize
            self._buffers[spec.name] = _Buffer(device.allocate(size), device.pinned(size))
            self._context.set_tensor_address(spec.name, self._buffers[spec.name].address)

    def _new_context(self, trt: Any) -> Any:
        """An execution context; TensorRT-RTX records CUDA graphs by itself where it is told to."""
        strategies = getattr(trt, "CudaGraphStrategy", None)
        if self._captures and strategies is None and not (self._device and self._device.captures):
            raise MissingDependency(
                "options.cuda_graph needs cuda-bindings: pycuda has no CUDA graphs",
                hint="pip install cuda-bindings, or build without options.cuda_graph",
            )
        if not self._captures or strategies is None:
            return self._engine.create_execution_context()
        self._captures = False  # by us
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(runtime_config=config)

    def _limits(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Smallest and largest shape of an input."""
        shape = tuple(self._engine.get_tensor_shape(spec.name))
        if -1 not in shape:
            return shape, shape
        low, _, high = self._engine.get_tensor_profile_shape(spec.name, 0)
        return tuple(low), tuple(high)

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            raise ValueError(f"input {name!r}: TensorRT refused the shape {list(shape)}")
        self._shapes[name] = shape
        self._settled = self._captured = False

    def check(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """See `SessionBase.check`; refuses shapes outside the optimization profile, too."""
        super().check(feeds)
        for name, (low, high) in self.limits.items():
            shape = feeds[name].shape
            inside = all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
            if not inside:
                raise ValueError(
                    f"input {name!r} must lie between {list(low)} and {list(high)}, the engine's "
                    f"optimization profile, got {list(shape)}"
                )

    def __enter__(self) -> TensorRtSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`. The arrays given back lie in pinned memory."""
        self.check(feeds)
        device = self._device
        if device is None:
            raise FeedError(f"{self.title} is closed", hint="open it anew")
        try:
            return self._run(device, feeds)
        except ArtifactError:
            raise  # has words of its own
        except EngineworksError as error:  # CUDA's
            raise self.failure(error, feeds) from error

    def _run(self, device: Device, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        device.mark(0)
        for spec in self.inputs:
            array, buffer = feeds[spec.name], self._buffers[spec.name]
            self._set_shape(spec.name, array.shape)
            staged = buffer.view(spec, array.shape)
            np.copyto(staged, array)
            device.to_device(buffer.address, staged)
        device.mark(1)
        self._compute(device)
        device.mark(2)
        answers = {}
        for spec in self.outputs:
            answers[spec.name] = self._buffers[spec.name].view(spec, self._shape(spec.name))
            device.to_host(answers[spec.name], self._buffers[spec.name].address)
        device.mark(3)
        device.wait()
        return answers

    def _compute(self, device: Device) -> None:
        """Run the network: by a CUDA graph from the second call with the same shapes on.

        The first call after a change does what TensorRT has put off, which cannot be recorded.
        """
        if not (self._captures and self._settled):
            self._execute(device)
            self._settled = True
            return
        if not self._captured:
            try:
                device.capture(lambda: self._execute(device))
            except EngineworksError as error:
                raise ArtifactError(
                    f"{self.manifest.name} cannot be recorded as a CUDA graph: {error.message}",
                    hint="build it without options.cuda_graph: networks with loops or with shapes "
                    "that only running tells cannot be recorded",
                ) from error
            self._captured = True
        device.replay()

    def _execute(self, device: Device) -> None:
        if not self._context.execute_async_v3(device.stream):
            raise ArtifactError(
                f"TensorRT could not run {self.manifest.name}: {self._logger.last}",
                hint="see the log; build the engine anew on this machine",
            )

    def times(self) -> DeviceTimes:
        """Where the time of the last call went, by CUDA events."""
        if self._device is None:
            raise ValueError("the session is closed")
        return DeviceTimes(
            to_device_ms=self._device.between_ms(0, 1),
            compute_ms=self._device.between_ms(1, 2),
            to_host_ms=self._device.between_ms(2, 3),
        )

    def layer_ms(
        self, feeds: Mapping[str, np.ndarray[Any, Any]], calls: int = 20
    ) -> dict[str, float]:
        """Mean time of each layer of the engine, by the vendor's profiler, in ms.

        The profiler slows the whole down, so the times are for comparing layers; and it stays, so
        this is the last thing to do with a session. Source:
        https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/Profiler.html

        Raises:
            ValueError: As `infer`.
            ArtifactError: TensorRT could not run it with a profiler.
        """
        self._captures = False  # a recorded network reports nothing
        self.infer(feeds)
        device = self._device
        assert device is not None  # noqa: S101 - infer has refused it
        profiler = _profiler(self._trt)
        # In the session's own context: the one optimization profile belongs to it.
        self._context.profiler = profiler
        for _ in range(calls):
            self._execute(device)
            device.wait()
        return {name: total / calls for name, total in profiler.total_ms.items()}

    def close(self) -> None:
        """Free engine and memory, in the order that the vendor wants; twice does nothing."""
        super().close()
        self._buffers = {}
        self._context = self._engine = self._runtime = None
        if self._device is not None:
            self._device.close()
            self._device = None


def _import(module: str) -> Any:
    if module not in ("tensorrt", "tensorrt_rtx"):
        raise ArtifactError(
            f"this engine asks for the module {module!r}", hint="build the engine anew"
        )
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"this engine needs the package {module}",
            hint=f"pip install 'engineworks[{module.replace('_', '-')}]'",
        ) from error


def check_engine(manifest: Manifest, version: str, device: int = 0) -> None:
    """Refuse an engine of another TensorRT or another GPU, before the vendor does so in riddles.

    Raises:
        ArtifactError: Names what the engine was built for and what is here.
    """
    details = manifest.details
    built = str(details.get("version", ""))
    if built and built != version and not details.get("any_version"):
        raise ArtifactError(
            f"{manifest.name} was built with TensorRT {built}, here is {version}",
            hint="use that version, build the variant here, or build it with "
            "options: {version_compatible: true}",
        )
    gpu = str(details.get("gpu", ""))
    here = [card.compute_capability for card in nvidia.gpus()]
    if here and not 0 <= device < len(here):
        raise ArtifactError(
            f"there is no GPU {device}: this machine has {len(here)}",
            hint=f"use a number from 0 to {len(here) - 1}",
        )
    if gpu and here and gpu != here[device] and not details.get("any_gpu"):
        raise ArtifactError(
            f"{manifest.name} was built for a GPU of compute capability {gpu}, GPU {device} here "
            f"has {here[device]}",
            hint="build this variant on this kind of GPU, or with options.hardware_compatible",
        )


@cache
def _logger(trt: Any) -> Any:
    """One logger for the life of the process: TensorRT keeps the first it is given for ever."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Hands what matters to Python's logging, and remembers the last of it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "it gave no reason"

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                self.last = message.splitlines()[0] if message else self.last
                log.warning("%s", message)

    return Logger()


def _profiler(trt: Any) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        """Sums what the vendor reports after each inference."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.total_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.total_ms[layer_name] = self.total_ms.get(layer_name, 0.0) + ms

    return Profiler()


def open_session(
    folder: Path, manifest: Manifest, threads: int, device: int = 0
) -> TensorRtSession:
    """Open an engine of the targets `tensorrt`, `tensorrt-rtx` and `jetson`."""
    return TensorRtSession(folder, manifest, device)
