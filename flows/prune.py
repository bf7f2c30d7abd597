"""Remove what runs have left behind and nothing needs any more.

`python -m flows.prune` says what may go; `--apply` removes it. The deployment `prune/weekly` does
so on a schedule.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.prune import main

    raise SystemExit(main())

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from artifacts.promotion.restorable import LAST
from flows.fleet.machine import marked_as_running
from flows.steps.prune import Keep, plan, take, words


@flow(name="prune", validate_parameters=True)
def prune(
    last: Annotated[int, Field(ge=1, description="Runs of every model that are kept")] = 20,
    days: Annotated[
        float,
        Field(ge=1, description="What the bucket and Prefect keep at least, by its last use"),
    ] = 30.0,
    versions: Annotated[
        int, Field(ge=1, description="Versions of every history that can be gone back to")
    ] = LAST,
    same_registry: Annotated[
        list[str], Field(description="Other addresses of the registry, which summaries name")
    ] = [],  # noqa: B006 - Prefect's form wants a value
    apply: Annotated[bool, Field(description="Remove it; else it is only said")] = False,
) -> State[Any]:
    """Remove what no registered version, no machine, no living run and none of the last runs needs.

    Returns:
        Completed with what has gone, or may go.

    Raises:
        StoreError: MLflow or the store does not answer: what is needed must be known first.
    """
    with marked_as_running():
        keep = Keep(last=last, days=days, versions=versions, same_registry=tuple(same_registry))
        removal = plan(keep)
        items = take(keep, removal) if apply else removal.all
    for line in words(items):
        get_run_logger().info("%s: %s", "removed" if apply else "may go", line.strip())
    said = "; ".join(line.strip() for line in words(items)) or "nothing"
    return Completed(message=f"{'removed' if apply else 'may go'}: {said}")


__all__ = ["prune"]
