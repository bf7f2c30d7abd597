"""Device memory behind one small interface, whichever package brings it.

`open_device` takes cuda-bindings if it is installed, else pycuda. Everything that touches a driver
stands behind `driver_problem`, which asks in a process of its own: NVIDIA's libraries are known to
crash where there is no driver. Knows no engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import numpy as np

from engineworks.errors import ArtifactError, MissingDependency

#: Module that must be there -> file here that drives it, the better first.
BACKENDS = {"cuda.bindings": "cuda_bindings", "pycuda": "pycuda"}

_ASK = """
import ctypes
try:
    driver = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    print(f"there is no NVIDIA driver ({error})")
else:
    code, count = driver.cuInit(0), ctypes.c_int()
    if code == 0:
        code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != 0:
        print(f"the NVIDIA driver does not start (CUDA error {code})")
    elif count.value == 0:
        print("the NVIDIA driver finds no GPU")
"""


@dataclass(frozen=True, kw_only=True)
class DeviceTimes:
    """Where the time of one inference went, by the GPU's own clock."""

    to_device_ms: float
    compute_ms: float
    to_host_ms: float


class Device(Protocol):
    """One GPU: memory, a stream, and events to time with. Not for several threads at once."""

    stream: int
    """Handle of the stream that everything below runs on."""
    captures: bool
    """Whether it can record CUDA graphs."""

    def allocate(self, size_bytes: int) -> int:
        """Device memory; gives its address."""
        ...

    def pinned(self, size_bytes: int) -> np.ndarray[Any, Any]:
        """Page-locked host memory as uint8 (size_bytes,), which copies without a detour."""
        ...

    def to_device(self, address: int, source: np.ndarray[Any, Any]) -> None:
        """Copy from pinned memory, in the stream's order."""
        ...

    def to_host(self, target: np.ndarray[Any, Any], address: int) -> None:
        """Copy into pinned memory, in the stream's order."""
        ...

    def mark(self, event: int) -> None:
        """Record event number 0..3 in the stream."""
        ...

    def between_ms(self, first: int, second: int) -> float:
        """Milliseconds between two events that have happened."""
        ...

    def wait(self) -> None:
        """Wait for the stream."""
        ...

    def capture(self, work: Callable[[], None]) -> None:
        """Record what `work` queues in the stream as a CUDA graph, instead of doing it.

        A device keeps one graph: recording another one frees it.

        Raises:
            EngineworksError: Something in `work` cannot be recorded; with CUDA's word.
        """
        ...

    def replay(self) -> None:
        """Queue all that was recorded, in one call."""
        ...

    def close(self) -> None:
        """Free everything that this object gave out; a second call does nothing."""
        ...


@cache
def driver_problem() -> str:
    """Why CUDA cannot be used on this machine, in words; "" when it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return "the NVIDIA driver does not answer"
    if done.returncode != 0:
        return f"the NVIDIA driver crashes (exit code {done.returncode})"
    return done.stdout.strip()


def require_driver(what: str) -> None:
    """Refuse what needs a GPU where there is none.

    Raises:
        ArtifactError: Says what the driver said.
    """
    problem = driver_problem()
    if problem:
        raise ArtifactError(
            f"{what} needs an NVIDIA GPU: {problem}",
            hint="open it on a machine with a GPU; `engineworks host` shows what is here",
        )


def open_device(index: int = 0) -> Device:
    """The GPU of a number.

    Raises:
        ArtifactError: There is no driver.
        MissingDependency: Neither package is installed.
    """
    require_driver("device memory")
    for module, file in BACKENDS.items():
        try:
            module_spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            module_spec = None
        if module_spec is not None:
            backend = importlib.import_module(f"engineworks.runtime.devices.{file}")
            return cast(Callable[[int], Device], backend.open_device)(index)
    raise MissingDependency(
        "device memory needs cuda-bindings or pycuda",
        hint="pip install 'engineworks[tensorrt]' or 'engineworks[tensorrt-rtx]'",
    )
