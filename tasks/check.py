"""Hold an engine against the source model."""

from __future__ import annotations

from engineworks.facts.engine import Built, Checked
from engineworks.facts.prepared import PreparedModel
from engineworks.stages import check as stage
from tasks._job import VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Hold an engine against the source model.")


def check(job: VariantJob, model: PreparedModel, built: Built, *, replay: bool = False) -> Checked:
    """Parity, and the task metric or what its answers mean.

    Args:
        job: The variant.
        model: The model before it was quantized.
        built: The engine.
        replay: Run what it holds with ONNX Runtime in place of its own runtime.
    """
    code, code_sha256 = job.own_code(model)
    # Without labels the source's own answers tell what those of a coarser engine mean.
    unlabelled = model.reference.value is None and not job.precision.exact
    request = stage.CheckRequest(
        shared=model.shared,
        engine=built.engine,
        reference=model.reference.artifact,
        metric=model.reference.metric,
        value=model.reference.value,
        data=model.data,
        size=model.size,
        largest_batch=job.recipe.export.largest_batch,
        folder=str(job.loaded.folder),
        float_predictions=model.reference.predictions,
        code=code,
        float_onnx=model.onnx if unlabelled else None,
        samples=model.samples if unlabelled else None,
        code_sha256=code_sha256,
        threads=job.recipe.benchmark.threads,
        tools=job.tools,
        host=job.host,
        replay=replay,
    )
    return TASK.call(job.run, request, job.recipe.limits.check_s, job.planned.name, _note)


def _note(value: Checked) -> str:
    parity, accuracy, meaning = value.parity, value.accuracy, value.meaning
    largest = parity.max_abs_diff
    difference = "cannot be compared" if largest is None else f"off by {largest:.1e}"
    difference += f", SNR {parity.snr_db:.0f} dB"
    if accuracy is not None:
        return f"{accuracy.metric} {accuracy.value:.4f}, {difference}"
    return difference if meaning is None else f"{difference}; {meaning.reason or meaning.words}"
