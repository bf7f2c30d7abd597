"""Has MLflow send webhooks to the receiver: made once, mended when it is run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.registry.mlflow_log import client, public_uri, speaking
from engineworks.errors import StoreError

#: By which it is found again.
NAME = "engineworks"

EVENTS: tuple[Any, ...] = (
    "model_version.created", "model_version_tag.set", "model_version_alias.created",
    "model_version_alias.deleted",
)  # fmt: skip

_HINT = (
    "MLflow's server needs MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY (a Fernet key); for http:// also "
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https, for an address that is not public "
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true. Until then the poll finds what is asked for"
)


def register(home: Path, url: str, secret: str) -> str:
    """Let MLflow send what the receiver knows; what was done, in words.

    Args:
        home: State folder.
        url: The receiver's, as MLflow's server sees it.
        secret: Signs what it sends.

    Raises:
        StoreError: MLflow does not answer, or does not take it.
    """
    with speaking(home):
        mlflow = client(home)
        try:
            there = [hook for hook in _hooks(mlflow) if hook.name == NAME]
            for extra in there[1:]:
                mlflow.delete_webhook(extra.webhook_id)
            if there:
                mlflow.update_webhook(
                    there[0].webhook_id,
                    url=url,
                    events=list(EVENTS),
                    secret=secret,
                    status="ACTIVE",
                )
            else:
                made = mlflow.create_webhook(name=NAME, url=url, events=list(EVENTS), secret=secret)
                try:
                    _hooks(mlflow)
                except Exception:  # it cannot read what it has written: nor anything else, then
                    mlflow.delete_webhook(made.webhook_id)
                    raise
        except Exception as error:
            raise StoreError(
                f"MLflow at {public_uri(home)} does not take the webhook ({str(error)[:300]})",
                hint=_HINT,
            ) from None
    return f"MLflow sends to {url}"


def _hooks(mlflow: Any) -> list[Any]:
    hooks, token = [], None
    while True:
        page = mlflow.list_webhooks(page_token=token)
        hooks += page
        token = page.token
        if not token:
            return hooks
