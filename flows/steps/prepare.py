"""The first half of `ship`: from recipe to an analysed graph, at the model's size and others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engineworks import recipe as recipes
from engineworks import targets, usercode, verdict
from engineworks.errors import RecipeError, StageError, said
from engineworks.evaluate import datasets
from engineworks.evaluate import pinned as pinning
from engineworks.evaluate.datasets import spread
from engineworks.evaluate.judge import CUT
from engineworks.export import analyze as statistics
from engineworks.export import given
from engineworks.facts.data import PinnedData
from engineworks.facts.int8 import Calibration, Gathered
from engineworks.facts.model import Analysis, Exported, PinnedModel, Reference, Simplified
from engineworks.facts.plan import Plan
from engineworks.manifest import Artifact
from engineworks.recipe import Loaded
from engineworks.specs import CalibrationSpec, DataSpec, Size, TaskSpec
from engineworks.stages import kept
from engineworks.stages.requests import (
    AnalyzeRequest,
    CalibrateRequest,
    ExportRequest,
    GatherRequest,
    ReferenceRequest,
    ScreenRequest,
    Shared,
    SimplifyRequest,
)
from tasks._run import Run, call
from tasks.analyze import analyze
from tasks.calibrate import calibrate
from tasks.export import export
from tasks.gather import gather
from tasks.reference import reference
from tasks.screen import screen
from tasks.simplify import simplify


@dataclass(frozen=True, kw_only=True)
class Model:
    """The prepared model at one input size."""

    size: Size
    shared: Shared
    pinned: PinnedModel
    data: PinnedData | None
    reference: Reference
    exported: Exported
    simplified: Simplified | None
    analysis: Analysis | None
    calibration: Calibration | None = None

    graph: Artifact | None = None
    """Another graph to build from: the one that was quantized."""

    @property
    def onnx(self) -> Artifact:
        """The graph that is built from."""
        if self.graph is not None:
            return self.graph
        return self.simplified.onnx if self.simplified else self.exported.onnx

    @property
    def quantized(self) -> bool:
        """Whether the source itself is a Q/DQ model."""
        return bool(self.analysis and {"QuantizeLinear", "DequantizeLinear"} & set(
            self.analysis.operators
        ))  # fmt: skip


def with_graph(model: Model, onnx: Artifact) -> Model:
    """The same model, built from another graph."""
    return dataclasses.replace(model, graph=onnx)


def prepare_model(run: Run, loaded: Loaded, plan: Plan) -> Model:
    """Everything that all variants share, at the model's own size."""
    recipe = loaded.recipe
    source = recipes.pin_model(loaded, run.store)
    shared = Shared(
        name=recipe.name,
        preprocess=recipe.preprocess,
        # The file's name says nothing; its content is in `labels`.
        task=dataclasses.replace(recipe.task, labels=()),
        labels=loaded.labels,
        recipe_sha256=loaded.sha256,
        store=str(run.store.root),
    )
    data = None
    if recipe.data is not None:
        data = _screened(run, loaded, shared, recipe.data, "")
    model = _prepare(run, loaded, shared, source, data, recipe.model.input.size, None)
    names = tuple(
        dict.fromkeys(
            v.target
            for v in plan.variants
            # A vendor's package that other machines have and this one has not can say nothing.
            if v.action != "skip" and not targets.load(v.target).missing(plan.host)
        )
    )
    model = dataclasses.replace(model, analysis=_analyzed(run, loaded, model, names))
    if not any(v.precision == "int8" and v.action != "skip" for v in plan.variants):
        return model
    return dataclasses.replace(model, calibration=_calibrate(run, loaded, model))


def _analyzed(run: Run, loaded: Loaded, model: Model, names: tuple[str, ...]) -> Analysis:
    """What the graph consists of; a crash costs the figures, not the run."""
    try:
        found: Analysis = call(
            run, analyze,
            AnalyzeRequest(
                onnx=model.onnx,
                size=model.size,
                targets=names,
                tools=targets.tools(*names),
                limit_s=loaded.recipe.limits.export_s / 2,
                folder=str(run.folder / "logs" / "analyze"),
                store=str(run.store.root),
            ),
            Analysis,
            limit_s=loaded.recipe.limits.export_s,
            note=lambda value: f"{value.parameters / 1e6:.2f} M parameters, "
            f"{value.flops / 1e9:.2f} GFLOPs, {value.nodes} nodes"
            + (f", not counted: {', '.join(value.uncounted)}" if value.uncounted else ""),
        )  # fmt: skip
    except StageError as error:
        return statistics.nothing(said(error.message), {})
    return found


def settled(run: Run, spec: DataSpec, pinned: PinnedData) -> PinnedData:
    """Screened data with paths of this run.

    Paths are not part of the key: a moved data set is the same data set. Boxes are read from
    where `screen` left them, as it understood them.
    """
    if pinned.truth is not None:
        spec = dataclasses.replace(spec, annotations=str(run.store.entry(pinned.truth)))
    return dataclasses.replace(pinned, spec=spec)


def _calibrate(run: Run, loaded: Loaded, model: Model) -> Calibration | None:
    spec = loaded.recipe.calibration
    if spec is None:
        return None  # the model file is quantized already, or `quantize` says what is missing
    if given.too_old(model.onnx):
        return None  # `quantize` says so at once
    images = calibration_data(spec) if not spec.made else _gathered(run, loaded, model, spec)
    shared = (
        model.shared if spec.annotations else dataclasses.replace(model.shared, task=TaskSpec())
    )
    pinned = spread(_screened(run, loaded, shared, images, "calibration"), spec.limit)
    found: Calibration = call(
        run, calibrate,
        CalibrateRequest(
            shared=model.shared,
            onnx=model.onnx,
            data=pinned,
            size=model.size,
            minimum=spec.minimum,
            judged_too=datasets.in_both(pinned, model.data),
            keep=kept.IMAGES if model.reference.value is None else 0,
        ),
        Calibration,
        limit_s=loaded.recipe.limits.calibrate_s,
        note=lambda value: f"{value.coverage.samples} samples, {value.coverage.tensors} tensors"
        + (f", {len(value.coverage.warnings)} warnings" if value.coverage.warnings else ""),
    )  # fmt: skip
    return found


def _screened(run: Run, loaded: Loaded, shared: Shared, spec: DataSpec, variant: str) -> PinnedData:
    """Images fixed by their bytes as they are now; every stage after this one reads the same."""
    digests = pinning.digests(datasets.root_of(spec), datasets.list_images(spec))
    answers = pinning.hold_answers(spec, run.store, loaded.recipe.name)
    found: PinnedData = call(
        run, screen,
        ScreenRequest(
            shared=shared,
            data=spec,
            digests=digests,
            answers=answers,
            bytes_sha256=pinning.bytes_sha256(digests, answers),
        ),
        PinnedData,
        limit_s=loaded.recipe.limits.export_s, variant=variant,
        note=lambda value: ", ".join(
            (
                f"{len(value.files)} images" + (f", {value.objects} labels" if not variant else ""),
                *([f"{len(value.bad)} skipped"] if value.bad else ()),
                *value.notes,
            )
        ),
    )  # fmt: skip
    return settled(run, spec, found)


def _gathered(run: Run, loaded: Loaded, model: Model, spec: CalibrationSpec) -> DataSpec:
    """The folder of what the user's function makes."""
    code = usercode.pin(spec.images, loaded.folder)
    made: Gathered = call(
        run, gather,
        GatherRequest(
            shared=model.shared,
            function=spec.images,
            limit=spec.limit,
            code=(code,),
            code_sha256=code.sha256,
            folder=str(loaded.folder),
        ),
        Gathered,
        limit_s=loaded.recipe.limits.calibrate_s,
        note=lambda value: f"{value.images} images",
    )  # fmt: skip
    return DataSpec(images=str(run.store.open(made.artifact)), on_bad_image=spec.on_bad_image)


def calibration_data(spec: CalibrationSpec) -> DataSpec:
    """Calibration images as data that is screened like any other."""
    return DataSpec(
        images=spec.images,
        annotations=spec.annotations,
        on_bad_image=spec.on_bad_image,
        max_pixels=spec.max_pixels,
    )


def _refuse_fixed_batch(loaded: Loaded, exported: Exported) -> None:
    largest = max(loaded.recipe.benchmark.batches)
    if largest > 1 and not exported.onnx.manifest.dynamic_batch:
        raise RecipeError(
            f"benchmark.batches asks for {largest}, the model's batch is fixed at "
            f"{exported.onnx.manifest.inputs[0].shape[0]}",
            hint="use benchmark.batches: [1], or a model file with an open batch",
        )


def prepare_size(run: Run, loaded: Loaded, model: Model, size: Size) -> Model:
    """The same model at a further input size, for the benchmark; no metric is computed."""
    return _prepare(
        run, loaded, model.shared, model.pinned, model.data, size, model.exported.chosen
    )


def _of_source(found: Reference) -> str:
    """What the source model has shown, in words."""
    if found.value is None:
        return found.note
    words = f"{found.metric} {found.value:.4f} of the source model"
    if found.scores != "auto":
        words += f", its scores are {found.scores}"
    cut = found.detail.get(CUT, 0.0)
    if cut:
        words += f"; task.max_detections cuts weaker objects on {cut:.0%} of the images"
    return f"{words}; {found.note}" if found.note else words


def _prepare(
    run: Run, loaded: Loaded, shared: Shared, pinned: PinnedModel, data: PinnedData | None,
    size: Size, exporter: str | None,
) -> Model:  # fmt: skip
    recipe = loaded.recipe
    label = f"{size[0]}x{size[1]}" if exporter else ""
    truth: Reference = call(
        run, reference,
        ReferenceRequest(
            shared=shared, model=pinned, data=data, size=size, score=exporter is None
        ),
        Reference,
        limit_s=recipe.limits.check_s, variant=label,
        note=_of_source,
    )  # fmt: skip
    verdict.refuse_frame(truth)
    verdict.refuse_chance(truth, recipe.data.accept if recipe.data else ())
    # What was settled on the source goes with every artifact that is made of it.
    shared = dataclasses.replace(shared, task=dataclasses.replace(shared.task, scores=truth.scores))
    spec = recipe.export
    if exporter in spec.exporters:
        spec = dataclasses.replace(spec, exporters=(exporter,))
    exported: Exported = call(
        run, export,
        ExportRequest(
            shared=shared, model=pinned, spec=spec, reference=truth.artifact, size=size
        ),
        Exported,
        limit_s=recipe.limits.export_s, variant=label,
        note=lambda value: f"{value.chosen} kept: {value.reason}",
    )  # fmt: skip
    _refuse_fixed_batch(loaded, exported)
    simplified: Simplified | None = None
    if spec.simplify:
        folder = run.folder / "logs" / f"simplify_{label}".rstrip("_")
        simplified = call(
            run, simplify,
            SimplifyRequest(
                shared=shared,
                onnx=exported.onnx,
                reference=truth.artifact,
                tolerance=spec.tolerance,
                limit_s=recipe.limits.export_s / 2,
                folder=str(folder),
            ),
            Simplified,
            limit_s=recipe.limits.export_s, variant=label,
            note=lambda value: f"{value.nodes_before} -> {value.nodes_after} nodes"
            if value.kept
            else f"rolled back: {value.reason}",
        )  # fmt: skip
    return Model(
        size=size,
        shared=shared,
        pinned=pinned,
        data=data,
        reference=truth,
        exported=exported,
        simplified=simplified,
        analysis=None,
    )
