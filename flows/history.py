"""Who made which version live, when, why and on which evidence: verified, then shown.

`python -m flows.history MODEL`. Repairs MLflow's aliases where they say something else, with
`--repair`.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.history import main
    from flows.commands.signals import end

    end(main())

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from engineworks.errors import EngineworksError
from flows.commands.outcome import History, tell
from flows.fleet.machine import marked_as_running
from flows.steps import deliver as delivery
from flows.steps import promote as steps


@flow(name="history", flow_run_name="history {model}", validate_parameters=True)
def history(
    model: Annotated[str, Field(description="Name of a registered model; empty: all")] = "",
    variant: Annotated[str, Field(description="One variant; empty: all")] = "",
    repair: Annotated[
        bool, Field(description="Make MLflow's aliases say what the history says")
    ] = False,
) -> State[Any]:
    """Verify the history of a model, and say it.

    Returns:
        Completed when every entry fits; Failed, naming the entry, when one does not.

    Raises:
        StoreError: MLflow or the store does not answer, or nothing was ever promoted.
        ArtifactError: A record cannot be read, or it is to be repaired and is not whole.
    """
    records: list[History] = []
    broken: list[str] = []
    with marked_as_running():
        for name in [model] if model else steps.models(variant):
            try:
                lines = steps.shown(name) if repair else []
                lines += delivery.after_a_move(name) if lines else []  # a champion may have gone
                records += steps.histories(name, variant)
            except EngineworksError as error:
                if model:
                    raise
                lines, broken = [], [*broken, f"{name}: {error.line}"]  # it stops no other
            for line in lines:
                get_run_logger().warning("%s: %s", name, line)
    tell(records)
    broken += [record.broken for record in records if record.broken]
    if broken:
        return Failed(message="; ".join(broken))
    moves = sum(len(record.moves) for record in records)
    return Completed(message=f"{moves} moves of {len(records)} variants, every entry fits")


__all__ = ["history"]
