"""The host card: what this machine can build and run, read from the machine itself.

Standard library only. Knows Linux, macOS and Windows names; GPUs and Jetsons are read by
`nvidia.py` and `jetson.py`.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from engineworks.facts.host import HostCard
from engineworks.hosts import jetson, nvidia

#: Distributions that change what a stage produces.
PACKAGES = (
    "engineworks",
    "numpy",
    "torch",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-cu12",
    "tensorrt-rtx-cu13",
    "coremltools",
    "opencv-python-headless",
    "pycocotools",
)

#: Instruction sets that runtimes choose kernels by. An engine saved after such a choice is only
#: opened where they are all present.
CPU_FLAGS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx_vnni",
    "avx512_fp16",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
)


def cores() -> int:
    """CPUs that this process may use (respects affinity, unlike `os.cpu_count`)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> tuple[str, ...]:
    """Those of `CPU_FLAGS` that this CPU has; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    for line in text.splitlines():
        if line.lower().startswith(("flags", "features")):
            present = set(line.split(":", 1)[1].split())
            return tuple(flag for flag in CPU_FLAGS if flag in present)
    return ()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_mib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return 0


def versions(*names: str) -> dict[str, str]:
    """Installed versions of distributions; absent ones are left out."""
    installed = {}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def probe() -> HostCard:
    """Read this machine's card."""
    libraries = nvidia.libraries() if nvidia.present() or jetson.probe() else {}
    return HostCard(
        name=platform.node(),
        os=f"{platform.system()} {platform.release().split('-')[0]}",
        arch=platform.machine(),
        python=platform.python_version(),
        cpu=_cpu_name(),
        cores=cores(),
        cpu_flags=cpu_flags(),
        memory_mib=_memory_mib(),
        packages=versions(*PACKAGES),
        gpus=nvidia.gpus(),
        jetson=jetson.probe(jetpack=libraries.get("jetpack", "")),
        cuda=nvidia.cuda_version(),
        tensorrt=libraries.get("tensorrt", ""),
        cudnn=libraries.get("cudnn", ""),
    )
