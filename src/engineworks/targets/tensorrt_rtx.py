"""TensorRT for RTX: engines for the GPUs of PCs and workstations, built on any machine.

The builder needs neither a GPU nor a driver; the kernels are finished on the machine that opens
the engine. Without a GPU an engine can be built and not opened, so its variant waits. Source:
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.targets._base import (
    BuildInput,
    BuildOutput,
    Int8Rules,
    Target,
    missing_package,
    package_version,
)
from engineworks.targets._nvidia import builder, settings
from engineworks.targets._nvidia import network as networks
from engineworks.targets._nvidia.api import Api

PACKAGES = ("tensorrt-rtx-cu13",)

#: Compute capabilities that version 1.7 lists; the GPUs of data centres (9.0, 10.0) are not there.
RUNS_ON = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    return missing_package(host, PACKAGES[0], "tensorrt-rtx")


def cannot_run(host: HostCard) -> str:
    """See `Target`."""
    if any(gpu.compute_capability in RUNS_ON for gpu in host.gpus):
        return ""
    return f"an RTX GPU (compute capability {', '.join(RUNS_ON)})"


def int8(host: HostCard) -> Int8Rules:
    """Symmetric activations, float biases.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/
    work-quantized-types.html
    """
    return Int8Rules(scheme=builder.SCHEME)


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators that the parser of TensorRT-RTX does not know."""
    import tensorrt_rtx

    return networks.unsupported_operators(Api(tensorrt_rtx), onnx)


def check_options(options: Mapping[str, Any]) -> None:
    """See `Target`."""
    settings.check(options)
    _gpus(options)


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    import tensorrt_rtx

    asked = _gpus(request.options)

    def adjust(api: Api, config: Any, network: Any) -> None:
        if asked:
            config.num_compute_capabilities = len(asked)
        for index, name in enumerate(asked):
            capability = getattr(api.trt.ComputeCapability, f"SM{name.replace('.', '')}")
            config.set_compute_capability(capability, index)

    checked = settings.read(request.options, request.largest_batch)
    built = builder.build(tensorrt_rtx, request, checked, adjust=adjust)
    return BuildOutput(
        files=built.files,
        entry="engine.plan",
        requires=Requires(runtime="tensorrt", package=package_version(PACKAGES[0])),
        delivered_precision=built.delivered_precision,
        details={
            "module": "tensorrt_rtx",
            "profile": built.profile,
            "gpus": list(asked),
            **settings.for_session(checked),
        },
    )


def _gpus(options: Mapping[str, Any]) -> tuple[str, ...]:
    value = options.get("gpus", [])
    known = isinstance(value, list) and all(str(item) in RUNS_ON for item in value)
    if not known:
        raise BuildError(
            f"options.gpus: {value!r} is not a list of compute capabilities of RTX GPUs",
            hint=f"choose from: {', '.join(RUNS_ON)}",
        )
    return tuple(str(item) for item in value)


TARGET = Target(
    title="TensorRT for RTX GPUs",
    precisions=("fp32", "fp16", "bf16", "int8"),
    packages=PACKAGES,
    # A plan opens on every RTX GPU that it has kernels for, on Linux and on Windows.
    host_bound=False,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    options={
        **settings.OPTIONS,
        "gpus": "list of compute capabilities such as ['7.5']: for these only; default: 8.0, 8.6, "
        "8.9, 12.0 and later",
    },
    # Its engines have an optimization profile, which must reach the recipe's largest batch.
    profiled=True,
    check_options=check_options,
    int8=int8,
    cannot_run=cannot_run,
)
