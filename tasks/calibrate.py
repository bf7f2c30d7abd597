"""Collect statistics of every activation over the calibration images."""

from __future__ import annotations

from engineworks.evaluate import datasets
from engineworks.facts.data import PinnedData
from engineworks.facts.int8 import Calibration
from engineworks.facts.prepared import PreparedModel
from engineworks.specs import CalibrationSpec
from engineworks.stages import calibrate as stage
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(
    stage.STAGE, "Collect statistics of every activation over the calibration images."
)


def calibrate(
    job: Job, model: PreparedModel, images: PinnedData, spec: CalibrationSpec
) -> Calibration:
    """Statistics for all targets; where there are no labels, some of the images are kept."""
    request = stage.CalibrateRequest(
        shared=model.shared,
        onnx=model.onnx,
        data=images,
        size=model.size,
        minimum=spec.minimum,
        judged_too=datasets.in_both(images, model.data),
        keep=stage.KEPT if model.reference.value is None else 0,
    )
    return TASK.call(job.run, request, job.recipe.limits.calibrate_s, note=_note)


def _note(value: Calibration) -> str:
    coverage = value.coverage
    warned = f", {len(coverage.warnings)} warnings" if coverage.warnings else ""
    return f"{coverage.samples} samples, {coverage.tensors} tensors{warned}"
