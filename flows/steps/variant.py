"""The second half of `ship`: one variant from graph to verdict, and the final comparison.

A variant that fails never sinks the others.
"""

from __future__ import annotations

import dataclasses

from prefect import get_run_logger

from artifacts.summary import Engine, Variant
from engineworks import targets
from engineworks.errors import BuildError, EngineworksError, InputError, StoreError
from engineworks.facts.engine import Built, Checked
from engineworks.facts.int8 import Quantized, Requantized
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.facts.timing import Benchmark, Comparison, Rival
from engineworks.recipe import Loaded
from engineworks.specs import BenchmarkSpec
from engineworks.stages.requests import (
    BenchmarkRequest,
    BuildRequest,
    CheckRequest,
    CompareRequest,
    NamedEngine,
    QuantizeRequest,
    RequantizeRequest,
    SizedEngine,
)
from engineworks.verdict import decide, first_row, waiting
from flows.steps.prepare import Model, with_graph
from tasks._cache import library_sha256
from tasks._run import Run, call
from tasks.benchmark import benchmark
from tasks.build import build
from tasks.check import check
from tasks.compare import compare
from tasks.quantize import quantize
from tasks.requantize import requantize


def ship_variant(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model, sized: list[Model]
) -> Variant:
    """Build, check, time and judge one variant; whatever happens, it gets a verdict."""
    source = model
    row = Variant(
        name=planned.name,
        target=planned.target,
        precision=planned.precision,
        required=planned.required,
        verdict="skipped",
        reason=planned.reason,
    )
    if planned.action == "skip":
        return row
    quantized = rival = None
    try:
        if planned.precision in targets.SEARCHED:
            quantized = _quantize(run, loaded, plan, planned, model)
            model = with_graph(model, quantized.onnx)
        built = _build(run, loaded, plan, planned, model)
        needs = targets.load(planned.target).cannot_run(plan.host)
        if needs:
            checked = _replay(run, loaded, plan, planned, source, built)
            return _pending(row, loaded, built, quantized, checked, needs)
        checked = _check(run, loaded, plan, planned, source, built)
        engines = [SizedEngine(size=model.size, engine=built.engine)]
        judged = built
        for other in sized:
            if quantized is not None:
                other = _requantize(run, loaded, plan, planned, quantized, other, model)
            small = _build(run, loaded, plan, planned, other)
            engines.append(SizedEngine(size=other.size, engine=small.engine))
            # One engine of another precision than asked fails the variant, whatever its size.
            judged = small if judged.truth.holds and not small.truth.holds else judged
        timed = _benchmark(run, loaded, plan, planned, engines)
        if quantized is not None and planned.precision == "int8":
            rival = _against_next(run, loaded, plan, planned, source, built)
    except (StoreError, InputError):
        raise  # a full disk, or a photo that was replaced, is no fact about this variant
    except EngineworksError as error:
        reason = f"{error.message.splitlines()[0]}; next: {error.hint}"
        return dataclasses.replace(row, verdict="failed", reason=reason, quantized=quantized)
    verdict = decide(
        loaded.recipe.budget, judged, checked, first_row(timed, *model.size), rival,
        loaded.recipe.int8.goal, quantized,
    )  # fmt: skip
    return dataclasses.replace(
        row,
        verdict=verdict.verdict,
        reason=verdict.reason,
        accuracy=checked.accuracy,
        parity=checked.parity,
        meaning=checked.meaning,
        precision_truth=built.truth,
        benchmark=timed.rows,
        environment=timed.environment,
        engine=_engine(built),
        predictions=checked.predictions,
        quantized=quantized,
        rival=rival,
        difference=checked.difference,
    )


def _replay(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model, built: Built
) -> Checked | None:
    """Check what an engine holds without its runtime; None where that cannot be."""
    if targets.load(planned.target).replayed is None:
        return None
    try:
        return _check(run, loaded, plan, planned, model, built, replay=True)
    except BuildError as error:  # the engine is whole; only this way of reading it is not
        get_run_logger().warning("%s is not checked here: %s", planned.name, error.message)
        return None


def _pending(
    row: Variant, loaded: Loaded, built: Built, quantized: Quantized | None,
    checked: Checked | None, needs: str,
) -> Variant:  # fmt: skip
    """The row of an engine that can be built here and opened elsewhere only."""
    verdict = waiting(loaded.recipe.budget, built, needs, quantized, checked)
    return dataclasses.replace(
        row,
        verdict=verdict.verdict,
        reason=verdict.reason,
        accuracy=checked.accuracy if checked else None,
        parity=checked.parity if checked else None,
        meaning=checked.meaning if checked else None,
        precision_truth=built.truth,
        engine=_engine(built),
        predictions=checked.predictions if checked else None,
        quantized=quantized,
        difference=checked.difference if checked else None,
    )


def _engine(built: Built) -> Engine:
    return Engine(
        sha256=built.engine.sha256, size_bytes=built.engine.size_bytes, uri=built.engine.uri
    )


def _quantize(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model
) -> Quantized:
    recipe = loaded.recipe
    found: Quantized = call(
        run, quantize,
        QuantizeRequest(
            shared=model.shared,
            onnx=model.onnx,
            calibration=model.calibration.artifact if model.calibration else None,
            reference=model.reference.artifact,
            target=planned.target,
            precision=planned.precision,
            options=planned.options,
            spec=recipe.int8,
            max_drop=recipe.budget.max_drop,
            data=model.data,
            samples=model.calibration.samples if model.calibration else None,
            size=model.size,
            threads=recipe.benchmark.threads,
            tools=targets.tools(planned.target),
            host=plan.host,
            folder=str(loaded.folder),
            code=model.pinned.code if ":" in recipe.task.layout else (),
            code_sha256=model.pinned.code_sha256 if ":" in recipe.task.layout else "",
            # Another library may write other graphs for the same question.
            journals=str(run.store.root.parent / "searches" / library_sha256()[:16]),
        ),
        Quantized,
        limit_s=recipe.int8.limit_s * 2 + recipe.limits.check_s,
        variant=planned.name,
        note=lambda value: f"{value.reason} ({value.evaluations} evaluations)",
    )  # fmt: skip
    return found


def _requantize(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, quantized: Quantized,
    other: Model, model: Model,
) -> Model:  # fmt: skip
    again: Requantized = call(
        run, requantize,
        RequantizeRequest(
            shared=model.shared,
            onnx=other.onnx,
            calibration=model.calibration.artifact if model.calibration else None,
            target=planned.target,
            precision=planned.precision,
            method=quantized.found.method,
            nodes=quantized.nodes,
            host=plan.host,
        ),
        Requantized,
        limit_s=loaded.recipe.limits.build_s,
        variant=_label(planned, loaded, other),
    )  # fmt: skip
    return with_graph(other, again.onnx)


def _against_next(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model, built: Built
) -> Rival | None:
    """Time INT8 side by side with the next higher precision of its target."""
    if model.quantized:
        return None  # there is no float graph to compare with
    ladder = targets.load(planned.target).precisions
    asked = {v.precision for v in plan.variants if v.target == planned.target}
    higher = [p for p in ladder[: ladder.index(planned.precision)] if p in asked] or [ladder[0]]
    other = dataclasses.replace(planned, precision=higher[-1])
    next_one = _build(run, loaded, plan, other, model)
    pair = (
        NamedEngine(variant=planned.name, engine=built.engine),
        NamedEngine(variant=other.name, engine=next_one.engine),
    )
    timed: Comparison = call(
        run, compare,
        CompareRequest(
            engines=pair,
            size=model.size,
            threads=loaded.recipe.benchmark.threads,
            tools=targets.tools(planned.target),
            host=plan.host,
            store=str(run.store.root),
        ),
        Comparison,
        limit_s=loaded.recipe.limits.benchmark_s,
        variant=planned.name,
        note=lambda value: value.reason,
    )  # fmt: skip
    mine, theirs = (
        next(c for c in timed.contenders if c.variant == named.variant) for named in pair
    )
    if mine.ci95 == (1.0, 1.0):  # this one is what the other's ratio is of
        speedup, interval = theirs.ratio, theirs.ci95
    else:
        speedup, interval = 1 / mine.ratio, (1 / mine.ci95[1], 1 / mine.ci95[0])
    return Rival(
        variant=other.name,
        speedup=speedup,
        ci95=interval,
        size_bytes=next_one.engine.size_bytes,
    )


def _label(planned: PlannedVariant, loaded: Loaded, model: Model) -> str:
    if model.size == loaded.recipe.model.input.size:
        return planned.name
    return f"{planned.name} {model.size[0]}x{model.size[1]}"


def _build(run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model) -> Built:
    target = targets.load(planned.target)
    built: Built = call(
        run, build,
        BuildRequest(
            shared=model.shared,
            onnx=model.onnx,
            reference=model.reference.artifact if target.needs_reference else None,
            target=planned.target,
            precision=planned.precision,
            options=planned.options,
            tools=targets.tools(planned.target),
            host=plan.host if target.host_bound else None,
            builder=plan.host,
            largest_batch=max(loaded.recipe.export.largest_batch, *loaded.recipe.benchmark.batches)
            if target.profiled
            else 0,
            limit_s=loaded.recipe.limits.build_s,
        ),
        Built,
        limit_s=loaded.recipe.limits.build_s,
        variant=_label(planned, loaded, model),
        note=lambda value: f"{value.engine.size_bytes / 2**20:.2f} MiB, {value.truth.delivered}",
    )  # fmt: skip
    return built


def _check(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, model: Model, built: Built,
    *, replay: bool = False,
) -> Checked:  # fmt: skip
    recipe = loaded.recipe
    # Without labels the source's own answers tell what those of a coarser engine mean.
    unlabelled = model.reference.value is None and planned.precision != "fp32"
    checked: Checked = call(
        run, check,
        CheckRequest(
            shared=model.shared,
            engine=built.engine,
            reference=model.reference.artifact,
            metric=model.reference.metric,
            value=model.reference.value,
            data=model.data,
            size=model.size,
            largest_batch=recipe.export.largest_batch,
            folder=str(loaded.folder),
            float_predictions=model.reference.predictions,
            code=model.pinned.code if ":" in recipe.task.layout else (),
            float_onnx=model.onnx if unlabelled else None,
            samples=model.calibration.samples if unlabelled and model.calibration else None,
            code_sha256=model.pinned.code_sha256 if ":" in recipe.task.layout else "",
            threads=recipe.benchmark.threads,
            tools=targets.tools(planned.target),
            host=plan.host,
            replay=replay,
        ),
        Checked,
        limit_s=recipe.limits.check_s,
        variant=planned.name,
        note=_checked_note,
    )  # fmt: skip
    return checked


def _checked_note(checked: Checked) -> str:
    largest = checked.parity.max_abs_diff
    parity = "cannot be compared" if largest is None else f"off by {largest:.1e}"
    parity += f", SNR {checked.parity.snr_db:.0f} dB"
    if checked.accuracy is None:
        found = checked.meaning
        return parity if found is None else f"{parity}; {found.reason or found.words}"
    return f"{checked.accuracy.metric} {checked.accuracy.value:.4f}, {parity}"


def _benchmark(
    run: Run, loaded: Loaded, plan: Plan, planned: PlannedVariant, engines: list[SizedEngine]
) -> Benchmark:
    timed: Benchmark = call(
        run, benchmark,
        BenchmarkRequest(
            engines=tuple(engines),
            spec=_served(loaded.recipe.benchmark, engines),
            tools=targets.tools(planned.target),
            host=plan.host,
            store=str(run.store.root),
        ),
        Benchmark,
        limit_s=loaded.recipe.limits.benchmark_s,
        variant=planned.name,
        note=lambda value: f"p50 {value.rows[0].p50_ms:.2f} ms at batch {value.rows[0].batch}",
    )  # fmt: skip
    return timed


def _served(spec: BenchmarkSpec, engines: list[SizedEngine]) -> BenchmarkSpec:
    """Of the batches to time, those that every engine takes."""
    most = min(sized.engine.manifest.batches(max(spec.batches))[1] for sized in engines)
    return dataclasses.replace(spec, batches=tuple(n for n in spec.batches if n <= most) or (most,))


def compare_shipped(
    run: Run, loaded: Loaded, plan: Plan, variants: list[Variant], model: Model
) -> Comparison | None:
    """Time the shipped variants side by side; None when there is nothing to compare."""
    shipped = [v for v in variants if v.verdict == "shipped" and v.engine is not None]
    if not shipped:
        return None
    try:
        return read_first(_compare(run, loaded, plan, shipped, model), shipped)
    except (StoreError, InputError):
        raise
    except EngineworksError as error:
        # Every variant has its verdict; only the advice which one to take is missing.
        get_run_logger().warning("no comparison: %s", error.message)
        return None


def read_first(timed: Comparison, shipped: list[Variant]) -> Comparison:
    """Recommend no engine of which only the numbers are known, however fast it is."""
    unknown = {v.name for v in shipped if v.unread}
    if timed.recommended not in unknown:
        return timed
    known = [c.variant for c in timed.contenders if c.variant not in unknown]
    words = f"what the answers of {timed.recommended} mean was not judged"
    if not known:
        hint = "look at them, or give labels in data"
        return dataclasses.replace(timed, recommended="", reason=f"{words}: {hint}")
    fastest = f"the fastest of those that are known; {words}"
    return dataclasses.replace(timed, recommended=known[0], reason=fastest)


def _compare(
    run: Run, loaded: Loaded, plan: Plan, shipped: list[Variant], model: Model
) -> Comparison:
    return call(
        run, compare,
        CompareRequest(
            engines=tuple(
                NamedEngine(variant=v.name, engine=run.store.get(v.engine.sha256))
                for v in shipped if v.engine is not None
            ),
            size=model.size,
            threads=loaded.recipe.benchmark.threads,
            tools=targets.tools(*(v.target for v in shipped)),
            host=plan.host,
            store=str(run.store.root),
        ),
        Comparison,
        limit_s=loaded.recipe.limits.benchmark_s,
        note=lambda value: f"{value.recommended}: {value.reason}",
    )  # fmt: skip
