"""Complete what waited for machines: `ship --fleet` left it pending, now they are there.

Started by a worker that registers, or by a person (`python -m flows.complete`), on any machine
that reaches the store and MLflow. Needs nothing of the machine that began: no recipe, no weights,
no photos. Where no machine can take anything yet, nothing is run or logged.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.complete import main
    from flows.commands.signals import end

    end(main())

import dataclasses
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from artifacts import fleet
from artifacts.registry import mlflow_log
from artifacts.store.remote import RemoteStore
from engineworks.errors import ArtifactError, EngineworksError
from flows.commands.outcome import Completion, tell
from flows.fleet import elsewhere, waiting
from flows.fleet.attachments import unpack
from flows.fleet.machine import marked_as_running
from flows.fleet.waiting import Waiting
from flows.steps import publish
from tasks import _run, log
from tasks._job import Job


@flow(name="complete", validate_parameters=True)
def complete(
    model: Annotated[
        str, Field(description="Name of one model, as in its recipe; empty: all of which any waits")
    ] = "",
) -> State[Any]:
    """Build what was pending and can be built now, and register it beside what is there.

    Returns:
        Completed, also when something still waits; Failed when a model could not be gone on with,
        a required variant turned out not to ship, or there is no model of that name.

    Raises:
        StoreError: There is no store that machines share, or it does not answer.
    """
    store = elsewhere.shared(_run.open_home_store())
    completions = []
    with marked_as_running():
        for name in [model] if model else fleet.waiting(store.bucket):
            try:
                outcome = _complete(store, name)
            except EngineworksError as error:  # one model must not sink the others
                outcome = Completion(model=name, outcome="failed", reason=error.line)
            get_run_logger().info("%s: %s %s", name, outcome.outcome, outcome.reason)
            completions.append(outcome)
    tell(completions)
    message = (
        "; ".join(f"{completion.model}: {completion.outcome}" for completion in completions)
        or "nothing waits"
    )
    bad = any(completion.outcome == "failed" or completion.missed for completion in completions)
    return Failed(message=message) if bad else Completed(message=message)


def _complete(store: RemoteStore, name: str) -> Completion:
    """Go on with one model, as far as the machines that are there can."""
    try:
        entry = waiting.read(store.bucket, name)
    except ArtifactError as error:
        return Completion(model=name, outcome="left", reason=error.line)
    if entry is None:
        if not mlflow_log.known(_run.home(), name):
            names = ", ".join(fleet.waiting(store.bucket)) or "none"
            raise ArtifactError(
                f"there is no model {name!r}: nothing waits under this name in "
                f"{store.bucket.address}, and MLflow at {mlflow_log.public_uri(_run.home())} has "
                "no run of it",
                hint=f"give a name as in its recipe; of these something waits: {names}",
            )
        return Completion(model=name, outcome="completed", reason="nothing of it waits")
    record, etag = entry
    loaded = record.prepared.loaded(_run.home() / log.RECIPE, store.root)
    plan = elsewhere.plan(loaded, store, record.prepared.host)
    if not waiting.ready(record, plan):
        reasons = (f"{v.name}: {v.reason}" for v in waiting.concerned(record, plan))
        return Completion(
            model=name, outcome="waits", reason="; ".join(reasons), pending=record.variants
        )
    if foreign := waiting.foreign_mlflow(record):
        hint = "set MLFLOW_TRACKING_URI to one server on both, or run the command there"
        return Completion(
            model=name, outcome="left", reason=f"{foreign}; next: {hint}", pending=record.variants
        )
    return _go_on(store, record, etag)


def _go_on(store: RemoteStore, record: Waiting, etag: str) -> Completion:
    """The second half of `ship --fleet`, from the store alone."""
    run = _run.open_run(record.name, store)
    prepared, folder = unpack(record.prepared, store)
    loaded = prepared.loaded(run.folder / log.RECIPE, folder)
    job = Job(run=run, loaded=loaded, host=prepared.host)
    built = elsewhere.build_elsewhere(job, prepared)
    if not fleet.still_waiting(store.bucket, record.name, etag):
        # Aliases must not go back to older versions.
        reason = "a newer run of this model has ended meanwhile, which counts; nothing is logged"
        return Completion(model=record.name, outcome="left", reason=reason)
    if built.waiting == record.variants:
        reasons = (
            f"{outcome.planned.name}: {outcome.verdict.reason}"
            for outcome in built.outcomes
            if outcome.planned.name in built.waiting
        )
        return Completion(
            model=record.name, outcome="waits", reason="; ".join(reasons), pending=built.waiting
        )
    summary = publish.publish(job, publish.assemble(job, prepared, built.outcomes, None))
    waiting.keep(store.bucket, dataclasses.replace(record, variants=built.waiting), etag)
    return Completion(
        model=record.name,
        outcome="waits" if built.waiting else "completed",
        reason=f"{len(summary.shipped)} of {len(summary.variants)} shipped",
        pending=built.waiting,
        missed=(*(variant.name for variant in summary.missed), *summary.failed_packages),
        run_id=summary.run_id,
    )


__all__ = ["complete"]
