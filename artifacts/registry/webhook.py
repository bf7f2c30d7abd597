"""What MLflow's webhooks say: verified, once, and only what is known here.

MLflow signs as Standard Webhooks has it (https://www.standardwebhooks.com): HMAC-SHA256 over
`id.timestamp.body`. A delivery that it repeats keeps its id. Knows neither HTTP nor Prefect.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from artifacts.registry.requests import REQUEST, Request

#: Headers, in small letters.
ID, TIMESTAMP, SIGNATURE = (
    f"x-mlflow-{word}" for word in ("delivery-id", "timestamp", "signature")
)

#: Seconds that a timestamp may be off: MLflow repeats for up to three minutes.
TOLERANCE_S = 300

#: Aliases that follow the records.
_OURS = ("champion-", "previous-")

#: Letters of a name, at most.
_MOST_LETTERS = 300


@dataclass(frozen=True, kw_only=True)
class RegistryEvent:
    """Something that a flow is to be started for."""

    kind: Literal["promote", "ship", "moved"]
    """moved: an alias that follows the records was set or removed."""
    model: str
    version: str = ""
    recipe: str = ""


@dataclass(frozen=True, kw_only=True)
class JudgedDelivery:
    """What becomes of a delivery."""

    status: int
    """For the answer: 200 it is in order; 400 it cannot be read; 401 it is not MLflow's."""
    reason: str
    event: RegistryEvent | None = None
    """None: nothing is to be done."""
    delivery: str = ""
    """Its id."""


class Inbox:
    """Judges deliveries.

    Args:
        secrets: Any of them may have signed; more than one while a secret is being changed.
        clock: Seconds since 1970.
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def judge(self, headers: Mapping[str, str], body: bytes) -> JudgedDelivery:
        """Say what becomes of a delivery; one that is in order counts as seen.

        Args:
            headers: Names in small letters.
            body: As it came.
        """
        delivery, stamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
        if not (
            delivery and len(delivery) <= _MOST_LETTERS and stamp.isascii() and stamp.isdigit()
        ):
            return JudgedDelivery(status=401, reason="it has no id or no timestamp")
        if not self._signed(delivery, stamp, body, headers.get(SIGNATURE, "")):
            return JudgedDelivery(status=401, reason="its signature is not by our secret")
        now = self._clock()
        if len(stamp) > 12 or abs(now - int(stamp)) > TOLERANCE_S:
            return JudgedDelivery(
                status=401, reason=f"its timestamp is off by over {TOLERANCE_S} s"
            )
        try:
            event = _event(json.loads(body))
        except (ValueError, RecursionError) as error:
            return JudgedDelivery(status=400, reason=f"its body cannot be read ({error})"[:200])
        with self._lock:
            self._seen = {k: at for k, at in self._seen.items() if now - at < 2 * TOLERANCE_S}
            if delivery in self._seen:
                return JudgedDelivery(
                    status=200, reason="it was delivered before", delivery=delivery
                )
            self._seen[delivery] = now
        reason = "nothing is to be done" if event is None else event.kind
        return JudgedDelivery(status=200, reason=reason, event=event, delivery=delivery)

    def forget(self, delivery: str) -> None:
        """It could not be passed on: the same delivery may come again."""
        with self._lock:
            self._seen.pop(delivery, None)

    def _signed(self, delivery: str, stamp: str, body: bytes, header: str) -> bool:
        given = [one.encode() for one in header.split()[:8]]
        held = False
        for secret in self._secrets:
            mac = hmac.new(secret, f"{delivery}.{stamp}.".encode() + body, hashlib.sha256)
            wanted = b"v1," + base64.b64encode(mac.digest())
            for signature in given:
                held |= hmac.compare_digest(wanted, signature)
        return held


def _event(said: Any) -> RegistryEvent | None:
    """What is to be done; None: it is of no kind that is known here.

    Raises:
        ValueError: It is not as MLflow writes it.
    """
    if not isinstance(said, dict) or not isinstance(said.get("data"), dict):
        raise ValueError("no mapping with `data`")
    about = (said.get("entity"), said.get("action"))
    data = said["data"]
    model, version = data.get("name"), data.get("version")
    if about in (("model_version_alias", "created"), ("model_version_alias", "deleted")):
        alias = data.get("alias")
        if isinstance(alias, str) and alias.startswith(_OURS):
            return RegistryEvent(kind="moved", model=_name(model))
        return None
    if about == ("model_version", "created"):
        tags = data.get("tags")
        text = tags.get(REQUEST, "") if isinstance(tags, dict) else ""
    elif about == ("model_version_tag", "set") and data.get("key") == REQUEST:
        text = data.get("value")
    else:
        return None
    if not isinstance(text, str) or not text.strip():
        return None
    request = Request(model=_name(model), version=_name(version), text=text[:_MOST_LETTERS])
    if request.kind == "unknown":
        return None  # the next poll answers it
    return RegistryEvent(
        kind=request.kind, model=request.model, version=request.version, recipe=request.recipe
    )


def _name(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_LETTERS:
        raise ValueError("a name is missing, or too long")
    return value
