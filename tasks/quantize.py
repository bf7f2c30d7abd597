"""Search the integer graph of one variant."""

from __future__ import annotations

from engineworks.facts.int8 import Quantized
from engineworks.facts.prepared import PreparedModel
from engineworks.stages import quantize as stage
from tasks._cache import library_sha256
from tasks._job import VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Search the integer graph of one variant.")


def quantize(job: VariantJob, model: PreparedModel) -> Quantized:
    """The graph that holds the budget and is fast, or the best that was found."""
    recipe, planned = job.recipe, job.planned
    code, code_sha256 = job.own_code(model)
    request = stage.QuantizeRequest(
        shared=model.shared,
        onnx=model.onnx,
        calibration=model.statistics,
        reference=model.reference.artifact,
        target=planned.target,
        precision=planned.precision,
        options=planned.options,
        spec=recipe.int8,
        max_drop=recipe.budget.max_drop,
        data=model.data,
        samples=model.samples,
        size=model.size,
        threads=recipe.benchmark.threads,
        tools=job.tools,
        host=job.host,
        folder=str(job.loaded.folder),
        code=code,
        code_sha256=code_sha256,
        # Another library may write other graphs for the same question.
        journals=str(job.run.store.root.parent / "searches" / library_sha256()[:16]),
    )
    limit_s = recipe.int8.limit_s * 2 + recipe.limits.check_s
    return TASK.call(job.run, request, limit_s, planned.name, _note)


def _note(value: Quantized) -> str:
    return f"{value.reason} ({value.evaluations} evaluations)"
