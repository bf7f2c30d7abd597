"""Events that flows of engineworks tell Prefect, and that its automations start flows by.

An event is posted and its answer awaited: who passes on what somebody else has told may then ask
for it again. Knows Prefect's API, nothing of what an event means.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.events import Event, Resource

log = logging.getLogger("engineworks.flow")

#: Somebody asks in MLflow that a version be promoted, or its network shipped.
PROMOTE, SHIP = "engineworks.registry.promote", "engineworks.registry.ship"
#: An alias that follows the records was moved.
MOVED = "engineworks.registry.moved"

#: What people are told of, where `make deploy` was given a sink.
PROMOTED, ROLLED_BACK = "engineworks.promoted", "engineworks.rolled-back"
UNDELIVERED = "engineworks.not-delivered"
NOTICES = (PROMOTED, ROLLED_BACK, UNDELIVERED)


def tell(name: str, about: str, payload: Mapping[str, Any]) -> None:
    """Post an event.

    Args:
        name: One of this module's.
        about: What it is about, e.g. `yolox_nano/7`.
        payload: Strings and numbers.

    Raises:
        httpx.HTTPError: Prefect's server does not answer, or refuses it.
    """
    resource = Resource(
        {"prefect.resource.id": f"engineworks.model.{about}", "prefect.resource.name": about}
    )
    event = Event(event=name, resource=resource, payload=dict(payload))
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")])


def notice(
    name: str, *, model: str, variant: str, version: str, what: str, reason: str, who: str = ""
) -> None:
    """Tell people of something that is so, whether or not they can be told.

    Without a server of Prefect that stays nobody listens.
    """
    if "PREFECT_API_URL" not in os.environ:
        return
    payload = {
        "event": name, "model": model, "variant": variant, "version": version, "what": what,
        "reason": reason[:1000], "who": who or "not told",
    }  # fmt: skip
    try:
        tell(name, model, payload)
    except Exception as error:  # a move stands, whoever hears of it
        log.warning("nobody was told: %s", type(error).__name__)
