"""Looking again and again, so that many devices do not ask in step. Knows no metadata."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from engineworks.delivery import cards, reports
from engineworks.delivery.agent import Agent
from engineworks.delivery.enrolment import Enrolled
from engineworks.delivery.home import Home
from engineworks.delivery.status import Status
from engineworks.errors import EngineworksError

_log = logging.getLogger(__name__)


def loop(
    agent: Agent, every_s: float, *, sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[float, float], float], rounds: int = 0,
    told: Callable[[Status], None] = lambda status: None, glance_s: float = 0.0,
) -> None:  # fmt: skip
    """Look again and again, spread over time; what could not be asked is asked more seldom.

    Args:
        agent: The device.
        every_s: Between two looks, on average.
        sleep: Waits.
        uniform: Random number between two.
        rounds: How many looks; 0: without an end.
        told: Is told what came of each.
        glance_s: In between it is asked so often whether the repository calls; 0: never.
    """
    failures, done = 0, 0
    while not rounds or done < rounds:
        try:
            status = agent.once()
            failures = failures + 1 if status.exit_code == 3 else 0
            told(status)
        except EngineworksError as error:
            _log.error("%s", error.line)
            failures += 1
        done += 1
        base_s = every_s * min(2 ** min(failures, 10), 16)
        left_s = uniform(0.5, 1.5) * base_s
        while left_s > 0 and not (glance_s and agent.called()):
            pause_s = min(left_s, glance_s or left_s)
            sleep(pause_s)
            left_s -= pause_s


def report(home: Home, enrolled: Enrolled, status: Status) -> None:
    """Send a signed report of a look, where the card says whither."""
    try:
        address = cards.load(home).reports
        wrong = reports.say(home, enrolled, status, address) if address else ""
    except EngineworksError as error:
        wrong = error.line
    if wrong:
        _log.warning("the report was not sent: %s", wrong)
