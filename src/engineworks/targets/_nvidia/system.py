"""Builds with a TensorRT that this Python cannot import: the system's Python, or trtexec.

Prepares the graph and its ranges, runs one child process, and reads back what it left.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, said
from engineworks.facts.engine import DeliveredPrecision
from engineworks.manifest import TensorSpec
from engineworks.qdq import accept
from engineworks.targets._base import UNREAD, BuildInput
from engineworks.targets._nvidia import builder, dla, inspect, py36_builder, weak
from engineworks.targets._nvidia import trtexec as command_lines
from engineworks.targets._nvidia.settings import BuilderSettings, Shapes, compatibility

PYTHON = "/usr/bin/python3"

UNKNOWN = DeliveredPrecision(
    asked="", delivered="unknown", holds=False, stored_bytes={}, computed_nodes={},
    note="this TensorRT has no inspector: the engine cannot be read back",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Made:
    """An engine and what is known about it, whichever way it was built."""

    files: Mapping[str, Path]
    profile: Mapping[str, Shapes]
    delivered_precision: DeliveredPrecision
    version: str
    placement: dla.DlaPlacement | None


@cache
def python_version(python: str) -> str:
    """Version of the TensorRT that an interpreter has; "" when it has none."""
    ask = "import tensorrt; print(tensorrt.__version__)"
    try:
        done = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def trtexec(options: Mapping[str, Any]) -> str | None:
    """Where trtexec is; None when it is not."""
    asked = options.get("trtexec")
    if asked is not None:
        return str(asked)
    place = next((place for place in command_lines.PLACES if Path(place).is_file()), None)
    return place or shutil.which("trtexec")


def build(
    way: str, request: BuildInput, checked: BuilderSettings, options: Mapping[str, Any],
    core: int | None, least: float,
) -> Made:  # fmt: skip
    """Build one engine by the system's Python or by trtexec.

    Args:
        way: system or trtexec.
        request: What to build; files go into its `work`.
        checked: The checked options.
        options: All options, for where the tools are.
        core: Number of a DLA core, or None.
        least: Least share of layers on it.

    Raises:
        BuildError: The tool is missing or refused; with its words.
    """
    python = str(options.get("system_python", PYTHON))
    version = python_version(python) if way == "system" else request.host.tensorrt
    _refuse(way, request, checked, version)
    source, calibration, ranges = _source(request, checked, version)
    shapes = profile(request.inputs, checked)
    job = command_lines.TrtexecBuild(
        onnx=source, plan=request.work / "engine.plan", layers=request.work / "layers.json",
        precision=request.precision, profile=shapes, calibration=calibration, dla=core,
    )  # fmt: skip
    if way == "system":
        asked = {
            "onnx": str(source), "plan": str(job.plan), "inspected": str(job.layers),
            "log": str(request.work / "build.log"), "precision": request.precision,
            "profile": shapes, "workspace_mib": checked.workspace_mib, "tf32": checked.tf32,
            "floats": sorted(ranges.floats) if ranges else [],
            "ranges": ranges.scales if ranges and calibration is None else {},
            "calibration": str(calibration) if calibration else None,
            "calibrator": checked.calibrator, "dla": core, "dla_share": least,
        }  # fmt: skip
        result = _by_python(python, asked, request.work)
    else:
        result = _by_trtexec(trtexec(options), job, checked, request.work)
    files = {"engine.plan": job.plan, "build.log": request.work / "build.log"}
    if calibration is not None:
        files["calibration.cache"] = calibration
    placement = None
    if core is not None:
        if "dla" in result:
            able = {name: name in result["dla"] for name in result["layers"]}
            dla.demand(dla.split(able), least, "would run")
        log = files["build.log"].read_text(encoding="utf-8")
        placement = dla.from_log(log, result.get("layers", ()))
        dla.demand(placement, least, "runs")
    precision = UNREAD if request.draft else _delivered_precision(job.layers, request.precision)
    if job.layers.is_file():
        files["layers.json"] = job.layers
    return Made(
        files=files,
        profile=shapes,
        delivered_precision=precision,
        version=version,
        placement=placement,
    )


def _refuse(way: str, request: BuildInput, checked: BuilderSettings, version: str) -> None:
    if not version:
        raise BuildError(
            f"options.builder: {way} has no TensorRT here",
            hint="see `engineworks host`, and options.system_python and options.trtexec",
        )
    if way == "trtexec" and checked.ranges == "dynamic" and request.precision == "int8":
        raise BuildError(
            "options.ranges: trtexec takes no dynamic ranges", hint="write ranges: cache"
        )
    for name in compatibility(checked):
        raise BuildError(
            f"options: {name} needs a TensorRT that this Python can import, here it is {way}",
            hint="leave it out",
        )


def _source(
    request: BuildInput, checked: BuilderSettings, version: str
) -> tuple[Path, Path | None, weak.GraphScales | None]:
    """(graph, calibration cache or None, ranges beside the graph or None)."""
    if request.precision != "int8":
        return request.onnx, None, None
    refused = accept.refusals(accept.load(request.onnx), builder.SCHEME)
    if refused:
        raise BuildError(
            f"TensorRT would refuse or misread this Q/DQ graph: {refused[0]}",
            hint="quantize with symmetric INT8 activations and float biases",
        )
    if checked.ranges == "graph":
        return request.onnx, None, None
    ranges = weak.take_apart(request.onnx, request.work / "float.onnx")
    if checked.ranges == "dynamic":
        return ranges.onnx, None, ranges
    path = request.work / "calibration.cache"
    algorithm = weak.CALIBRATORS[checked.calibrator][1]
    path.write_text(weak.calibration_cache(ranges, version, algorithm), encoding="utf-8")
    return ranges.onnx, path, ranges


def profile(inputs: tuple[TensorSpec, ...], checked: BuilderSettings) -> dict[str, Shapes]:
    """Shapes of the optimization profile, from the graph's declared tensors.

    Raises:
        BuildError: An open dimension beside the batch that the options do not bound.
    """
    shapes: dict[str, Shapes] = {}
    for spec in inputs:
        if all(isinstance(size, int) for size in spec.shape):
            continue
        if spec.name in checked.shapes:
            shapes[spec.name] = checked.shapes[spec.name]
            continue
        first, *rest = spec.shape
        fixed = [size for size in rest if isinstance(size, int)]
        if isinstance(first, int) or len(fixed) != len(rest):
            raise BuildError(
                f"input {spec.name!r} has open dimensions beside the batch: {list(spec.shape)}",
                hint=f"write options: {{shapes: {{{spec.name}: [min, opt, max]}}}}",
            )
        low, best, high = ((size, *fixed) for size in checked.batch)
        shapes[spec.name] = (low, best, high)
    return shapes


def _by_python(python: str, asked: dict[str, Any], work: Path) -> dict[str, Any]:
    """Run the builder for old interpreters."""
    request, result = work / "request.json", work / "result.json"
    request.write_text(json.dumps(asked), encoding="utf-8")
    done = subprocess.run(
        [python, str(Path(py36_builder.__file__)), str(request)],
        capture_output=True,
        text=True,
        errors="replace",
    )
    if not result.is_file():
        raise BuildError(
            f"{python} ended with exit code {done.returncode} and no result: "
            f"{done.stderr.strip()[-300:] or 'it said nothing'}",
            hint="out of memory is the usual reason: lower options.workspace_mib",
        )
    reply: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "error" in reply:
        raise BuildError(str(reply["error"]), hint="see build.log in the stage's folder")
    return reply


def _by_trtexec(
    tool: str | None, job: command_lines.TrtexecBuild, checked: BuilderSettings, work: Path
) -> dict[str, Any]:
    if tool is None:
        raise BuildError(
            "there is no trtexec on this machine",
            hint="give options.trtexec, or install NVIDIA's package tensorrt",
        )
    told = subprocess.run(
        [tool, "--help"], capture_output=True, text=True, errors="replace", timeout=120
    )
    known = command_lines.options_of(told.stdout + told.stderr)
    command = command_lines.command(tool, known, job, checked)
    done = subprocess.run([*command, "--verbose"], capture_output=True, text=True, errors="replace")
    (work / "build.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode != 0 or not job.plan.is_file():
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
        raise BuildError(
            f"trtexec built nothing: {said('; '.join(errors[:3]))}",
            hint=f"repeat it with: {' '.join(command)}",
        )
    return {}


def _delivered_precision(path: Path, precision: str) -> DeliveredPrecision:
    if not path.is_file():
        return UNKNOWN
    return inspect.delivered_precision(inspect.layers(path.read_text(encoding="utf-8")), precision)
