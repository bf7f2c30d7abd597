"""Stage `simplify`: a simpler graph, or the same one on any doubt."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from engineworks import child
from engineworks.codec import place, to_json
from engineworks.errors import EngineworksError, said
from engineworks.facts.model import (
    Simplified,
)
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class SimplifyRequest:
    """ONNX to simpler ONNX."""

    shared: Shared
    onnx: Artifact
    reference: Artifact
    tolerance: float
    limit_s: float
    """In the key: more time may let onnxsim succeed."""
    folder: str = place()


def simplify(request: SimplifyRequest) -> Simplified:
    """Stage `simplify`: whatever goes wrong, the run goes on with the graph it had."""
    from engineworks.export import reference as references
    from engineworks.export import simplify as simplifier
    from engineworks.qdq import accept

    shared, store = request.shared, LocalStore(Path(request.shared.store))
    before = store.entry(request.onnx)
    inputs, wanted = references.load(store.entry(request.reference))
    with tempfile.TemporaryDirectory() as work:
        after = Path(work, "model.onnx")
        reason, largest = "", None
        if accept.is_quantized(accept.load(before)):
            # onnxsim would fold DequantizeLinear of weights back into floats.
            reason = "a Q/DQ graph is left as it is"
        try:
            if not reason:
                child.run(
                    "onnxsim",
                    to_json(OnnxsimRequest(source=str(before), result=str(after))),
                    folder=Path(request.folder, "onnxsim"),
                    limit_s=request.limit_s,
                )
        except EngineworksError as error:
            reason = f"onnxsim failed: {said(error.message)}"
        if not reason:
            reason, largest = simplifier.doubt(before, after, inputs, wanted, request.tolerance)
        nodes, size = simplifier.node_count(before), before.stat().st_size
        nodes_after, size_after = nodes, size
        if largest is not None and not reason:
            nodes_after, size_after = simplifier.node_count(after), after.stat().st_size
            if nodes_after >= nodes:
                reason = f"it removed nothing ({nodes} nodes before, {nodes_after} after)"
        kept = not reason
        artifact = request.onnx
        if kept:
            manifest = request.onnx.manifest
            artifact = store.put(
                {"model.onnx": after},
                kind="onnx",
                name=shared.name,
                entry="model.onnx",
                inputs=manifest.inputs,
                outputs=manifest.outputs,
                preprocess=manifest.preprocess,
                task=manifest.task,
                details={**manifest.details, "simplified": True},
                provenance=provenance("simplify", shared, (request.onnx,), "onnx", "onnxsim"),
            )
    return Simplified(
        onnx=artifact,
        kept=kept,
        reason=reason or "agrees with the model on real inputs",
        nodes_before=nodes,
        nodes_after=nodes_after,
        size_before_bytes=size,
        size_after_bytes=size_after,
        max_abs_diff=largest,
    )


@dataclass(frozen=True, kw_only=True)
class OnnxsimRequest:
    """Have onnxsim write a simpler file."""

    source: str
    result: str


@dataclass(frozen=True, kw_only=True)
class OnnxsimDone:
    """It came back."""


def onnxsim(request: OnnxsimRequest) -> OnnxsimDone:
    """Part of `simplify`: the call that may crash."""
    from engineworks.export.simplify import simplify_file

    simplify_file(Path(request.source), Path(request.result))
    return OnnxsimDone()


STAGE = Stage("simplify", simplify, SimplifyRequest, Simplified, ("onnx", "onnxsim", "onnxruntime"))
ONNXSIM = Stage("onnxsim", onnxsim, OnnxsimRequest, OnnxsimDone)
