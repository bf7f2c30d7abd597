"""Device memory by NVIDIA's cuda-bindings. Never run on a GPU so far.

Source: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from engineworks.errors import EngineworksError

EVENTS = 4


class CudaDevice:
    """One GPU; see `Device`."""

    captures = True

    def __init__(self, index: int) -> None:
        from cuda.bindings import runtime

        self._cuda = runtime
        self._device: list[int] = []
        self._host: list[int] = []
        self._graph: Any = None
        self._call("cudaSetDevice", index)
        self._stream = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self._events = [self._call("cudaEventCreate") for _ in range(EVENTS)]
        self.stream = int(self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime; every one gives (error, results...)."""
        error, *results = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            raise EngineworksError(
                f"{name} failed: {getattr(error, 'name', error)}",
                hint="see the free memory of the GPU with nvidia-smi; another process may use it",
            )
        return results[0] if results else None

    def allocate(self, size_bytes: int) -> int:
        """See `Device.allocate`."""
        self._device.append(int(self._call("cudaMalloc", size_bytes)))
        return self._device[-1]

    def pinned(self, size_bytes: int) -> np.ndarray[Any, Any]:
        """See `Device.pinned`."""
        flags = self._cuda.cudaHostAllocDefault
        self._host.append(int(self._call("cudaHostAlloc", size_bytes, flags)))
        memory = (ctypes.c_uint8 * size_bytes).from_address(self._host[-1])
        return np.ctypeslib.as_array(memory)

    def to_device(self, address: int, source: np.ndarray[Any, Any]) -> None:
        """See `Device.to_device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(
            "cudaMemcpyAsync", address, source.ctypes.data, source.nbytes, kind, self._stream
        )

    def to_host(self, target: np.ndarray[Any, Any], address: int) -> None:
        """See `Device.to_host`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(
            "cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, self._stream
        )

    def mark(self, event: int) -> None:
        """See `Device.mark`."""
        self._call("cudaEventRecord", self._events[event], self._stream)

    def between_ms(self, first: int, second: int) -> float:
        """See `Device.between_ms`."""
        return float(self._call("cudaEventElapsedTime", self._events[first], self._events[second]))

    def wait(self) -> None:
        """See `Device.wait`."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> None:
        """See `Device.capture`. What other threads do meanwhile does not disturb it."""
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            # The stream must leave this state; that it has recorded nothing is known.
            cuda.cudaStreamEndCapture(self._stream)
            raise
        recorded = self._call("cudaStreamEndCapture", self._stream)
        try:
            runnable = self._call("cudaGraphInstantiate", recorded, 0)
        finally:
            self._call("cudaGraphDestroy", recorded)
        self._forget_graph()
        self._graph = runnable

    def replay(self) -> None:
        """See `Device.replay`."""
        self._call("cudaGraphLaunch", self._graph, self._stream)

    def _forget_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._call("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """See `Device.close`."""
        self._forget_graph()
        while self._device:
            self._call("cudaFree", self._device.pop())
        while self._host:
            self._call("cudaFreeHost", self._host.pop())
        while self._events:
            self._call("cudaEventDestroy", self._events.pop())
        if self._stream is not None:
            self._call("cudaStreamDestroy", self._stream)
            self._stream = None


def open_device(index: int) -> CudaDevice:
    """The GPU of a number."""
    return CudaDevice(index)
