"""Publish, signed, what is live of a model, for devices that ask.

`python -m flows.deliver MODEL`. What is live was moved by `promote` and `rollback`; this makes it
known to devices. They publish by themselves on a machine that has a repository; this repeats it.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.deliver import main
    from flows.commands.signals import end

    end(main())

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows.commands.outcome import tell
from flows.fleet.machine import marked_as_running
from flows.steps import deliver as steps


@flow(name="deliver", flow_run_name="deliver {model}", validate_parameters=True)
def deliver(
    model: Annotated[str, Field(min_length=1, description="Name of the registered model")],
    variant: Annotated[str, Field(description="One variant; empty: all")] = "",
    dry_run: Annotated[bool, Field(description="Only say what would be published")] = False,
) -> State[Any]:
    """Sign and publish what is live.

    Returns:
        Completed when all of it is published; Failed, naming the variants, when some is not.

    Raises:
        DeliveryError: This machine publishes nothing, or nothing was ever promoted.
        StoreError: MLflow or the store does not answer.
    """
    with marked_as_running():
        publications = steps.publish(model, variant, dry_run=dry_run)
    lines = [
        f"{item.variant}: version {item.version}: {item.outcome}, {item.reason}"
        for item in publications
    ]
    for line in lines:
        get_run_logger().info("%s", line)
    tell(publications)
    if not dry_run:
        steps.notice_failures(publications)
    if any(item.outcome == "failed" for item in publications):
        return Failed(message="; ".join(lines))
    return Completed(message="; ".join(lines))


__all__ = ["deliver"]
