"""What time it is on a device whose clock may be unset, or set back.

Time is the later of the clock and the newest time at which fresh metadata was verified. A clock
that is behind that stops updates: what has expired would seem to hold again. Knows no metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from engineworks.delivery.refusal import Refused

Clock = Callable[[], datetime]
"""Gives the time, in UTC."""

#: A clock that is put right may step back so far.
TOLERANCE = timedelta(minutes=10)

#: Before this, no clock was ever set.
UNSET = datetime(2025, 1, 1, tzinfo=timezone.utc)


def system() -> datetime:
    """The machine's clock."""
    return datetime.now(timezone.utc)


def judged(now: datetime, newest: datetime) -> datetime:
    """The time to hold metadata against.

    Args:
        now: What the clock says.
        newest: The newest time that was ever verified.

    Raises:
        Refused: The clock is behind.
    """
    if now < UNSET or now < newest - TOLERANCE:
        raise Refused(
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, and it was {newest:%Y-%m-%d %H:%M} UTC "
            "already: it is unset, or was set back",
            hint="set the clock (NTP): until then nothing is updated, what serves goes on",
            check="clock",
        )
    return max(now, newest)
