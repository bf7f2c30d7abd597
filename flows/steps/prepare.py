"""The first half of `ship`: from recipe to an analysed graph, at the model's size and others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engineworks import precisions, recipe, targets, verdict
from engineworks.evaluate.datasets import sample_evenly
from engineworks.export import given
from engineworks.facts.data import PinnedData
from engineworks.facts.int8 import Calibration
from engineworks.facts.model import PinnedModel
from engineworks.facts.plan import Plan
from engineworks.facts.prepared import PreparedModel, Shared
from engineworks.prepared import PreparedRun, prepared
from engineworks.specs import CalibrationSpec, DataSpec, Size, TaskSpec
from tasks import seal
from tasks._job import Job
from tasks.analyze import analyze
from tasks.calibrate import calibrate
from tasks.export import export
from tasks.generate import generate
from tasks.reference import reference
from tasks.simplify import simplify
from tasks.validate import validate


def prepare(job: Job, plan: Plan) -> PreparedRun:
    """Everything that all variants share, at the model's own size and at the others."""
    shared = _shared(job)
    images = _images(job, shared)
    model = _own_size(job, plan, shared, images)
    extra = [size for size in job.recipe.benchmark.sizes if size != model.size]
    sized = (
        _at(job, model.shared, model.pinned, images, size, model.exported.chosen) for size in extra
    )
    return prepared(job.loaded, job.host, (model, *sized))


@dataclass(frozen=True, kw_only=True)
class Images:
    """What a recipe gives to look at."""

    data: PinnedData | None
    """Labelled, if the task has labels."""
    calibration: PinnedData | None
    """Those of calibration, where there is no data: they show what is in use, too."""


def _images(job: Job, shared: Shared) -> Images:
    spec, others = job.recipe.data, job.recipe.calibration
    data = validate(job, shared, spec) if spec is not None else None
    if data is not None or others is None or others.made:
        return Images(data=data, calibration=None)
    return Images(data=None, calibration=_calibration_images(job, shared, others))


def _shared(job: Job) -> Shared:
    return Shared(
        name=job.recipe.name,
        preprocess=job.recipe.preprocess,
        # The file's name says nothing; its content is in `labels`.
        task=dataclasses.replace(job.recipe.task, labels=()),
        labels=job.loaded.labels,
        recipe_sha256=job.loaded.sha256,
        store=str(job.run.store.root),
    )


def _own_size(job: Job, plan: Plan, shared: Shared, images: Images) -> PreparedModel:
    source = recipe.pin_model(job.loaded, job.run.store)
    model = _at(job, shared, source, images, job.recipe.model.input.size)
    building = [variant for variant in plan.variants if variant.action != "skip"]
    names = tuple(
        dict.fromkeys(
            variant.target
            for variant in building
            # A vendor's package that other machines have and this one has not can say nothing.
            if not targets.load(variant.target).missing_requirements(plan.host)
        )
    )
    model = dataclasses.replace(
        model, analysis=analyze(job, model, names), leaving=seal.photos(job)
    )
    if not any(precisions.get(variant.precision).calibrated for variant in building):
        return model
    return dataclasses.replace(model, calibration=_calibration(job, model, images.calibration))


def _at(
    job: Job, shared: Shared, pinned: PinnedModel, images: Images, size: Size, exporter: str = ""
) -> PreparedModel:  # fmt: skip
    """The model at one input size; at a further one no metric is computed.

    Args:
        job: The run.
        shared: What stages need of the recipe.
        pinned: The source model.
        images: Those of the recipe.
        size: Input (height, width).
        exporter: The one that was kept at the model's own size; empty for that size.
    """
    truth = reference(job, shared, pinned, images.data, size, images.calibration)
    verdict.refuse_frame(truth)
    verdict.refuse_chance(truth, job.recipe.data.accept if job.recipe.data else ())
    # What was settled on the source goes with every artifact that is made of it.
    shared = dataclasses.replace(shared, task=dataclasses.replace(shared.task, scores=truth.scores))
    exported = export(job, shared, pinned, truth, size, exporter)
    label = f"{size[0]}x{size[1]}" if exporter else ""
    return PreparedModel(
        size=size,
        shared=shared,
        pinned=pinned,
        data=images.data,
        reference=truth,
        exported=exported,
        simplified=simplify(job, shared, exported, truth, label)
        if job.recipe.export.simplify
        else None,
    )


def _calibration(job: Job, model: PreparedModel, known: PinnedData | None) -> Calibration | None:
    spec = job.recipe.calibration
    if spec is None:
        return None  # the model file is quantized already, or `quantize` says what is missing
    if given.too_old(model.onnx):
        return None  # `quantize` says so at once
    data = known or _calibration_images(job, model.shared, spec, model)
    return calibrate(job, model, sample_evenly(data, spec.limit), spec)


def _calibration_images(
    job: Job, shared: Shared, spec: CalibrationSpec, model: PreparedModel | None = None
) -> PinnedData:
    """The images of calibration; those that a function makes need the model."""
    images = generate(job, model, spec) if spec.made and model else calibration_data(spec)
    if not spec.annotations:
        shared = dataclasses.replace(shared, task=TaskSpec())
    return validate(job, shared, images, "calibration")


def calibration_data(spec: CalibrationSpec) -> DataSpec:
    """Calibration images as data that is validated like any other."""
    return DataSpec(
        images=spec.images,
        annotations=spec.annotations,
        on_bad_image=spec.on_bad_image,
        max_pixels=spec.max_pixels,
    )
