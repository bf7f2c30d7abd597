"""Is what was promoted still as fast? Times it again, each version on the machine that built it.

`python -m flows.benchmark` or, every night, the deployment `benchmark/nightly`. Adds a point to
each version's time series in MLflow and fails, naming them, when versions have become slower, so
that Prefect's notifications tell somebody.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.benchmark import main
    from flows.commands.signals import end

    end(main())

from collections import Counter
from datetime import datetime, timezone
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from artifacts.registry import mlflow_wait, promoted
from artifacts.registry.mlflow_log import public_uri
from artifacts.registry.promoted import Promoted, Stage
from engineworks.bench.drift import judge
from engineworks.errors import EngineworksError
from engineworks.facts.timing import BenchmarkRow
from flows.commands.outcome import TimedVersion, tell
from flows.fleet.machine import marked_as_running
from flows.fleet.measuring import Untimed
from flows.fleet.nightly import Answer, time_all
from tasks import _run


@flow(name="benchmark", flow_run_name="benchmark {stage}", validate_parameters=True)
def benchmark(
    model: Annotated[str, Field(description="Name of one registered model; empty: all")] = "",
    stage: Annotated[
        Stage,
        Field(
            description="Versions with which alias: champion-<variant> (or production-<variant>, "
            "where there is none), candidate-<variant>"
        ),
    ] = "champion",
    slower_than: Annotated[
        float, Field(gt=0, description="Largest p50 now / p50 when registered that is no alarm")
    ] = 1.15,
) -> State[Any]:
    """Time every version with an alias of a stage, and hold it against its registration.

    Returns:
        Completed, also when a machine is away; Failed, with their names, when versions have
        become slower beyond doubt, or something went wrong.

    Raises:
        StoreError: MLflow or the store does not answer, or there is no such model.
    """
    versions = promoted.promoted(_run.home(), stage, model)
    if not versions:
        return Completed(message=_nothing(stage))
    with marked_as_running():
        run = _run.open_run("benchmark")
        answers = time_all(run, versions)
    timed = [
        _judged(version, answer, slower_than)
        for version, answer in zip(versions, answers, strict=True)
    ]
    for version in timed:
        get_run_logger().info("%s: %s, %s", name_of(version), version.outcome, version.reason)
    tell(timed)
    alarms = [version for version in timed if version.outcome in ("slower", "failed")]
    if alarms:
        return Failed(
            message="; ".join(
                f"{name_of(version)}: {version.outcome}, {version.reason}" for version in alarms
            )
        )
    counts = Counter(version.outcome for version in timed)
    return Completed(message=", ".join(f"{count} {word}" for word, count in counts.items()))


def name_of(version: TimedVersion) -> str:
    """A version, for people."""
    return f"{version.model} version {version.version} ({version.variant})"


def _nothing(stage: Stage) -> str:
    return (
        f"nothing is promoted: no version in MLflow at {public_uri(_run.home())} has an alias "
        f"{stage}-<variant>; next: "
        + (
            "ship the model"
            if stage == "candidate"
            else "python -m flows.promote MODEL, or time what has passed with stage: candidate"
        )
    )


def _judged(version: Promoted, answer: Answer, slower_than: float) -> TimedVersion:
    """What a measurement means; it is in MLflow then."""
    if isinstance(answer, BenchmarkRow):
        drift = judge(version.p50_ms, answer, slower_than)
        try:
            at = datetime.now(timezone.utc)
            mlflow_wait.patiently(
                _run.home(),
                lambda: promoted.note(_run.home(), version, answer, drift.ratio, at),
            )
        except EngineworksError as error:  # one version's run must not sink the others
            reason = f"it was timed and not logged: {error.line}"
            return _untimed(version, Untimed(outcome="failed", reason=reason))
        return TimedVersion(
            model=version.model,
            version=version.version,
            variant=version.variant,
            machine=version.machine,
            outcome=drift.outcome,
            reason=drift.reason,
            before_ms=version.p50_ms,
            p50_ms=answer.p50_ms,
            p95_ms=answer.p95_ms,
            throughput_per_s=answer.throughput_per_s,
            ratio=drift.ratio,
        )
    return _untimed(version, answer)


def _untimed(version: Promoted, why: Untimed) -> TimedVersion:
    return TimedVersion(
        model=version.model,
        version=version.version,
        variant=version.variant,
        machine=version.machine,
        outcome=why.outcome,
        reason=why.reason,
        before_ms=version.p50_ms or None,
    )


__all__ = ["benchmark"]
