"""Take calibration images from a function of the user's."""

from __future__ import annotations

from engineworks import usercode
from engineworks.facts.int8 import Generated
from engineworks.facts.prepared import PreparedModel
from engineworks.specs import CalibrationSpec, DataSpec
from engineworks.stages import generate as stage
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Take calibration images from a function of the user's.")


def generate(job: Job, model: PreparedModel, spec: CalibrationSpec) -> DataSpec:
    """The folder of what the user's function makes."""
    code = usercode.pin(spec.images, job.loaded.folder)
    request = stage.GenerateRequest(
        shared=model.shared,
        function=spec.images,
        limit=spec.limit,
        code=(code,),
        code_sha256=code.sha256,
        folder=str(job.loaded.folder),
    )
    samples = TASK.call(job.run, request, job.recipe.limits.calibrate_s, note=_note)
    return DataSpec(
        images=str(job.run.store.open(samples.artifact)), on_bad_image=spec.on_bad_image
    )


def _note(value: Generated) -> str:
    return f"{value.images} images"
