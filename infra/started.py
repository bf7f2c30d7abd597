"""The automations by which what the receiver of MLflow's webhooks tells becomes a run of a flow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

#: Names, by which they are found again.
PROMOTE = "engineworks: a request in MLflow promotes"
SHIP = "engineworks: a request in MLflow ships"
MOVED = "engineworks: a moved alias is put right"


def by_events(client: Any) -> dict[str, Any]:
    """Name -> automation; None where its deployment is not there yet.

    Args:
        client: Prefect's, synchronous.
    """
    from flows.fleet import events

    model, version = "{{ event.payload.model }}", "{{ event.payload.version }}"
    recipe, registered = "{{ event.payload.recipe }}", "{{ event.payload.registered }}"
    return {
        PROMOTE: _automation(
            client, PROMOTE, events.PROMOTE, "promote/registry",
            {"model": model, "version": version, "asked": True},
        ),
        SHIP: _automation(
            client, SHIP, events.SHIP, "ship/registered",
            {"recipe": recipe, "registered": registered},
        ),
        MOVED: _automation(
            client, MOVED, events.MOVED, "history/registry", {"model": model, "repair": True}
        ),
    }  # fmt: skip


def on(*names: str) -> Any:
    """Each event of these names."""
    from prefect.events.schemas.automations import EventTrigger, Posture

    return EventTrigger(
        expect={*names}, match={"prefect.resource.id": "engineworks.*"}, posture=Posture.Reactive,
        threshold=1, within=timedelta(0),
    )  # fmt: skip


def _automation(
    client: Any, name: str, event: str, deployment: str, parameters: dict[str, Any]
) -> Any:
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore
    from prefect.exceptions import ObjectNotFound

    try:
        there = client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        return None
    start = RunDeployment(
        source="selected", deployment_id=there.id, parameters=parameters, job_variables=None
    )
    return AutomationCore(name=name, trigger=on(event), actions=[start])
