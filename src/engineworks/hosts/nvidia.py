"""NVIDIA's part of the host card: GPUs, and the libraries that engines depend on.

Asks NVML (nvidia-ml-py), else `nvidia-smi`, else nobody. Loads no CUDA library but the driver's
own for its version, and never raises: what cannot be read stays empty.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

from engineworks.facts.host import Gpu

#: What `nvidia-smi --query-gpu` is asked, in this order.
QUERY = (
    "name", "compute_cap", "memory.total", "driver_version", "power.limit", "clocks.max.sm",
)  # fmt: skip


def present(root: Path = Path("/")) -> bool:
    """Whether a driver for discrete GPUs is loaded; costs nothing."""
    return (root / "dev/nvidiactl").exists()


def gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine; empty without a driver."""
    if not present():
        return ()
    with contextlib.suppress(Exception):  # no package, or a driver that does not answer
        return _by_nvml()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
        return parse_smi(done.stdout)
    return ()


def _by_nvml() -> tuple[Gpu, ...]:
    import pynvml

    def words(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    def figure(ask: Any, *arguments: Any) -> float:
        try:
            return float(ask(*arguments))
        except pynvml.NVMLError:  # not every board tells everything
            return 0.0

    pynvml.nvmlInit()
    try:
        driver = words(pynvml.nvmlSystemGetDriverVersion())
        cards = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
            clock = figure(pynvml.nvmlDeviceGetMaxClockInfo, gpu, pynvml.NVML_CLOCK_SM)
            cards.append(
                Gpu(
                    name=words(pynvml.nvmlDeviceGetName(gpu)),
                    compute_capability=f"{major}.{minor}",
                    memory_mib=int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total) // 2**20,
                    driver=driver,
                    power_limit_w=figure(pynvml.nvmlDeviceGetEnforcedPowerLimit, gpu) / 1000,
                    max_clock_mhz=int(clock),
                )
            )
        return tuple(cards)
    finally:
        pynvml.nvmlShutdown()


def parse_smi(text: str) -> tuple[Gpu, ...]:
    """GPUs from `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`.

    A line with fewer columns is left out; `[N/A]` and the like become 0 or "".
    """
    cards = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(QUERY):
            continue
        name, capability, memory, driver, power, clock = (
            "" if cell.strip().startswith("[") else cell.strip() for cell in row
        )
        cards.append(
            Gpu(
                name=name,
                compute_capability=capability,
                memory_mib=int(_number(memory)),
                driver=driver,
                power_limit_w=_number(power),
                max_clock_mhz=int(_number(clock)),
            )
        )
    return tuple(cards)


def _number(text: str) -> float:
    number = re.match(r"\d{1,12}(\.\d{1,6})?", text)
    return float(number.group()) if number else 0.0


def cuda_version() -> str:
    """Newest CUDA that the driver serves, for example "13.0"; "" without a driver."""
    with contextlib.suppress(OSError, AttributeError):
        driver, version = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        if driver.cuDriverGetVersion(ctypes.byref(version)) == 0:  # needs no initialisation
            return f"{version.value // 1000}.{version.value % 1000 // 10}"
    return ""


def memory_mib(device: int) -> tuple[int, int] | None:
    """Free and whole memory of a GPU, by CUDA's own numbering; None: it cannot be read.

    Asks the driver in this process, whose CUDA it leaves as it was.
    """
    with contextlib.suppress(OSError, AttributeError):
        cuda = ctypes.CDLL("libcuda.so.1")
        handle, context, popped = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(handle), device):
            return None
        if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle):
            return None
        try:
            if cuda.cuCtxPushCurrent_v2(context):
                return None
            failed = cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
            cuda.cuCtxPopCurrent_v2(ctypes.byref(popped))
        finally:
            cuda.cuDevicePrimaryCtxRelease_v2(handle)
        return None if failed else (free.value >> 20, total.value >> 20)
    return None


#: Debian packages of JetPack, DeepStream and NVIDIA's containers -> the library they hold.
_LIBRARIES = {
    "tensorrt": re.compile(r"libnvinfer\d+"),
    "cudnn": re.compile(r"libcudnn\d+(-cuda-\d+)?"),
    "jetpack": re.compile(r"nvidia-jetpack"),
}


def parse_dpkg(text: str) -> dict[str, str]:
    """Versions of TensorRT, cuDNN and JetPack from `/var/lib/dpkg/status`; absent: left out.

    Debian's revision (`-1+cuda12.5`, `+b77`) is cut off.
    """
    versions = {}
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", paragraph, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        for library, pattern in _LIBRARIES.items():
            if pattern.fullmatch(fields.get("Package", "")):
                versions[library] = re.split(r"[-+]", fields.get("Version", ""))[0]
    return versions


def libraries(root: Path = Path("/")) -> dict[str, str]:
    """`parse_dpkg` of this system; empty on others."""
    try:
        return parse_dpkg((root / "var/lib/dpkg/status").read_text("utf-8", errors="replace"))
    except OSError:
        return {}
