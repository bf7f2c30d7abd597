"""What the stages that emit integer graphs share: statistics in, a graph out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.stages._records import provenance
from engineworks.store import LocalStore


class IntegerRequest(Protocol):
    """What requests for a graph with integers have in common."""

    @property
    def shared(self) -> Shared:
        """What stages need of the recipe."""

    @property
    def onnx(self) -> Artifact:
        """The graph in float."""

    @property
    def calibration(self) -> Artifact | None:
        """Statistics of its activations."""

    @property
    def precision(self) -> str:
        """What is asked for."""


def read_statistics(store: LocalStore, calibration: Artifact | None) -> Any:
    """What calibration saw; nothing where activations stay as they are."""
    from engineworks.calibrate import collect

    if calibration is None:
        return collect.NOTHING
    return collect.load(store.entry(calibration))


def put_graph(
    store: LocalStore,
    request: IntegerRequest,
    model: Any,
    details: dict[str, Any],
) -> Artifact:
    """Put a graph with integers into the store, beside the tensors of the one it was made of."""
    import onnx

    manifest = request.onnx.manifest
    parents = (request.onnx, request.calibration) if request.calibration else (request.onnx,)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "model.onnx")
        onnx.save(model, str(path))
        return store.put(
            {"model.onnx": path},
            kind="onnx",
            name=request.shared.name,
            entry="model.onnx",
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            preprocess=manifest.preprocess,
            task=manifest.task,
            precision=request.precision,
            details={**manifest.details, "int8": details},
            provenance=provenance("quantize", request.shared, parents, "onnx"),
        )
