"""A device's card: which models and variants it runs, and how careful it is. Written by a person.

Knows values, no files of engines and no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from engineworks.delivery import home as homes
from engineworks.delivery.home import Home
from engineworks.errors import ArtifactError, DeliveryError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One engine at a time, under a name that a server knows it by."""

    model: str
    variant: str
    slower_than: float = 1.5
    """Largest p50 here / p50 that was promised; 0: whatever it is."""
    most_p50_ms: float = 0.0
    """Largest p50 here, in the place of what was promised: for a device of another kind."""
    threads: int = 0
    """CPU threads of the trial; 0: as promised, else all."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a device runs."""

    slots: Mapping[str, Slot] = field(default_factory=dict)
    server: str = ""
    """Address of the server that follows `served`; empty: nobody is asked how it does."""
    reports: str = ""
    """Where signed reports go: a folder, or a web address that takes PUT; empty: nowhere."""
    watch_s: float = 60.0
    """A new engine is watched so long before the one before may go."""
    every_s: float = 300.0
    """Between two looks, on average."""
    glance_s: float = 3.0
    """Between two looks it is asked so often whether something is to be taken at once; 0: never."""
    kib_per_s: float = 0.0
    """Limit on downloads; 0: none."""
    hours: str = ""
    """Local hours of the day for downloads, e.g. `01:00-05:30`; empty: all."""
    trial_s: float = 120.0
    """A trial may take so long."""
    margin_mib: float = 64.0
    """Room that must stay free on the disk."""


def load(home: Home) -> Card:
    """The card of a device; an empty one where there is none.

    Raises:
        DeliveryError: It is not as it must be.
    """
    try:
        card = homes.read(Card, home.card) or Card()
    except ArtifactError as error:
        raise DeliveryError(f"{home.card}: {error.message}", hint="see docs/deliver.md") from error
    return checked(card, str(home.card))


def checked(card: Card, where: str) -> Card:
    """A card, if every value of it makes sense.

    Raises:
        DeliveryError: Names the value.
    """
    hint = "see docs/deliver.md for what a card may hold"
    for name in card.slots:
        if not _NAME.fullmatch(name):
            raise DeliveryError(f"{where}: {name!r} is no name of a slot", hint=hint)
    if card.hours and not _HOURS.fullmatch(card.hours):
        raise DeliveryError(f"{where}: hours {card.hours!r} are not as 01:00-05:30", hint=hint)
    figures = (
        card.watch_s, card.every_s, card.glance_s, card.kib_per_s, card.trial_s, card.margin_mib
    )  # fmt: skip
    slots = (x for s in card.slots.values() for x in (s.slower_than, s.most_p50_ms, s.threads))
    hasty = card.every_s < 1 or 0 < card.glance_s < 0.5
    if hasty or any(not 0 <= figure < 1e9 for figure in (*figures, *slots)):
        raise DeliveryError(f"{where}: a figure is too small, or no number", hint=hint)
    return card


def may_download(hours: str, local: datetime) -> bool:
    """Whether a local time lies in hours such as `22:00-05:30`; empty: always."""
    window = _HOURS.fullmatch(hours)
    if not window:
        return True
    begin, end = int(window[1]) * 60 + int(window[2]), int(window[3]) * 60 + int(window[4])
    now = local.hour * 60 + local.minute
    return begin <= now < end if begin <= end else now >= begin or now < end
