"""Run the source model, the truth for all engines."""

from __future__ import annotations

from engineworks.evaluate.judge import CUT
from engineworks.facts.data import PinnedData
from engineworks.facts.model import PinnedModel, Reference
from engineworks.facts.prepared import Shared
from engineworks.specs import Size
from engineworks.stages import reference as stage
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Run the source model, the truth for all engines.", retries=0)


def reference(
    job: Job, shared: Shared, pinned: PinnedModel, data: PinnedData | None, size: Size,
    samples: PinnedData | None = None,
) -> Reference:  # fmt: skip
    """Its answers on the parity samples; at the model's own size its score on the data, too.

    Args:
        job: The run.
        shared: What stages need of the recipe.
        pinned: The source model.
        data: Labelled images.
        size: Input (height, width).
        samples: Images that show what is in use, where there is no data.
    """
    own = size == job.recipe.model.input.size
    request = stage.ReferenceRequest(
        shared=shared, model=pinned, data=data, size=size, score=own, samples=samples
    )
    label = "" if own else f"{size[0]}x{size[1]}"
    return TASK.call(job.run, request, job.recipe.limits.check_s, label, _note)


def _note(value: Reference) -> str:
    """What the source model has shown, in words."""
    if value.value is None:
        return value.note
    sentence = f"{value.metric} {value.value:.4f} of the source model"
    if value.scores != "auto":
        sentence += f", its scores are {value.scores}"
    cut = value.detail.get(CUT, 0.0)
    if cut:
        sentence += f"; task.max_detections cuts weaker objects on {cut:.0%} of the images"
    return f"{sentence}; {value.note}" if value.note else sentence
