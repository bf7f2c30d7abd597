"""What a vendor's runtime says when it fails while it runs, in words that tell what to do.

Reads the vendors' sentences; knows no engine and no vendor package. CUDA's errors after which a
process must end: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.errors import InferenceError, said
from engineworks.hosts import nvidia

Feeds = Mapping[str, np.ndarray[Any, Any]]

#: Too little memory; what follows in the vendor's sentence is kept, sizes stand there.
_SHORT = re.compile(
    r"(Available memory of|Failed to allocate memory|CUDA (?:failure|error) 2\b|out of memory"
    r"|cudaErrorMemoryAllocation|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED|bad_alloc"
    r"|bad allocation|can(?:not|'t) allocate|could not allocate)[^\n;]{0,160}",
    re.IGNORECASE,
)
#: The machine's own memory, whoever asked for it.
_HOST = re.compile(r"bad_alloc|bad allocation", re.IGNORECASE)
#: Errors that leave CUDA unusable until the process ends: 214, 700, 702, 709 to 719.
_LOST = re.compile(
    r"CUDA (?:failure|error):? ?(?:214|70[029]|71\d)\b|illegal memory access|illegal instruction"
    r"|misaligned address|unspecified launch failure|device-side assert|uncorrectable ECC"
    r"|cudaError(?:IllegalAddress|LaunchFailure|LaunchTimeout|Assert|IllegalInstruction"
    r"|MisalignedAddress|HardwareStackError|InvalidAddressSpace|InvalidPc|ECCUncorrectable"
    r"|ContextIsDestroyed)",
    re.IGNORECASE,
)
#: The input itself was refused, before anything ran.
_REFUSED = re.compile(r"INVALID_ARGUMENT")
#: One operation could not be done with these shapes or values; on a CPU the next call is as before.
_UNDONE = re.compile(r"Non-zero status code returned while running")


@dataclass(frozen=True, kw_only=True)
class OnGpu:
    """Where a session runs."""

    device: int
    option: str = ""
    """The recipe's option that limits its memory; "": there is none."""
    limit_mib: int | None = None
    """What that option was when the engine was built; None: not set."""

    def memory(self) -> str:
        """The limit and what is free, in words."""
        limit = f"{self.option} is {self.limit_mib or 'not set'}, " if self.option else ""
        sizes_mib = nvidia.memory_mib(self.device)
        if sizes_mib is None:
            return f"{limit}what is free on GPU {self.device} cannot be read"
        return f"{limit}{sizes_mib[0]} of {sizes_mib[1]} MiB are free on GPU {self.device}"


def reason(error: Exception, gpu: OnGpu | None = None, *, batch: bool) -> tuple[str, str] | None:
    """What an error of a runtime means and the next step; None: its words are not known.

    Args:
        error: What was raised.
        gpu: Where it runs; None: on the CPU.
        batch: Whether a smaller batch could help.
    """
    message = str(error)
    if _LOST.search(message):
        return (
            f"CUDA is lost for this process ({said(message)})",
            "end the process and start it again: no session of it can go on; if it happens again, "
            "build the engine anew with the default options",
        )
    short = _SHORT.search(message)
    if short is None and not isinstance(error, MemoryError):
        return None
    asked = short.group().strip() if short else "MemoryError"
    smaller = "use a smaller batch, or " if batch else ""
    if gpu is None or _HOST.search(message) or isinstance(error, MemoryError):
        return f"memory ran out: {asked}", f"{smaller}use a machine with more free memory"
    larger = f"build with a larger {gpu.option}"
    other = "end what else uses this GPU (nvidia-smi)"
    return (
        f"GPU memory ran out: {asked}; {gpu.memory()}",
        f"{smaller}{larger if gpu.limit_mib else other}",
    )


def inference_error(
    title: str, feeds: Feeds, error: Exception, gpu: OnGpu | None = None
) -> InferenceError:
    """What a runtime raised while it ran: the batch, the cause, and whether the session can go on.

    Args:
        title: The engine's name for people.
        feeds: What it was given.
        error: What it raised.
        gpu: Where it runs; None: on the CPU.
    """
    known = reason(error, gpu, batch=True)
    if known is not None:
        what, hint = known
        if _LOST.search(str(error)):
            return InferenceError(f"{title}, {came(feeds)}: {what}", hint=hint)
        return _going_on(f"{title}, {came(feeds)}: {what}", hint)
    if _REFUSED.search(str(error)) or (gpu is None and _UNDONE.search(str(error))):
        return _going_on(
            f"{title} refused {came(feeds)}: {said(error)}",
            "give shapes that fit each other (`engineworks inspect`)",
        )
    return InferenceError(
        f"{title} failed with {came(feeds)} ({type(error).__name__}: {said(error)})",
        hint="open the engine anew: whether this session can go on is not known; if it fails "
        "again, build the engine anew",
    )


def _going_on(message: str, hint: str) -> InferenceError:
    error = InferenceError(message, hint=f"{hint}; this session can go on")
    error.goes_on = True
    return error


def came(feeds: Feeds) -> str:
    """What came in, for people: `a batch of 8 (images 8x3x416x416)`."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, a.shape))}" for name, a in feeds.items())
    rows = {array.shape[0] for array in feeds.values() if array.ndim}
    return f"a batch of {rows.pop()} ({shapes})" if len(rows) == 1 else f"inputs {shapes}"
