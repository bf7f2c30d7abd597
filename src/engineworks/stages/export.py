"""Stage `export`: the model to ONNX; the graph that agrees with it is kept."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from engineworks import usercode
from engineworks.facts.model import (
    Exported,
    PinnedModel,
)
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.specs import (
    ExportSpec,
    Size,
)
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Source model to ONNX."""

    shared: Shared
    model: PinnedModel
    spec: ExportSpec
    reference: Artifact
    size: Size


def export(request: ExportRequest) -> Exported:
    """Stage `export`."""
    from engineworks.export import reference as references
    from engineworks.export import sources, torch_onnx
    from engineworks.export.source import open_source

    shared, store = request.shared, LocalStore(Path(request.shared.store))
    inputs, wanted = references.load(store.entry(request.reference))
    usercode.hold_to(request.model.code, Path(request.model.folder))
    with sources.settled(request.model, store) as model, tempfile.TemporaryDirectory() as work:
        source = open_source(model, inputs[:1])
        kept = torch_onnx.export(source, model, request.spec, inputs, wanted, Path(work))
        tensors_in, tensors_out, opset = torch_onnx.signature(kept.path)
        artifact = store.put(
            {"model.onnx": kept.path},
            kind="onnx",
            name=shared.name,
            entry="model.onnx",
            inputs=tensors_in,
            outputs=tensors_out,
            preprocess=shared.preprocess,
            task=shared.task,
            details={"opset": opset, "exporter": kept.chosen},
            provenance=provenance(
                "export", shared, (request.reference,), "torch", "onnx", "onnxscript"
            ),
        )
    return Exported(
        onnx=artifact,
        chosen=kept.chosen,
        reason=kept.reason,
        opset=opset,
        attempts=kept.attempts,
    )


STAGE = Stage(
    "export", export, ExportRequest, Exported, ("torch", "onnx", "onnxscript", "onnxruntime")
)
