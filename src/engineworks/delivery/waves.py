"""A new engine reaches some devices first: how the first of them do, by what they have signed.

Which devices come first is a draw by their keys and the generation, so each has its place, also one
that is enrolled later. Knows the book of devices and their reports, no repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engineworks.delivery.devices import Book
from engineworks.delivery.target import SignedTarget
from engineworks.errors import DeliveryError


@dataclass(frozen=True, kw_only=True)
class Wave:
    """The devices that were to take a generation, by name."""

    well: tuple[str, ...] = ()
    """They run it, and said so after their watch."""
    ill: tuple[str, ...] = ()
    """It was refused, failed or was gone back from there."""
    silent: tuple[str, ...] = ()
    """They run this variant, and have said nothing of this generation yet."""


def judge(book: Book, reports: Mapping[str, Any], target: SignedTarget) -> Wave:
    """How the devices of the present wave do.

    Args:
        book: Devices; those that were revoked do not count.
        reports: Device -> the status that it has signed last; one that has never said that it runs
            the variant does not count.
        target: What is published.
    """
    devices: dict[str, list[str]] = {"well": [], "ill": [], "silent": []}
    for device, known in book.devices.items():
        if known.revoked or not target.includes(device):
            continue
        for slot in reports.get(device, {}).get("slots", ()):
            if (slot.get("model"), slot.get("variant")) != (target.model, target.variant):
                continue
            if slot.get("generation") != target.generation:
                word = "silent"
            elif slot.get("outcome") in ("current", "switched"):
                word = "well" if slot.get("running") == target.sha256 else "ill"
            else:
                word = "silent" if slot.get("outcome") == "not reached" else "ill"
            devices[word].append(known.name)
    return Wave(**{word: tuple(sorted(names)) for word, names in devices.items()})


def hold(wave: Wave, share: float) -> None:
    """Refuse the next wave where this one is not well.

    Args:
        wave: The present one.
        share: Of those that count, so many must be well, 0 to 1.

    Raises:
        DeliveryError: Says who is not.
    """
    every = len(wave.well) + len(wave.ill) + len(wave.silent)
    if wave.well and len(wave.well) >= share * every:
        return
    laggards = "; ".join(
        f"{word}: {', '.join(names[:10])}"
        for word, names in (("ill", wave.ill), ("silent", wave.silent))
        if names
    )
    raise DeliveryError(
        f"{len(wave.well)} of {every} devices of this wave are well, {share:.0%} are needed"
        + (f" ({laggards})" if laggards else ""),
        hint="wait for their reports, deliver a better engine, or go back; without --book it is "
        "your own decision",
    )
