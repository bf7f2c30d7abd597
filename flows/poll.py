"""Start what people have asked for in MLflow, by the tag `engineworks.request` of a version.

`python -m flows.poll`, or the deployment `poll/registry` by its schedule: it finds what a webhook
has lost, and all that is asked for where there are no webhooks.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.poll import main
    from flows.commands.signals import end

    end(main())

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows.commands.outcome import tell
from flows.fleet.machine import marked_as_running
from flows.steps import requests


@flow(name="poll", flow_run_name="poll", validate_parameters=True)
def poll(
    model: Annotated[str, Field(description="Name of one registered model; empty: all")] = "",
) -> State[Any]:
    """Have a run made for each request that waits.

    Returns:
        Completed; Failed when for one no run can be made.

    Raises:
        StoreError: MLflow does not answer.
    """
    with marked_as_running():
        started = requests.start_all(model)
    lines = [
        f"{one.model} version {one.version}: {one.text}: {one.outcome}, {one.reason}"
        for one in started
    ]
    for line in lines:
        get_run_logger().info("%s", line)
    tell(started)
    if any(one.outcome == "failed" for one in started):
        return Failed(message="; ".join(lines)[:2000])
    return Completed(message="; ".join(lines)[:2000] or "nothing is asked for")


__all__ = ["poll"]
