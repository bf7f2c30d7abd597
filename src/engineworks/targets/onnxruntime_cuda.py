"""ONNX Runtime on an NVIDIA GPU: the CUDA execution provider, and no silent fall-back to the CPU.

The package onnxruntime-gpu owns the same folder as onnxruntime, so the two exclude each other: this
target lives in an environment of its own. Source:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, said
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.runtime import failures
from engineworks.runtime.engines.onnxruntime import QUIET
from engineworks.targets import _half, _onnx
from engineworks.targets._base import (
    GRAPH_REFUSED,
    UNREAD,
    BuildInput,
    BuildOutput,
    Target,
    missing_package,
    package_version,
)

PACKAGES = ("onnxruntime-gpu",)
OPTIONS = {
    "memory_limit_mib": "most GPU memory that the arena may take; default: no limit",
    "arena": "same_as_requested (default: grows by what is needed) or next_power_of_two",
    "cudnn_search": "exhaustive (default), heuristic or default: how convolutions are chosen",
    "tf32": "true: float32 products may round to 10 bits of mantissa; default false",
    "cuda_graph": "false; true is refused: recordings are not proven on any GPU yet, and one of "
    "YOLOX-Nano ended in an illegal memory access (docs/nvidia.md)",
}

PROVIDER = "CUDAExecutionProvider"

#: Option -> the provider's name for it, and its values; the first is the default.
CHOICES: dict[str, tuple[str, dict[str | bool, str]]] = {
    "arena": (
        "arena_extend_strategy",
        {"same_as_requested": "kSameAsRequested", "next_power_of_two": "kNextPowerOfTwo"},
    ),
    "cudnn_search": (
        "cudnn_conv_algo_search",
        {"exhaustive": "EXHAUSTIVE", "heuristic": "HEURISTIC", "default": "DEFAULT"},
    ),
    "tf32": ("use_tf32", {False: "0", True: "1"}),
}


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    reason = missing_package(host, PACKAGES[0], "onnxruntime-gpu")
    if reason:
        return f"{reason}, in an environment without onnxruntime"
    if "onnxruntime" in host.packages:
        return "needs an environment without onnxruntime, whose files overwrite onnxruntime-gpu's"
    if not host.gpus:
        return "needs an NVIDIA GPU and its driver"
    return ""


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators that ONNX does not define; what CUDA has no kernel for runs on the CPU."""
    import onnx as onnx_package

    model = onnx_package.load(str(onnx), load_external_data=False)
    local = {(function.domain, function.name) for function in model.functions}
    return tuple(
        sorted(
            {
                node.op_type
                for node in model.graph.node
                if node.domain != "com.microsoft"
                and (node.domain, node.op_type) not in local
                and not onnx_package.defs.has(node.op_type, node.domain)
            }
        )
    )


def _refuse_graph(value: object) -> None:
    """Refuse recordings, which are not proven."""
    if value is False:
        return
    if value is True:
        raise BuildError(
            "options.cuda_graph: true is refused: ONNX Runtime's recordings are not proven on any "
            "GPU yet. On an H200 a replay of YOLOX-Nano ended in an illegal memory access, and "
            "wrong answers are as possible",
            hint="leave cuda_graph out; targets tensorrt and tensorrt-rtx have recordings of "
            "their own",
        )
    raise BuildError(
        f"options.cuda_graph: {value!r} is not false", hint="leave it out, or write false"
    )


def provider_options(options: Mapping[str, Any]) -> dict[str, str]:
    """The provider's own options, from the recipe's.

    Raises:
        BuildError: Names the option, its value and the rule.
    """
    _refuse_graph(options.get("cuda_graph", False))
    settings = {key: _choice(options, name) for name, (key, _) in CHOICES.items()}
    limit = options.get("memory_limit_mib")
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise BuildError(
                f"options.memory_limit_mib: {limit!r} is no whole number of at least 1",
                hint="write memory_limit_mib: 2048",
            )
        settings["gpu_mem_limit"] = str(limit * 2**20)
    return settings


def _choice(options: Mapping[str, Any], name: str) -> str:
    meanings = CHOICES[name][1]
    value = options.get(name, next(iter(meanings)))
    for word, meaning in meanings.items():
        if value is word or (isinstance(word, str) and value == word):
            return meaning
    choices = ", ".join(str(word).lower() for word in meanings)
    raise BuildError(
        f"options.{name}: {value!r} is not one of {choices}", hint=f"choose one of: {choices}"
    )


def check_options(options: Mapping[str, Any]) -> None:
    """See `Target`."""
    provider_options(options)


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    import onnxruntime as ort

    provider = provider_options(request.options)
    source = request.onnx
    if request.precision == "fp16":
        source = _half.convert(source, request.work / "half.onnx")
    path = request.work / "model.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(path)
    options.log_severity_level = QUIET
    ort.set_default_logger_severity(QUIET)
    try:
        session = ort.InferenceSession(str(source), options, providers=[(PROVIDER, provider)])
    except Exception as error:
        known = failures.reason(error, _gpu(request), batch=False)
        raise BuildError(
            f"ONNX Runtime refused the graph: {known[0] if known else said(error)}",
            hint=known[1] if known else GRAPH_REFUSED,
        ) from error
    if PROVIDER not in session.get_providers():
        raise BuildError(
            f"ONNX Runtime fell back to {', '.join(session.get_providers())}: {PROVIDER} did not "
            "start",
            hint="check driver, CUDA 13 and cuDNN 9 of onnxruntime-gpu with: engineworks host",
        )
    return BuildOutput(
        files={"model.onnx": path},
        entry="model.onnx",
        requires=Requires(
            runtime="onnxruntime_cuda",
            package=package_version(PACKAGES[0]),
            arch=request.host.arch,
        ),
        delivered_precision=UNREAD
        if request.draft
        else delivered_precision(path, request.precision),
        details={"optimized": True, "provider": provider},
    )


def _gpu(request: BuildInput) -> failures.OnGpu:
    limit = request.options.get("memory_limit_mib")
    return failures.OnGpu(device=0, option="options.memory_limit_mib", limit_mib=limit)


def delivered_precision(path: Path, asked: str) -> DeliveredPrecision:
    """Judge the optimised graph by the bulk of its weights."""
    stored, computed = _onnx.types(path)
    floats = {word: size for word, size in stored.items() if word in _onnx.FLOATS}
    delivered = max(floats, key=lambda word: floats[word]) if floats else "none"
    return DeliveredPrecision(
        asked=asked,
        delivered=delivered,
        holds=delivered == asked,
        stored_bytes=stored,
        computed_nodes=computed,
    )


TARGET = Target(
    title="ONNX Runtime, CUDA",
    precisions=("fp32", "fp16"),
    packages=PACKAGES,
    host_bound=True,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    options=OPTIONS,
    check_options=check_options,
)
