"""TensorRT on the GPU that will run the engine: version 8.6, 10 and 11 through one target.

An engine belongs to the TensorRT, the GPU and the system that built it. Source:
https://docs.nvidia.com/deeplearning/tensorrt/latest/
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.targets._base import BuildInput, BuildOutput, Int8Rules, Target
from engineworks.targets._nvidia import baseline, builder, delivered, settings, timing
from engineworks.targets._nvidia import network as networks
from engineworks.targets._nvidia.api import Api
from engineworks.targets._nvidia.builder import BuiltPlan
from engineworks.targets._nvidia.settings import BuilderSettings

#: Every distribution that may bring the module: NVIDIA's wheels by CUDA, and the system's own.
PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
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


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators that the installed TensorRT's parser does not know."""
    import tensorrt

    return networks.unsupported_operators(Api(tensorrt), onnx)


def check_options(options: Mapping[str, Any]) -> None:
    """See `Target`."""
    settings.check(options)


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    import tensorrt

    checked = settings.read(request.options, request.largest_batch)
    started = time.perf_counter()
    built = builder.build(tensorrt, request, checked, on_device=True)
    version = Api(tensorrt).version
    files, precision, whole_from_s = built.files, built.delivered_precision, 0.0
    if settings.compatibility(checked) and checked.baseline and not request.draft:
        cost = _cost(tensorrt, request, checked, built, time.perf_counter() - started)
        files = {**files, baseline.NAME: baseline.write(cost, request.work)}
        whole_from_s = cost.needs_s
        precision = delivered.with_note(precision, cost.words())
    return BuildOutput(
        files=files,
        entry="engine.plan",
        requires=Requires(runtime="tensorrt", arch=request.host.arch),
        delivered_precision=precision,
        whole_from_s=whole_from_s,
        details={
            "module": "tensorrt",
            "version": version,
            # Any newer version opens a version-compatible engine, others only their own.
            "any_version": checked.version_compatible,
            "gpu": request.host.gpus[0].compute_capability if request.host.gpus else "",
            "any_gpu": checked.hardware_compatible != "none",
            "route": built.route,
            "profile": built.profile,
            **settings.for_session(checked),
        },
    )


def _cost(
    trt: Any, request: BuildInput, checked: BuilderSettings, built: BuiltPlan, took_s: float
) -> baseline.Cost:
    """What compatibility costs: size and time beside those of a plain engine."""

    def build_plain() -> tuple[Path, Callable[[], timing.Timed]]:
        work = request.work / "plain"
        work.mkdir()
        plain = dataclasses.replace(request, work=work, draft=True)
        other = builder.build(trt, plain, settings.plain(checked), on_device=True)
        return other.path, lambda: timing.by_session(other.path, request, other.profile)

    what = f"without {' and '.join(settings.compatibility(checked))}"
    compatible = checked.version_compatible
    return baseline.weigh(
        what, built.path,
        lambda: timing.by_session(built.path, request, built.profile, any_version=compatible),
        build_plain, took_s=took_s, limit_s=request.limit_s,
    )  # fmt: skip


TARGET = Target(
    title="TensorRT, NVIDIA GPUs",
    precisions=("fp32", "fp16", "bf16", "int8"),
    packages=PACKAGES,
    host_bound=True,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    options={**settings.OPTIONS, **settings.ON_DEVICE},
    profiled=True,
    check_options=check_options,
    int8=int8,
)
