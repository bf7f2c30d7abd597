"""Builds a plan: parse, profile, configure, serialize, and read the precision back.

The order of events is here; what each needs is in the files beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.facts.engine import DeliveredPrecision
from engineworks.qdq import accept
from engineworks.qdq.pairs import Scheme
from engineworks.targets import _half
from engineworks.targets._base import UNREAD, BuildInput
from engineworks.targets._nvidia import delivered, inspect, weak
from engineworks.targets._nvidia import network as networks
from engineworks.targets._nvidia.api import STRONG, WEAK, Api
from engineworks.targets._nvidia.log import BuildLog, progress
from engineworks.targets._nvidia.settings import BuilderSettings, Shapes

#: What every TensorRT reads as integers: symmetric, biases left as they are.
SCHEME = Scheme(activation="int8", bias="float", outputs=False)


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """A built engine: its files, and what is known about it."""

    path: Path
    files: dict[str, Path]
    """Name inside the engine -> file: the plan, the log, and what else was kept."""
    profile: dict[str, Shapes]
    delivered_precision: DeliveredPrecision
    route: str


@dataclass(frozen=True, kw_only=True)
class VendorGraph:
    """The graph that the vendor gets."""

    onnx: Path
    ranges: weak.GraphScales | None = None
    """Integer ranges beside the graph, on the weak route."""


def build(
    trt: Any,
    request: BuildInput,
    settings: BuilderSettings,
    *,
    adjust: Callable[[Api, Any, Any], None] = lambda api, config, network: None,
    on_device: bool = False,
) -> BuiltPlan:
    """Build one engine.

    Args:
        trt: The vendor's module.
        request: What to build; files go into its `work`.
        settings: The checked options.
        adjust: Last changes to the builder's configuration and network by one target.
        on_device: Whether this machine's GPU builds, so that the engine can be read back and
            its timing cache kept.

    Raises:
        BuildError: The graph, an option or the builder's own refusal, in its words.
    """
    api = Api(trt)
    route = api.route(settings.route)
    said = BuildLog(trt)
    source = _source(request, settings, route)
    builder = trt.Builder(said.logger)
    network = networks.parse(api, builder, source.onnx, route, said)
    shaped, shapes = networks.profile(network, builder, settings)
    config = configure(api, builder, settings)
    if shaped is not None:
        config.add_optimization_profile(shaped)
    files: dict[str, Path] = {}
    calibrator = None
    if route == WEAK:
        calibrator = _weakly_typed(api, network, config, source, settings, request, files)
    adjust(api, config, network)
    plan = serialize(builder, network, config, said, request.work / "engine.plan")
    del calibrator  # until here the builder has called it
    if on_device:
        files["timing.cache"] = _keep_timings(config, request.work / "timing.cache")
    precision = UNREAD
    if not request.draft:
        precision = _with_weights(
            delivered.of_network(api, network, request.precision, request.onnx), said
        )
    if on_device and not request.draft:
        files["layers.json"] = request.work / "layers.json"
        files["layers.json"].write_text(inspect.text(api, plan.read_bytes(), said), "utf-8")
        if route == WEAK:
            layers = inspect.layers(files["layers.json"].read_text("utf-8"))
            precision = inspect.delivered_precision(layers, request.precision)
    files["engine.plan"] = plan
    files["build.log"] = said.write(request.work / "build.log")
    return BuiltPlan(
        path=plan, files=files, profile=shapes, delivered_precision=precision, route=route
    )


def _weakly_typed(
    api: Api, network: Any, config: Any, source: VendorGraph, settings: BuilderSettings,
    request: BuildInput, files: dict[str, Path],
) -> Any:  # fmt: skip
    """Allow the precision, and give integers their ranges: gives the calibrator to be kept alive.

    A calibration cache that was written is added to `files`.
    """
    weak.allow(api, config, request.precision)
    if source.ranges is None:
        return None
    weak.keep_in_float(api, network, config, source.ranges)
    if settings.ranges == "dynamic":
        weak.on_tensors(network, source.ranges)
        return None
    calibrator, text = weak.through_calibrator(api, config, source.ranges, settings.calibrator)
    files["calibration.cache"] = request.work / "calibration.cache"
    files["calibration.cache"].write_text(text, encoding="utf-8")
    return calibrator


def _with_weights(precision: DeliveredPrecision, said: BuildLog) -> DeliveredPrecision:
    """Say where it comes from, and what the builder itself says that it stored."""
    kept = said.find(r"Total Weights Memory: (\d+) bytes")
    stored = f"; the builder reports {int(kept) / 2**20:.2f} MiB of weights" if kept else ""
    source = f"types read from the parsed network, not from the engine{stored}"
    return delivered.with_note(precision, source)


def _source(request: BuildInput, settings: BuilderSettings, route: str) -> VendorGraph:
    """The graph whose types, or whose ranges, are those asked for."""
    if request.precision == "int8":
        refused = accept.refusals(accept.load(request.onnx), SCHEME)
        if refused:
            raise BuildError(
                f"TensorRT would refuse or misread this Q/DQ graph: {refused[0]}",
                hint="quantize with symmetric INT8 activations and float biases",
            )
        if route == STRONG and settings.ranges != "graph":
            raise BuildError(
                f"options.ranges: {settings.ranges} stands beside a float graph, and on the route "
                "strong the graph has them",
                hint="write route: weak where this TensorRT has it, or leave options.ranges out",
            )
        if settings.ranges != "graph":
            ranges = weak.take_apart(request.onnx, request.work / "float.onnx")
            return VendorGraph(onnx=ranges.onnx, ranges=ranges)
    if route == STRONG and request.precision == "fp16":
        return VendorGraph(onnx=_half.convert(request.onnx, request.work / "half.onnx"))
    if route == STRONG and request.precision == "bf16":
        return VendorGraph(onnx=_half.convert_wide(request.onnx, request.work / "half.onnx"))
    return VendorGraph(onnx=request.onnx)


def configure(api: Api, builder: Any, settings: BuilderSettings) -> Any:
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
    if settings.version_compatible:
        api.set_flag(config, "VERSION_COMPATIBLE", "options.version_compatible")
    if settings.hardware_compatible != "none":
        level = settings.hardware_compatible.upper()
        config.hardware_compatibility_level = api.member(
            "HardwareCompatibilityLevel", level, "options.hardware_compatible"
        )
    if settings.timing_cache is not None:
        cache = config.create_timing_cache(settings.timing_cache.read_bytes())
        if not config.set_timing_cache(cache, False):
            raise BuildError(
                f"options.timing_cache: {settings.timing_cache} is of another TensorRT or GPU",
                hint="leave the option out once, and take the timing.cache of that engine",
            )
        if settings.timing_cache_miss == "error":
            api.set_flag(config, "ERROR_ON_TIMING_CACHE_MISS", "options.timing_cache_miss")
    # Inspectors can name layers and their types later; names cost a few kilobytes.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    monitor = progress(trt)
    if monitor is not None:
        config.progress_monitor = monitor
    return config


def _keep_timings(config: Any, path: Path) -> Path:
    """What the builder has measured, for the same choices in a later build."""
    path.write_bytes(memoryview(config.get_timing_cache().serialize()))
    return path


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
