"""TensorRT on the GPU that will run the engine: version 8.6, 10 and 11 through one target.

An engine belongs to the TensorRT, the GPU and the system that built it. Source:
https://docs.nvidia.com/deeplearning/tensorrt/latest/
"""

from __future__ import annotations

from pathlib import Path

from engineworks.manifest import Requires
from engineworks.targets._base import BuildInput, BuildOutput, Int8Rules
from engineworks.targets._nvidia import builder, settings
from engineworks.targets._nvidia import network as networks
from engineworks.targets._nvidia.api import Api
from engineworks.values import HostCard

TITLE = "TensorRT, NVIDIA GPUs"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
#: Every distribution that may bring the module: NVIDIA's wheels by CUDA, and the system's own.
PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
HOST_BOUND = True
PROFILED = True
OPTIONS = {**settings.OPTIONS, **settings.ON_DEVICE}


def missing(host: HostCard) -> str:
    """See `Target.missing`."""
    if not set(PACKAGES) & set(host.packages):
        return (
            "needs the package tensorrt (pip install 'engineworks[tensorrt]', or NVIDIA's system "
            "package)"
        )
    if not host.gpus:
        return "needs an NVIDIA GPU and its driver: TensorRT builds on the GPU that will run it"
    return ""


def int8(host: HostCard) -> Int8Rules:
    """Symmetric activations, float biases.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/
    work-quantized-types.html
    """
    return Int8Rules(scheme=builder.SCHEME)


def lacking(onnx: Path) -> tuple[str, ...]:
    """Operators that the installed TensorRT's parser does not know."""
    import tensorrt

    return networks.lacking(Api(tensorrt), onnx)


def build(request: BuildInput) -> BuildOutput:
    """See `Target.build`."""
    import tensorrt

    checked = settings.read(request.options, request.largest_batch)
    made = builder.build(tensorrt, request, checked, on_device=True)
    version = Api(tensorrt).version
    return BuildOutput(
        files=made.files,
        entry="engine.plan",
        requires=Requires(runtime="tensorrt", arch=request.host.arch),
        truth=made.truth,
        details={
            "module": "tensorrt",
            "version": version,
            # Any newer version opens a version-compatible engine, others only their own.
            "any_version": checked.version_compatible,
            "gpu": request.host.gpus[0].compute_capability if request.host.gpus else "",
            "any_gpu": checked.hardware_compatible != "none",
            "route": made.route,
            "profile": made.profile,
            **settings.for_session(checked),
        },
    )
