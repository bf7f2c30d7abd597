"""How long a plan takes on the GPU that has just built it, whole and layer by layer.

For the words beside an engine; the benchmark that decides anything is `engineworks.bench`. By a
session of this process, or by trtexec where this Python cannot open plans. Never run on a GPU.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.manifest import Manifest, Provenance
from engineworks.runtime.engines.tensorrt import TensorRtSession
from engineworks.targets._base import BuildInput
from engineworks.targets._nvidia import trtexec as command_lines
from engineworks.targets._nvidia.settings import Shapes

#: Calls before the first that counts, and seconds of those that count.
WARM_UP, SECONDS = 10, 1.0
#: Seconds that trtexec may take; it times for about ten.
LIMIT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One plan at the best shapes of its profile."""

    ms: float
    """Median time on the GPU of one inference, without copies."""
    layers: Mapping[str, float] = field(default_factory=dict)
    """Name of a layer of the engine -> mean ms, with the profiler running."""

    def share(self, names: tuple[str, ...]) -> float:
        """Share of the layers' time that some of them take."""
        total = sum(self.layers.values())
        return sum(self.layers.get(name, 0.0) for name in names) / total if total else 0.0


def by_session(
    plan: Path,
    request: BuildInput,
    profile: Mapping[str, Shapes],
    *,
    any_version: bool = False,
    layers: bool = False,
) -> Timed:
    """Time a plan with this Python's TensorRT.

    Args:
        plan: The file.
        request: What it was built from, for its tensors.
        profile: Its optimization profile.
        any_version: Whether it is version-compatible.
        layers: Whether its layers are timed, too.

    Raises:
        EngineworksError: It cannot be opened or run here; says why.
    """
    manifest = Manifest(
        kind="engine", name=plan.name, entry=plan.name, files=(), inputs=request.inputs,
        outputs=request.outputs, target="tensorrt", precision=request.precision,
        details={"module": "tensorrt", "any_version": any_version},
        provenance=Provenance(stage="build"),
    )  # fmt: skip
    noise = np.random.default_rng(0)
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for spec in request.inputs:
        shape = profile[spec.name][1] if spec.name in profile else spec.shape
        feeds[spec.name] = noise.random([int(n) for n in shape]).astype(spec.dtype)
    with TensorRtSession(plan.parent, manifest, 0) as session:
        for _ in range(WARM_UP):
            session.infer(feeds)
        times, until = [], time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            session.infer(feeds)
            times.append(session.times().compute_ms)
        return Timed(ms=float(np.median(times)), layers=session.layer_ms(feeds) if layers else {})


def by_trtexec(
    tool: str, plan: Path, profile: Mapping[str, Shapes], core: int | None, work: Path
) -> Timed:
    """Time a plan with trtexec.

    Args:
        tool: Its path.
        plan: The file.
        profile: Its optimization profile.
        core: Number of the DLA core that it was built for, or None.
        work: Folder for what the tool writes.

    Raises:
        BuildError: The tool failed or said nothing of times.
    """
    told = subprocess.run(
        [tool, "--help"], capture_output=True, text=True, errors="replace", timeout=120
    )
    known = command_lines.options_of(told.stdout + told.stderr)
    exported = work / f"{plan.stem}.profile.json"
    command = command_lines.timing(tool, known, plan, profile, core, exported)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"trtexec did not end within {LIMIT_S:.0f} s",
            hint=f"repeat it with: {' '.join(command)}",
        ) from error
    median = re.search(r"GPU Compute Time:.* median = ([0-9.]+) ms", done.stdout + done.stderr)
    if done.returncode != 0 or median is None:
        raise BuildError(
            f"trtexec timed nothing (exit code {done.returncode})",
            hint=f"repeat it with: {' '.join(command)}",
        )
    layers: dict[str, float] = {}
    if exported.is_file():
        entries = json.loads(exported.read_text(encoding="utf-8"))
        layers = {e["name"]: float(e["averageMs"]) for e in entries if "averageMs" in e}
    return Timed(ms=float(median[1]), layers=layers)
