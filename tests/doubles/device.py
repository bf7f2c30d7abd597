"""A device of ordinary memory for the double of TensorRT, with a clock of its own."""

from __future__ import annotations

import ctypes
from typing import Any

from tests.doubles.tensorrt import Behaviour


class NumpyDevice:
    """`engineworks.runtime.devices.Device` in ordinary memory; counts what is not given back."""

    stream = 7
    captures = True

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.marks: dict[int, float] = {}
        self.graph: list[Any] = []
        self.recorded = self.replays = 0
        self.closed = False

    def allocate(self, size_bytes: int) -> int:
        buffer = (ctypes.c_uint8 * size_bytes)()
        self.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def pinned(self, size_bytes: int) -> Any:
        import numpy as np

        return np.zeros(size_bytes, np.uint8)

    def to_device(self, address: int, source: Any) -> None:
        assert address in self.memory
        assert source.nbytes <= len(self.memory[address])
        ctypes.memmove(address, source.ctypes.data, source.nbytes)
        Behaviour.clock_ms += 1.0

    def to_host(self, target: Any, address: int) -> None:
        assert target.nbytes <= len(self.memory[address])
        ctypes.memmove(target.ctypes.data, address, target.nbytes)
        Behaviour.clock_ms += 1.0

    def mark(self, event: int) -> None:
        self.marks[event] = Behaviour.clock_ms

    def between_ms(self, first: int, second: int) -> float:
        return self.marks[second] - self.marks[first]

    def wait(self) -> None:
        pass

    def capture(self, work: Any) -> None:
        Behaviour.recording = []
        try:
            work()
            self.graph, self.recorded = Behaviour.recording, self.recorded + 1
        finally:
            Behaviour.recording = None

    def replay(self) -> None:
        self.replays += 1
        for run in self.graph:
            run()

    def close(self) -> None:
        self.memory.clear()
        self.closed = True
