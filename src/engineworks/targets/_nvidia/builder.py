"""Builds a plan: parse, profile, configure, serialize, and read the precision back.

The order of events is here; what each needs is in the files beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.calibrate import accept
from engineworks.calibrate.qdq import Scheme
from engineworks.errors import BuildError
from engineworks.targets import _half
from engineworks.targets._base import UNREAD, BuildInput
from engineworks.targets._nvidia import network as networks
from engineworks.targets._nvidia import truth as truths
from engineworks.targets._nvidia.api import STRONG, Api
from engineworks.targets._nvidia.log import BuildLog, progress
from engineworks.targets._nvidia.settings import Settings, Shapes
from engineworks.values import PrecisionTruth

#: What every TensorRT reads as integers: symmetric, biases left as they are.
SCHEME = Scheme(activation="int8", bias="float", outputs=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A built engine: its file, its log and what is known about it."""

    path: Path
    log: Path
    profile: dict[str, Shapes]
    truth: PrecisionTruth


def build(
    trt: Any,
    request: BuildInput,
    settings: Settings,
    adjust: Callable[[Api, Any], None] = lambda api, config: None,
) -> Plan:
    """Build one engine on the strong route.

    Args:
        trt: The vendor's module.
        request: What to build; files go into its `work`.
        settings: The checked options.
        adjust: Last changes to the builder's configuration by one target.

    Raises:
        BuildError: The graph, an option or the builder's own refusal, in its words.
    """
    api = Api(trt)
    said = BuildLog(trt)
    source = _source(request)
    builder = trt.Builder(said.logger)
    network = networks.parse(api, builder, source, STRONG, said)
    shaped, shapes = networks.profile(network, builder, settings)
    config = configure(api, builder, settings)
    adjust(api, config)
    if shaped is not None:
        config.add_optimization_profile(shaped)
    truth = truths.of_network(api, network, request.precision, request.onnx)
    plan = serialize(builder, network, config, said, request.work / "engine.plan")
    return Plan(
        path=plan,
        log=said.write(request.work / "build.log"),
        profile=shapes,
        truth=UNREAD if request.draft else _with_weights(truth, said),
    )


def _with_weights(truth: PrecisionTruth, said: BuildLog) -> PrecisionTruth:
    """Say where the truth comes from, and what the builder itself says that it stored."""
    kept = said.find(r"Total Weights Memory: (\d+) bytes")
    stored = f"; the builder reports {int(kept) / 2**20:.2f} MiB of weights" if kept else ""
    source = f"types read from the parsed network, not from the engine{stored}"
    return dataclasses.replace(truth, note=f"{truth.note}; {source}" if truth.note else source)


def _source(request: BuildInput) -> Path:
    """The graph whose types are those asked for."""
    if request.precision == "fp16":
        return _half.convert(request.onnx, request.work / "half.onnx")
    if request.precision == "int8":
        refused = accept.refusals(accept.load(request.onnx), SCHEME)
        if refused:
            raise BuildError(
                f"TensorRT would refuse or misread this Q/DQ graph: {refused[0]}",
                hint="quantize with symmetric INT8 activations and float biases",
            )
    return request.onnx


def configure(api: Api, builder: Any, settings: Settings) -> Any:
    """The builder's configuration.

    Raises:
        BuildError: An option that this TensorRT does not have.
    """
    trt = api.trt
    config = builder.create_builder_config()
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * 2**20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on by default, and is not float32
    # Inspectors can name layers and their types later; names cost a few kilobytes.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    monitor = progress(trt)
    if monitor is not None:
        config.progress_monitor = monitor
    return config


def serialize(builder: Any, network: Any, config: Any, said: BuildLog, path: Path) -> Path:
    """Build and write the plan.

    Raises:
        BuildError: The builder gave nothing; with its errors.
    """
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        errors = said.errors() or "it gave no reason"
        larger = "raise options.workspace_mib; " if "workspace" in errors else ""
        raise BuildError(
            f"TensorRT built nothing: {errors}",
            hint=f"{larger}all that the builder said is in the stage's log.txt",
        )
    path.write_bytes(memoryview(plan))
    return path
