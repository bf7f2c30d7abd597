"""A target without a runtime: its engines replay recorded answers.

It lets a whole flow run in seconds on any machine, and is the worked example of "Add a target".
Its options act out what can go wrong with real ones.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.export import reference
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.runtime.engines.null import row_key
from engineworks.targets._base import BuildInput, BuildOutput, Target

ACTS = ("ship", "refuse", "crash", "hang", "drift", "untruth")


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    return ""


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """See `Target`: it runs nothing, so it lacks nothing."""
    return ()


def check_options(options: Mapping[str, Any]) -> None:
    """See `Target`."""
    act = options.get("act", "ship")
    if act not in ACTS:
        raise BuildError(f"options.act: {act!r} is unknown", hint=f"use one of {', '.join(ACTS)}")


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    check_options(request.options)
    act = request.options.get("act", "ship")
    if act == "refuse":
        raise BuildError("the null builder was asked to refuse", hint="set options.act: ship")
    if act == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if act == "hang":
        time.sleep(3600)
    assert request.reference is not None  # noqa: S101 - needs_reference
    inputs, outputs = reference.load(request.reference)
    if act == "drift":
        outputs = {name: answer + np.float32(0.5) for name, answer in outputs.items()}
    path = request.work / "answers.npz"
    keys = np.array([row_key(row) for row in inputs])
    answers = {f"output:{name}": answer for name, answer in outputs.items()}
    np.savez(path, keys=keys, allow_pickle=False, **answers)
    delivered = "fp32" if act == "untruth" else request.precision
    return BuildOutput(
        files={"answers.npz": path},
        entry="answers.npz",
        requires=Requires(runtime="null"),
        delivered_precision=DeliveredPrecision(
            asked=request.precision,
            delivered=delivered,
            holds=delivered == request.precision,
            stored_bytes={delivered: path.stat().st_size},
            computed_nodes={},
        ),
    )


TARGET = Target(
    title="No runtime: replays recorded answers, for trying a flow",
    precisions=("fp32", "fp16"),
    packages=(),
    host_bound=False,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    options={
        "act": "ship (default), refuse, crash or hang while building; drift or untruth in the "
        "engine"
    },
    needs_reference=True,
    replays=True,
    check_options=check_options,
)
