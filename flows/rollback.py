"""Make the version live again that was live and good before.

`python -m flows.rollback MODEL --variant V`, or the deployment `rollback/registry`. The version
that is left is never gone back to: a second rollback goes further back.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.rollback import main
    from flows.commands.signals import end

    end(main())

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.commands.outcome import WHO
from flows.fleet.machine import marked_as_running
from flows.promote import state_of
from flows.steps import deliver as delivery
from flows.steps import promote as steps


@flow(name="rollback", flow_run_name="rollback {model}", validate_parameters=True)
def rollback(
    model: Annotated[str, Field(min_length=1, description="Name of the registered model")],
    variant: Annotated[
        str, Field(description="One variant, as openvino/int8; empty: where there is only one")
    ] = "",
    to: Annotated[
        str, Field(description="A version of its history; empty: the last live and good one")
    ] = "",
    why: Annotated[str, Field(description="The reason, for the history")] = "",
    now: Annotated[
        bool,
        Field(description="Devices take it as soon as they hear of it, and do not watch it"),
    ] = False,
    dry_run: Annotated[bool, Field(description="Only say what would become of it")] = False,
) -> State[Any]:
    """Go back to an earlier version of one variant.

    Returns:
        Completed; Failed when somebody else moved it meanwhile.

    Raises:
        DeliveryError: It is to be so now, and this machine publishes nothing.
        StoreError: There is none to go back to, or MLflow or the store does not answer.
        ArtifactError: A history is not whole.
    """
    with marked_as_running():
        if now:
            delivery.repository()  # else no device would hear of it
        name = steps.only(model, variant)
        outcome = steps.back(model, name, to, who=WHO.get(), why=why, dry_run=dry_run)
        repairs = [] if dry_run else delivery.after_a_move(model, now=now) + steps.shown(model)
    for line in repairs:
        get_run_logger().warning("%s: %s", model, line)
    return state_of([outcome], WHO.get())


__all__ = ["rollback"]
