"""Build the engine of one variant on this machine."""

from __future__ import annotations

from engineworks.facts.engine import Built
from engineworks.facts.prepared import PreparedModel
from engineworks.stages import build as stage
from tasks._job import VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Build the engine of one variant on this machine.")


def build(job: VariantJob, model: PreparedModel) -> Built:
    """The engine of one input size."""
    planned, target, recipe = job.planned, job.target, job.recipe
    largest = max(recipe.export.largest_batch, *recipe.benchmark.batches)
    request = stage.BuildRequest(
        shared=model.shared,
        name=recipe.name,
        onnx=model.onnx,
        reference=model.reference.artifact if target.needs_reference else None,
        target=planned.target,
        precision=planned.precision,
        options=planned.options,
        tools=job.tools,
        host=job.host if target.host_bound else None,
        builder=job.host,
        largest_batch=largest if target.profiled else 0,
        limit_s=recipe.limits.build_s,
    )
    limit_s = recipe.limits.build_s

    def whole(value: Built) -> bool:
        """Whether it has all that a build of this limit would have made."""
        return value.holds_within(limit_s)

    return TASK.call(job.run, request, limit_s, job.label(model), _note, whole)


def _note(value: Built) -> str:
    return f"{value.engine.size_bytes / 2**20:.2f} MiB, {value.delivered_precision.delivered}"
