"""Quantize the graph of another input size in the same way."""

from __future__ import annotations

from engineworks.facts.int8 import Quantized
from engineworks.facts.prepared import PreparedModel
from engineworks.stages import requantize as stage
from tasks._job import VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Quantize the graph of another input size in the same way.")


def requantize(
    job: VariantJob, other: PreparedModel, model: PreparedModel, quantized: Quantized
) -> PreparedModel:
    """The model at another size, with a graph in integers.

    Args:
        job: The variant.
        other: The model at that size.
        model: The model at its own size, whose activations were seen.
        quantized: What the search has chosen for that one.
    """
    request = stage.RequantizeRequest(
        shared=model.shared,
        onnx=other.onnx,
        calibration=model.statistics,
        target=job.planned.target,
        precision=job.planned.precision,
        method=quantized.chosen.method,
        nodes=quantized.nodes,
        host=job.host,
    )
    again = TASK.call(job.run, request, job.recipe.limits.build_s, job.label(other))
    return other.with_graph(again.onnx)
