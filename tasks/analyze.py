"""Count the graph and ask the targets what they do not support."""

from __future__ import annotations

from engineworks import targets
from engineworks.errors import StageError, said
from engineworks.export import analyze as statistics
from engineworks.facts.model import Analysis
from engineworks.facts.prepared import PreparedModel
from engineworks.stages import analyze as stage
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Count the graph and ask the targets what they do not support.")


def analyze(job: Job, model: PreparedModel, names: tuple[str, ...]) -> Analysis:
    """What the graph consists of; a crash costs the figures, not the run.

    Args:
        job: The run.
        model: The model.
        names: Targets that can be asked here.
    """
    limits = job.recipe.limits
    request = stage.AnalyzeRequest(
        onnx=model.onnx,
        size=model.size,
        targets=names,
        tools=targets.tools(*names),
        limit_s=limits.export_s / 2,
        folder=str(job.run.folder / "logs" / "analyze"),
        store=str(job.run.store.root),
    )
    try:
        return TASK.call(job.run, request, limits.export_s, note=_note)
    except StageError as error:
        return statistics.nothing(said(error.message), {})


def _note(value: Analysis) -> str:
    figures = f"{value.parameters / 1e6:.2f} M parameters, {value.flops / 1e9:.2f} GFLOPs"
    uncounted = f", not counted: {', '.join(value.uncounted)}" if value.uncounted else ""
    return f"{figures}, {value.nodes} nodes{uncounted}"
