"""The automations that tell people what was promoted, rolled back, or did not reach devices.

Made only where the environment of `make deploy` names a sink. Where it names none, one that is
there stays as it is.
"""

from __future__ import annotations

import os
from typing import Any

#: Address that gets JSON by POST.
WEBHOOK = "ENGINEWORKS_NOTIFY_WEBHOOK"
#: Where mail goes, as Apprise writes it: mailtos://user:password@host:587?from=a@b.org&to=c@d.org
MAIL = "ENGINEWORKS_NOTIFY_MAIL"

#: Names, by which they are found again.
BY_WEBHOOK = "engineworks: tell a webhook of promotions and rollbacks"
BY_MAIL = "engineworks: send mail of promotions and rollbacks"

#: Names of the blocks that keep the addresses.
_BLOCKS = {WEBHOOK: "engineworks-webhook", MAIL: "engineworks-mail"}

_SUBJECT = "engineworks: {{ event.payload.model }} {{ event.payload.what }}"
_BODY = (
    "{{ event.payload.model }}: {{ event.payload.variant }}: version {{ event.payload.version }}: "
    "{{ event.payload.what }}, {{ event.payload.reason }} (by {{ event.payload.who }})"
)


def by_events(*, dry_run: bool) -> dict[str, Any]:
    """Name -> automation, for the sinks that the environment names; None in a dry run.

    Raises:
        RuntimeError: What it names is no address.
    """
    from flows.fleet import events

    wanted = {}
    for variable, name in ((WEBHOOK, BY_WEBHOOK), (MAIL, BY_MAIL)):
        address = os.environ.get(variable, "")
        if not address:
            continue
        schemes = ("https://", "http://") if variable == WEBHOOK else ("mailtos://", "mailto://")
        if not address.startswith(schemes):
            raise RuntimeError(f"{variable} must begin with {' or '.join(schemes)}")
        wanted[name] = None if dry_run else _automation(name, variable, address, events.NOTICES)
    return wanted


def _automation(name: str, variable: str, address: str, told: tuple[str, ...]) -> Any:
    from prefect.blocks.notifications import SlackWebhook
    from prefect.blocks.webhook import Webhook
    from prefect.events.actions import CallWebhook, SendNotification
    from prefect.events.schemas.automations import AutomationCore
    from pydantic import SecretStr

    from infra.started import on

    action: Any
    if variable == WEBHOOK:
        headers: Any = {"Content-Type": "application/json"}
        block: Any = Webhook(url=SecretStr(address), headers=headers)
        action = CallWebhook(
            block_document_id=block.save(_BLOCKS[variable], overwrite=True),
            payload="{{ event.payload | tojson }}",
        )
    else:
        # Prefect's server knows no block for SMTP; this one hands any address to Apprise.
        block = SlackWebhook(url=SecretStr(address))
        action = SendNotification(
            block_document_id=block.save(_BLOCKS[variable], overwrite=True),
            subject=_SUBJECT, body=_BODY,
        )  # fmt: skip
    return AutomationCore(name=name, trigger=on(*told), actions=[action])
