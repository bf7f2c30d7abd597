"""Stage `build`: the engine of one variant, on this machine."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks import targets
from engineworks.codec import place
from engineworks.facts.engine import Built
from engineworks.facts.host import HostCard
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.specs import (
    TaskSpec,
)
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """ONNX to an engine of one variant."""

    shared: Shared
    name: str = ""
    """What the engine says it is called; empty: as `shared` has it."""
    onnx: Artifact
    reference: Artifact | None
    """Only for a target that needs it."""
    target: str
    precision: str
    options: dict[str, Any]
    tools: dict[str, str]
    """Versions of the target's packages."""
    host: HostCard | None
    """The builder's card when the engine depends on it, else None."""
    builder: HostCard = place()
    largest_batch: int = 0
    """For a target whose engines have an optimization profile; 0 for others, which any batch
    fits."""
    limit_s: float = place(default=0.0)
    """Time limit of the stage."""


def build(request: BuildRequest) -> Built:
    """Stage `build`."""
    from engineworks.targets._base import BuildInput

    started = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    target = targets.load(request.target)
    manifest = request.onnx.manifest
    with tempfile.TemporaryDirectory() as work:
        output = target.build(
            BuildInput(
                onnx=store.entry(request.onnx),
                inputs=manifest.inputs,
                outputs=manifest.outputs,
                precision=request.precision,
                options=request.options,
                host=request.builder,
                work=Path(work),
                reference=store.entry(request.reference) if request.reference else None,
                largest_batch=request.largest_batch or BuildInput.largest_batch,
                limit_s=request.limit_s,
            )
        )
        engine = store.put(
            output.files,
            kind="engine",
            name=request.name or shared.name,
            entry=output.entry,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            preprocess=shared.preprocess,
            task=_with_labels(shared),
            target=request.target,
            precision=request.precision,
            requires=output.requires,
            details=output.details,
            provenance=provenance("build", shared, (request.onnx,), *target.packages),
        )
    return Built(
        engine=engine,
        delivered_precision=output.delivered_precision,
        build_s=time.perf_counter() - started,
        whole_from_s=output.whole_from_s,
    )


def _with_labels(shared: Shared) -> TaskSpec:
    """The task with the names themselves: a device has no labels file."""
    return dataclasses.replace(shared.task, labels=shared.labels)


STAGE = Stage("build", build, BuildRequest, Built)
