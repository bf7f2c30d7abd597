"""The end of `ship`: one summary of all facts, and everywhere it is shown."""

from __future__ import annotations

import dataclasses
import os
import time

from artifacts import prefect_ui
from artifacts import summary as summaries
from artifacts.registry import confirmed, mlflow_log, mlflow_wait, ownership, versions
from artifacts.registry.ownership import Owner
from artifacts.report import page as report
from artifacts.summary import Summary
from engineworks import recipe as recipes
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.timing import Comparison
from engineworks.prepared import PreparedRun
from engineworks.recipe import Loaded
from engineworks.specs import DataSpec
from tasks import log
from tasks._job import Job
from tasks._run import FINISHED, Run, home


def assemble(
    job: Job, prepared: PreparedRun, outcomes: list[VariantOutcome], comparison: Comparison | None
) -> Summary:
    """Gather a run's facts; pure."""
    model = prepared.model
    assert model.analysis is not None  # noqa: S101 - `prepare` fills it
    best = comparison.recommended if comparison else ""
    variants = map(summaries.variant, outcomes)
    return Summary(
        schema=summaries.SCHEMA,
        run_id=job.run.run_id,
        name=job.recipe.name,
        recipe=job.loaded.address or str(job.loaded.path),
        recipe_sha256=job.loaded.sha256,
        host=prepared.host,
        size=model.size,
        budget=job.recipe.budget,
        data=_as_written(model.data, job.recipe.data),
        reference=model.reference,
        exported=model.exported,
        simplified=model.simplified,
        analysis=model.analysis,
        calibration=model.calibration,
        variants=tuple(
            dataclasses.replace(variant, recommended=variant.name == best) for variant in variants
        ),
        comparison=comparison,
        stages=tuple(job.run.timings),
        wall_s=0.0,
        overhead_s=0.0,
    )


def _as_written(data: PinnedData | None, spec: DataSpec | None) -> PinnedData | None:
    """Data as the recipe names it: stages read the boxes from the store.

    Photos of another machine lie where they were unpacked here, not where its recipe says.
    """
    if data is None or spec is None or data.spec.images != spec.images:
        return data
    return dataclasses.replace(data, spec=spec)


def owner_of(loaded: Loaded, host: HostCard) -> Owner:
    """Who a recipe is to the model registry."""
    recipe = loaded.recipe
    return ownership.owner(
        f"{loaded.origin} on {host.name}", recipe.task, loaded.labels, recipe.model.input,
        recipe.preprocess,
    )  # fmt: skip


def refuse_another(loaded: Loaded, host: HostCard) -> None:
    """Refuse, before minutes are spent, a recipe whose name is that of another model.

    Raises:
        StoreError: MLflow has a model of this name that is another one.
    """
    owner = owner_of(loaded, host)
    if confirmed.owns(home(), loaded.recipe.name, owner):
        return  # and is asked at the end, as ever
    if not mlflow_log.exists(home()) or mlflow_wait.away(mlflow_log.tracking_uri(home())):
        return
    with mlflow_log.speaking(home()):
        versions.refuse_another(mlflow_log.client(home()), loaded.recipe.name, owner)


def publish(job: Job, summary: Summary) -> Summary:
    """Report, MLflow, registry, Prefect UI, summary.json; then point `runs/latest` at them."""
    run = job.run
    summary = _with_times(run, summary)
    # The file itself may be another one by now: what ran is logged.
    (run.folder / log.RECIPE).write_text(job.loaded.text, encoding="utf-8")
    (run.folder / log.RESOLVED).write_text(recipes.resolved(job.loaded), encoding="utf-8")
    # Whatever happens to MLflow, the verdicts are not lost.
    _write(run, summary)
    _point_latest(run)
    published = log.log(job, summary, owner_of(job.loaded, summary.host))
    variants = tuple(
        dataclasses.replace(variant, registered=published.registered.get(variant.name))
        for variant in summary.variants
    )
    summary = dataclasses.replace(summary, variants=variants, mlflow=published.logged)
    prefect_ui.show(summary, run.folder)
    summary = _with_times(run, summary)
    _write(run, summary)
    finished = FINISHED.get()
    if finished is not None:
        finished.append(run.folder)
    return summary


def _with_times(run: Run, summary: Summary) -> Summary:
    wall_s = time.time() - run.started
    return dataclasses.replace(
        summary,
        stages=(*run.timings, *run.elsewhere),
        wall_s=wall_s,
        overhead_s=wall_s - run.busy_s - run.waited_s,
    )


def _write(run: Run, summary: Summary) -> None:
    summaries.write(summary, run.folder / "summary.json")
    partial = run.folder / "report.html.part"
    partial.write_text(report.render(summary, run.store), encoding="utf-8")
    partial.rename(run.folder / "report.html")


def _point_latest(run: Run) -> None:
    """`runs/latest` -> this run, replaced in one step."""
    link = home() / "runs" / "latest"
    fresh = link.with_name(f".latest-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(run.run_id, target_is_directory=True)
    fresh.replace(link)
