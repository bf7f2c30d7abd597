"""Looking again and again, so that many devices do not ask in step. Knows no metadata."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from engineworks.delivery.agent import Agent
from engineworks.errors import EngineworksError

_log = logging.getLogger(__name__)


def loop(
    agent: Agent, every_s: float, *, sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[float, float], float], rounds: int = 0,
) -> None:  # fmt: skip
    """Look again and again, spread over time; what could not be asked is asked more seldom.

    Args:
        agent: The device.
        every_s: Between two looks, on average.
        sleep: Waits.
        uniform: Random number between two.
        rounds: How many looks; 0: without an end.
    """
    failures, done = 0, 0
    while not rounds or done < rounds:
        try:
            failures = failures + 1 if agent.once().exit_code == 3 else 0
        except EngineworksError as error:
            _log.error("%s", error.line)
            failures += 1
        done += 1
        base_s = every_s * min(2 ** min(failures, 10), 16)
        sleep(uniform(0.5, 1.5) * base_s)
