"""How the server does that follows a device's links: which engine answers, and whether it is ready.

Asks `/health/ready` of `engineworks serve`. Knows no slots and moves nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from engineworks.errors import EngineworksError

#: Seconds between two questions, and for an answer.
EVERY_S, ANSWER_S = 0.5, 5.0

#: A server takes so long at most until it answers with another engine.
CHANGE_S = 60.0

#: Questions in a row without a good answer that count as illness.
BAD = 3


def ask(server: str) -> dict[str, Any] | None:
    """What a server says of itself; None: it does not answer."""
    import urllib3
    from urllib3.exceptions import HTTPError

    try:
        answer = urllib3.request(
            "GET", f"{server.rstrip('/')}/health/ready", timeout=ANSWER_S, retries=False
        )
        data = json.loads(answer.data)
    except (HTTPError, OSError, ValueError, EngineworksError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("models"), dict) else None


def watch(
    server: str, name: str, sha256: str, watch_s: float, *,
    asked: Callable[[str], dict[str, Any] | None] = ask,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:  # fmt: skip
    """Wait until a server answers with an engine, then see how it does.

    Args:
        server: Its address.
        name: What it calls the engine.
        sha256: The engine's identity.
        watch_s: From the first answer on.
        asked: Asks it.
        sleep: Waits.
        clock: Seconds.

    Returns:
        What is wrong, in words; empty: nothing.
    """
    begun, first, bad = clock(), 0.0, 0
    while True:
        said = asked(server)
        model = (said or {}).get("models", {}).get(name, {})
        serving = model.get("digest", "") if isinstance(model, dict) else ""
        good = said is not None and bool(said.get("ready")) and serving == sha256
        now = clock()
        if good:
            first, bad = first or now, 0
        elif first:
            bad += 1
        if first and now - first >= watch_s:
            return "" if good else _words(server, name, said, serving)
        if bad >= BAD or (not first and now - begun > CHANGE_S):
            return _words(server, name, said, serving)
        sleep(EVERY_S)


def _words(server: str, name: str, said: dict[str, Any] | None, serving: str) -> str:
    if said is None:
        return f"{server} does not answer any more"
    if not said.get("ready"):
        return f"{server} is not ready"
    return f"{server} answers for {name} with {serving[:12] + '...' if serving else 'nothing'}"
