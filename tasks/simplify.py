"""Simplify the graph, or keep it on any doubt."""

from __future__ import annotations

from engineworks.facts.model import Exported, Reference, Simplified
from engineworks.facts.prepared import Shared
from engineworks.stages import simplify as stage
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Simplify the graph, or keep it on any doubt.", retries=0)


def simplify(
    job: Job, shared: Shared, exported: Exported, truth: Reference, label: str = ""
) -> Simplified:
    """A simpler graph of one input size; `label` names a further one."""
    limits = job.recipe.limits
    request = stage.SimplifyRequest(
        shared=shared,
        onnx=exported.onnx,
        reference=truth.artifact,
        tolerance=job.recipe.export.tolerance,
        limit_s=limits.export_s / 2,
        folder=str(job.run.folder / "logs" / f"simplify_{label}".rstrip("_")),
    )
    return TASK.call(job.run, request, limits.export_s, label, _note)


def _note(value: Simplified) -> str:
    if value.kept:
        return f"{value.nodes_before} -> {value.nodes_after} nodes"
    return f"rolled back: {value.reason}"
