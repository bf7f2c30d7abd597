"""Export the model to ONNX; keep the graph that agrees with it."""

from __future__ import annotations

import dataclasses

from engineworks.errors import RecipeError
from engineworks.facts.model import Exported, PinnedModel, Reference
from engineworks.facts.prepared import Shared
from engineworks.specs import Size
from engineworks.stages import export as stage
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(
    stage.STAGE, "Export the model to ONNX; keep the graph that agrees with it.", retries=0
)


def export(
    job: Job, shared: Shared, pinned: PinnedModel, truth: Reference, size: Size, exporter: str = ""
) -> Exported:
    """The graph of one input size.

    Args:
        job: The run.
        shared: What stages need of the recipe.
        pinned: The source model.
        truth: Its own answers at this size.
        size: Input (height, width).
        exporter: The one that was kept at the model's own size; empty for that size.

    Raises:
        RecipeError: Larger batches are asked for, and the graph's batch is fixed.
    """
    spec = job.recipe.export
    if exporter in spec.exporters:
        spec = dataclasses.replace(spec, exporters=(exporter,))
    request = stage.ExportRequest(
        shared=shared, model=pinned, spec=spec, reference=truth.artifact, size=size
    )
    label = f"{size[0]}x{size[1]}" if exporter else ""
    exported = TASK.call(job.run, request, job.recipe.limits.export_s, label, _note)
    largest = max(job.recipe.benchmark.batches)
    if largest > 1 and not exported.onnx.manifest.dynamic_batch:
        raise RecipeError(
            f"benchmark.batches asks for {largest}, the model's batch is fixed at "
            f"{exported.onnx.manifest.inputs[0].shape[0]}",
            hint="use benchmark.batches: [1], or a model file with an open batch",
        )
    return exported


def _note(value: Exported) -> str:
    return f"{value.chosen} kept: {value.reason}"
