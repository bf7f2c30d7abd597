"""Command lines of trtexec, for machines that have it and no Python bindings.

The tool's own `--help` is asked which words it has: its options were renamed and removed with
the libraries (`--workspace`, `--buildOnly`, `--fp16`). Runs nothing itself.
Source: https://github.com/NVIDIA/TensorRT/tree/main/samples/trtexec
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engineworks.errors import BuildError
from engineworks.targets._nvidia.settings import BuilderSettings, Shapes

#: Where JetPack and NVIDIA's Debian packages leave it.
PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")


@dataclass(frozen=True, kw_only=True)
class TrtexecBuild:
    """One engine to build."""

    onnx: Path
    plan: Path
    layers: Path
    precision: str
    profile: Mapping[str, Shapes]
    calibration: Path | None = None
    """A calibration cache, for int8 without Q/DQ nodes."""
    dla: int | None = None
    """Number of a DLA core."""


def options_of(help_text: str) -> frozenset[str]:
    """The long options that a `trtexec --help` names."""
    return frozenset(re.findall(r"--([A-Za-z][A-Za-z0-9]*)", help_text))


def command(
    tool: str, known: frozenset[str], job: TrtexecBuild, settings: BuilderSettings
) -> list[str]:
    """The words to run.

    Args:
        tool: Path of trtexec.
        known: Its options, by `options_of`.
        job: What to build.
        settings: The checked options of the recipe.

    Raises:
        BuildError: This trtexec lacks what the job needs.
    """
    arguments = [tool, f"--onnx={job.onnx}", f"--saveEngine={job.plan}"]
    arguments += _precision(known, job)
    for name, shapes in (("minShapes", 0), ("optShapes", 1), ("maxShapes", 2)):
        if job.profile:
            sized = [
                f"{tensor}:{'x'.join(map(str, three[shapes]))}"
                for tensor, three in job.profile.items()
            ]
            arguments.append(f"--{name}={','.join(sized)}")
    if settings.workspace_mib is not None:
        arguments.append(
            f"--memPoolSize=workspace:{settings.workspace_mib}"
            if "memPoolSize" in known
            else f"--workspace={settings.workspace_mib}"
        )
    if settings.optimization_level is not None and "builderOptimizationLevel" in known:
        arguments.append(f"--builderOptimizationLevel={settings.optimization_level}")
    if not settings.tf32 and "noTF32" in known:
        arguments.append("--noTF32")
    if job.dla is not None:
        arguments += [f"--useDLACore={job.dla}", "--allowGPUFallback"]
    if settings.timing_cache is not None:
        arguments.append(f"--timingCacheFile={settings.timing_cache}")
    if "exportLayerInfo" in known:
        arguments += ["--profilingVerbosity=detailed", f"--exportLayerInfo={job.layers}"]
    arguments.append("--skipInference" if "skipInference" in known else "--buildOnly")
    return arguments


def timing(
    tool: str, known: frozenset[str], plan: Path, profile: Mapping[str, Shapes], core: int | None,
    exported: Path,
) -> list[str]:  # fmt: skip
    """The words that time a plan at the best shapes of its profile, layer by layer.

    Args:
        tool: Path of trtexec.
        known: Its options, by `options_of`.
        plan: The engine.
        profile: Its optimization profile.
        core: Number of its DLA core, or None.
        exported: JSON file for the times of layers.
    """
    arguments = [tool, f"--loadEngine={plan}"]
    if profile:
        sized = [f"{name}:{'x'.join(map(str, three[1]))}" for name, three in profile.items()]
        arguments.append(f"--shapes={','.join(sized)}")
    if core is not None:
        arguments += [f"--useDLACore={core}", "--allowGPUFallback"]
    if "exportProfile" in known:
        arguments += ["--dumpProfile", f"--exportProfile={exported}"]
        # Else the whole is timed with the profiler running, which slows it.
        arguments += ["--separateProfileRun"] if "separateProfileRun" in known else []
    return arguments


def _precision(known: frozenset[str], job: TrtexecBuild) -> list[str]:
    """Flags where the tool has them; a newer one takes the types of the graph."""
    if job.precision == "fp32":
        return []
    if job.precision not in known:
        if job.calibration is not None:
            raise BuildError(
                "this trtexec takes no calibration cache: TensorRT 11 has none",
                hint="leave options.ranges out; the Q/DQ graph holds the ranges",
            )
        return ["--stronglyTyped"] if "stronglyTyped" in known else []
    if job.precision == "int8":
        cache = [f"--calib={job.calibration}"] if job.calibration else []
        return ["--int8", "--fp16", *cache]
    return [f"--{job.precision}"]
