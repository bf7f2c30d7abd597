"""Put a registered version in the champion's place, if every gate opens.

`python -m flows.promote MODEL`, or the deployment `promote/registry`. Nothing is delivered to
devices: it says which version is live, in the store and in MLflow's aliases.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.promote import main
    from flows.commands.signals import end

    end(main())

from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from engineworks.promotion.gates import Limits
from flows.commands.outcome import Promotion, tell
from flows.fleet import events
from flows.fleet.machine import marked_as_running
from flows.steps import deliver as delivery
from flows.steps import promote as steps
from flows.steps import requests


@flow(name="promote", flow_run_name="promote {model}", validate_parameters=True)
def promote(
    model: Annotated[str, Field(min_length=1, description="Name of the registered model")],
    variant: Annotated[
        str, Field(description="One variant, as openvino/int8; empty: all that have a candidate")
    ] = "",
    version: Annotated[str, Field(description="One version; empty: the candidate")] = "",
    accept: Annotated[
        tuple[Literal["accuracy", "age", "data", "latency"], ...],
        Field(description="What you take upon yourself where it cannot be told, or differs"),
    ] = (),
    max_drop: Annotated[
        float, Field(gt=0, description="Largest loss of the metric against the champion")
    ] = 0.01,
    slower_than: Annotated[
        float, Field(gt=0, description="Largest p50 / the champion's p50, on one machine")
    ] = 1.1,
    max_age_days: Annotated[
        float, Field(gt=0, description="Largest age of the run that judged the version")
    ] = 30.0,
    dry_run: Annotated[bool, Field(description="Only say what would become of it")] = False,
    shadow: Annotated[
        tuple[str, ...],
        Field(description="Records of `engineworks shadow` on the worker: one must speak for it"),
    ] = (),
    asked: Annotated[
        bool, Field(description="Only while the version carries a request in MLflow")
    ] = False,
) -> State[Any]:
    """Hold versions against their champions, and put those in their place that pass every gate.

    Returns:
        Completed when every version passed; Failed, with the gates, when one did not.

    Raises:
        StoreError: MLflow or the store does not answer, or there is nothing to promote.
        ArtifactError: A history is not whole, or a record of a shadow run is none.
    """
    limits = Limits(max_drop=max_drop, slower_than=slower_than, max_age_days=max_age_days)
    shadows = steps.shadow_evidence(shadow)
    with marked_as_running(), requests.answering(model, version, asked=asked):
        if asked and not requests.stands(model, version, "promote"):
            return Completed(message="nothing is asked for any more")
        wanted = steps.candidates(model, variant, version)
        repairs = [] if dry_run else steps.shown(model)
        outcomes = [
            steps.promote_one(
                model, name, number, limits=limits, accept=accept, who=requests.who(asked=asked),
                dry_run=dry_run, shadows=shadows,
            )
            for name, number in wanted
        ]  # fmt: skip
        if not dry_run:
            requests.answer(outcomes)
        repairs += [] if dry_run else steps.shown(model) + delivery.after_a_move(model)
    for line in repairs:
        get_run_logger().warning("%s: %s", model, line)
    return state_of(outcomes, requests.who(asked=asked))


def state_of(outcomes: list[Promotion], who: str) -> State[Any]:
    """The state of a run that moved versions, with what became of each; people are told of it."""
    lines = [
        f"{promotion.variant}: version {promotion.version}: {promotion.outcome}, {promotion.reason}"
        for promotion in outcomes
    ]
    for line in lines:
        get_run_logger().info("%s", line)
    tell(outcomes)
    moved = {"promoted": events.PROMOTED, "rolled back": events.ROLLED_BACK}
    for promotion in outcomes:
        if promotion.outcome in moved:
            events.notice(
                moved[promotion.outcome], model=promotion.model, variant=promotion.variant,
                version=promotion.version, what=promotion.outcome, reason=promotion.reason, who=who,
            )  # fmt: skip
    bad = ("refused", "pending", "overtaken", "failed")
    if any(promotion.outcome in bad for promotion in outcomes):
        return Failed(message="; ".join(lines))
    return Completed(message="; ".join(lines))


__all__ = ["promote"]
