"""An MLflow server that is away for a while is waited for, as the other servers are.

What is logged comes at the end of a run: minutes of work must not depend on a server that
restarts just then. Knows only whether a server answers; what is asked of it is the caller's.
"""

from __future__ import annotations

import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from artifacts.registry.mlflow_log import HINT, public_uri
from engineworks.deadlines import within
from engineworks.errors import StoreError

log = logging.getLogger("engineworks.flow")

T = TypeVar("T")

#: Seconds that a server may be away; ENGINEWORKS_MLFLOW_PATIENCE_S sets others.
PATIENCE_S = 480.0
#: Pause between two looks, and between two words about it.
LOOK_S, SAY_S = 3.0, 60.0
#: How long an answer of its health page may take.
HEALTH_S = 5.0
#: Answers of a proxy whose server is away.
BEHIND = (502, 503, 504)


def patiently(home: Path, work: Callable[[], T]) -> T:
    """Do something with MLflow; while its server does not answer, wait and begin anew.

    Args:
        home: State folder.
        work: What to do; may be begun several times. Raises StoreError as `speaking`.

    Raises:
        StoreError: The server was away for too long, or answers and something else is wrong.
    """
    patience_s = float(os.environ.get("ENGINEWORKS_MLFLOW_PATIENCE_S") or PATIENCE_S)
    until: float | None = None
    uri = public_uri(home)
    while True:
        # Its own client would try for minutes, in silence, where a server takes connections alone.
        if patience_s and away(uri):
            until = until or time.monotonic() + patience_s
            if not _is_back(uri, until):
                raise StoreError(
                    f"MLflow at {uri} did not answer for {patience_s:.0f} s", hint=HINT
                )
        try:
            return work()
        except StoreError:
            if not patience_s or not away(uri):
                raise


def away(uri: str) -> bool:
    """Whether `uri` is that of a server, and it does not answer."""
    if not uri.startswith(("http://", "https://")):
        return False

    def ask() -> None:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=HEALTH_S):  # noqa: S310
            pass

    try:
        within(2 * HEALTH_S, ask)
        return False
    except urllib.error.HTTPError as error:
        return error.code in BEHIND  # any other answer is one
    except (OSError, ValueError, HTTPException):
        return True


def _is_back(uri: str, until: float) -> bool:
    """Wait until a server answers; False: it has not until then."""
    said = -SAY_S
    while away(uri):
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        if time.monotonic() - said >= SAY_S:
            said = time.monotonic()
            log.warning("MLflow at %s does not answer, waiting up to %.0f s", uri, left_s)
        time.sleep(min(LOOK_S, left_s))
    return time.monotonic() < until
