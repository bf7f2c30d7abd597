"""Device memory by pycuda. Never run on a GPU so far.

Source: https://documen.tician.de/pycuda/driver.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engineworks.errors import MissingDependency

EVENTS = 4


class PyCudaDevice:
    """One GPU through its primary context, which other CUDA libraries share; see `Device`."""

    captures = False

    def __init__(self, index: int) -> None:
        import pycuda.driver as driver

        driver.init()
        self._driver = driver
        self._context = driver.Device(index).retain_primary_context()
        self._context.push()
        self._stream = driver.Stream()
        self._events = [driver.Event() for _ in range(EVENTS)]
        self._memory: dict[int, Any] = {}
        self._host: list[Any] = []
        self.stream = int(self._stream.handle)

    def allocate(self, size_bytes: int) -> int:
        """See `Device.allocate`."""
        memory = self._driver.mem_alloc(size_bytes)
        self._memory[int(memory)] = memory
        return int(memory)

    def pinned(self, size_bytes: int) -> np.ndarray[Any, Any]:
        """See `Device.pinned`."""
        array: np.ndarray[Any, Any] = self._driver.pagelocked_empty(size_bytes, np.uint8)
        self._host.append(array)
        return array

    def to_device(self, address: int, source: np.ndarray[Any, Any]) -> None:
        """See `Device.to_device`."""
        self._driver.memcpy_htod_async(address, source, self._stream)

    def to_host(self, target: np.ndarray[Any, Any], address: int) -> None:
        """See `Device.to_host`."""
        self._driver.memcpy_dtoh_async(target, address, self._stream)

    def mark(self, event: int) -> None:
        """See `Device.mark`."""
        self._events[event].record(self._stream)

    def between_ms(self, first: int, second: int) -> float:
        """See `Device.between_ms`."""
        return float(self._events[second].time_since(self._events[first]))

    def wait(self) -> None:
        """See `Device.wait`."""
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> None:
        """See `Device.capture`. pycuda has no CUDA graphs."""
        raise MissingDependency(
            "CUDA graphs need cuda-bindings: pycuda has none", hint="pip install cuda-bindings"
        )

    def replay(self) -> None:
        """See `Device.replay`. There is nothing to replay."""

    def close(self) -> None:
        """See `Device.close`."""
        for memory in self._memory.values():
            memory.free()
        self._memory.clear()
        self._host.clear()
        self._events.clear()
        if self._context is not None:
            self._stream = None
            self._context.pop()
            self._context.detach()
            self._context = None


def open_device(index: int) -> PyCudaDevice:
    """The GPU of a number."""
    return PyCudaDevice(index)
