"""The second half of `ship`: one variant from graph to verdict, and the final comparison.

A variant that fails never sinks the others.
"""

from __future__ import annotations

import dataclasses

from prefect import get_run_logger

from engineworks.errors import BuildError, EngineworksError, InputError, StoreError
from engineworks.facts.engine import Built, Checked
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.package import Packaged
from engineworks.facts.plan import PlannedVariant, Verdict
from engineworks.facts.prepared import PreparedModel
from engineworks.facts.sealed import SealedTest
from engineworks.facts.timing import Comparison, PrecisionComparison
from engineworks.prepared import PreparedRun
from engineworks.stages.benchmark import SizedEngine
from engineworks.verdict import decide, waiting
from tasks import compare as comparing
from tasks import seal as sealing
from tasks._job import Job, VariantJob
from tasks.benchmark import benchmark
from tasks.build import build
from tasks.check import check
from tasks.package import failure, package
from tasks.quantize import quantize
from tasks.requantize import requantize


def job_of(job: Job, planned: PlannedVariant, variants: tuple[PlannedVariant, ...]) -> VariantJob:
    """The part of a run that makes one of its variants."""
    beside = tuple(variant for variant in variants if variant.beside(planned))
    return VariantJob(run=job.run, loaded=job.loaded, host=job.host, planned=planned, beside=beside)


def ship_variant(job: VariantJob, prepared: PreparedRun) -> VariantOutcome:
    """Build, check, time and judge one variant; whatever happens, it gets a verdict."""
    planned = job.planned
    skipped = Verdict(verdict="skipped", reason=planned.reason)
    outcome = VariantOutcome(planned=planned, verdict=skipped)
    if planned.action == "skip":
        return outcome
    model = prepared.model
    try:
        if job.precision.searched:
            outcome = dataclasses.replace(outcome, quantized=quantize(job, model))
        outcome = _judged(job, prepared, outcome)
        outcome = dataclasses.replace(outcome, packages=_packaged(job, model, outcome))
        return dataclasses.replace(outcome, sealed=_sealed(job, model, outcome))
    except (StoreError, InputError):
        raise  # a full disk, or a photo that was replaced, is no fact about this variant
    except EngineworksError as error:
        failed = Verdict(verdict="failed", reason=error.line)
        return dataclasses.replace(outcome, verdict=failed)


def _judged(job: VariantJob, prepared: PreparedRun, outcome: VariantOutcome) -> VariantOutcome:
    source, budget, quantized = prepared.model, job.recipe.budget, outcome.quantized
    model = source if quantized is None else source.with_graph(quantized.onnx)
    built = build(job, model)
    outcome = dataclasses.replace(outcome, built=built)
    needs = job.target.cannot_run(job.host)
    if needs:
        checked = _replayed(job, source, built)
        verdict = waiting(budget, built, needs, quantized, checked)
        return dataclasses.replace(outcome, checked=checked, verdict=verdict)
    checked = check(job, source, built)
    engines, judged = [SizedEngine(size=model.size, engine=built.engine)], built
    for other in prepared.sized:
        if quantized is not None:
            other = requantize(job, other, model, quantized)
        small = build(job, other)
        engines.append(SizedEngine(size=other.size, engine=small.engine))
        # One engine of another precision than asked fails the variant, whatever its size.
        if judged.delivered_precision.holds and not small.delivered_precision.holds:
            judged = small
    timed = benchmark(job, engines)
    compared = _against_next(job, source, built) if job.precision.must_gain else None
    outcome = dataclasses.replace(outcome, checked=checked, timed=timed, compared=compared)
    verdict = decide(
        budget, judged, checked, timed.first(*model.size), compared, job.recipe.int8.goal,
        quantized,
    )  # fmt: skip
    return dataclasses.replace(outcome, verdict=verdict)


def _packaged(
    job: VariantJob, model: PreparedModel, outcome: VariantOutcome
) -> tuple[Packaged, ...]:
    """What servers load of a shipped variant; one that cannot be made never sinks the variant."""
    built, timed = outcome.built, outcome.timed
    if not outcome.shipped or built is None or timed is None:
        return ()
    packages = []
    for spec in job.recipe.packages:
        try:
            packages.append(package(job, model, built, timed, spec))
        except (StoreError, InputError):
            raise
        except EngineworksError as error:
            packages.append(failure(spec, error))
    return tuple(packages)


def _sealed(job: VariantJob, model: PreparedModel, outcome: VariantOutcome) -> SealedTest | None:
    """The test that goes with a shipped variant; that it cannot be made costs no engine."""
    spec = job.recipe.sealed
    if spec is None or not outcome.shipped or outcome.built is None:
        return None
    try:
        return sealing.seal(job, model, outcome.built, spec)
    except (StoreError, InputError):
        raise
    except EngineworksError as error:
        get_run_logger().warning("%s has no sealed test: %s", job.planned.name, error.message)
        return sealing.failure(error)


def _replayed(job: VariantJob, model: PreparedModel, built: Built) -> Checked | None:
    """Check what an engine holds without its runtime; None where that cannot be."""
    if job.target.replayed is None:
        return None
    try:
        return check(job, model, built, replay=True)
    except BuildError as error:  # the engine is whole; only this way of reading it is not
        get_run_logger().warning("%s is not checked here: %s", job.planned.name, error.message)
        return None


def _against_next(
    job: VariantJob, model: PreparedModel, built: Built
) -> PrecisionComparison | None:
    """Time a variant side by side with the next higher precision of its target."""
    if model.quantized:
        return None  # there is no float graph to compare with
    precisions = job.target.precisions
    asked = {variant.precision for variant in job.beside}
    higher = precisions[: precisions.index(job.planned.precision)]
    higher = tuple(p for p in higher if p in asked) or precisions[:1]
    other = dataclasses.replace(job.planned, precision=higher[-1])
    baseline = build(dataclasses.replace(job, planned=other), model)
    pair = (job.planned.name, built.engine), (other.name, baseline.engine)
    return comparing.against(job, *pair, other.target, model.size)


def compare_shipped(
    job: Job, outcomes: list[VariantOutcome], model: PreparedModel
) -> Comparison | None:
    """Time the shipped variants side by side; None when there is nothing to compare."""
    shipped = [outcome for outcome in outcomes if outcome.shipped]
    if not shipped:
        return None
    engines = {outcome.planned.name: outcome.built.engine for outcome in shipped if outcome.built}
    names = {outcome.planned.target for outcome in shipped}
    try:
        return read_first(comparing.compare(job, engines, names, model.size), shipped)
    except (StoreError, InputError):
        raise
    except EngineworksError as error:
        # Every variant has its verdict; only the advice which one to take is missing.
        get_run_logger().warning("no comparison: %s", error.message)
        return None


def read_first(timed: Comparison, shipped: list[VariantOutcome]) -> Comparison:
    """Recommend no engine of which only the numbers are known, however fast it is."""
    unknown = {outcome.planned.name for outcome in shipped if outcome.unread}
    if timed.recommended not in unknown:
        return timed
    known = [c.variant for c in timed.contenders if c.variant not in unknown]
    doubt = f"what the answers of {timed.recommended} mean was not judged"
    if not known:
        hint = "look at them, or give labels in data"
        return dataclasses.replace(timed, recommended="", reason=f"{doubt}: {hint}")
    fastest = f"the fastest of those that are known; {doubt}"
    return dataclasses.replace(timed, recommended=known[0], reason=fastest)
