"""Where this machine publishes what is live, and with which keys; publishing it.

A machine that publishes says so by two variables of its environment: no form of a flow names keys.
"""

from __future__ import annotations

import os
from pathlib import Path

from artifacts.promotion import ledger, publishing
from artifacts.promotion.publishing import Publication
from engineworks.delivery import keyring
from engineworks.delivery.keyring import Keyring
from engineworks.delivery.repository import Repository
from engineworks.errors import DeliveryError, EngineworksError
from flows.steps import promote as steps
from tasks import _run

#: Folder of the repository; folders of keys, as in PATH.
REPOSITORY, KEYS = "ENGINEWORKS_DELIVERY", "ENGINEWORKS_DELIVERY_KEYS"


def repository() -> Repository:
    """The repository of this machine.

    Raises:
        DeliveryError: It has none.
        MissingDependency: The packages for signing are not here.
    """
    folder = os.environ.get(REPOSITORY, "")
    if not folder:
        raise DeliveryError(
            f"this machine publishes nothing: {REPOSITORY} is not set",
            hint=f"set {REPOSITORY} to the repository's folder and {KEYS} to those of its keys; "
            "see docs/deliver.md",
        )
    keyring.needed()
    places = [Path(place) for place in os.environ.get(KEYS, "").split(os.pathsep) if place]
    return Repository(Path(folder), Keyring(places))


def publish(model: str, variant: str, *, dry_run: bool, now: bool = False) -> list[Publication]:
    """Publish what is live of a model.

    Raises:
        DeliveryError: This machine publishes nothing, or nothing was ever promoted.
    """
    publications = publishing.publish(
        _run.home(), _run.open_home_store(), steps.records(), repository(), model,
        variant=variant, dry_run=dry_run, now=now,
    )  # fmt: skip
    if not publications:
        raise DeliveryError(
            f"nothing of {model}{': ' + variant if variant else ''} was ever promoted",
            hint=f"python -m flows.promote {model}",
        )
    return publications


def repeat(signing: Repository, model: str, variant: str) -> str:
    """Publish what is live, for devices now, as it was published before: MLflow is not asked.

    Args:
        signing: This machine's repository.
        model: Registered model.
        variant: Its name.

    Returns:
        What devices are told, in words; empty where it has to be published in full.
    """
    records_at = steps.records()
    then = ledger.read(records_at, model, variant)
    if then is None:
        return ""
    now = then.generation
    ledger.moves(records_at, now)  # a log that is not whole is not signed
    signed = signing.repeat(model, variant, now.champion, generation=now.number, head=now.head)
    return f"devices are told: version {signed.version} now" if signed else ""


def after_a_move(model: str, *, now: bool = False) -> list[str]:
    """Publish what was just moved, on a machine that publishes; what came of it, in words.

    A move stands whether or not it can be published.
    """
    if not os.environ.get(REPOSITORY, ""):
        return []
    try:
        publications = publish(model, "", dry_run=False, now=now)
    except EngineworksError as error:
        notice_failure(model, "", "", error.line)
        return [f"not published for devices: {error.line}"]
    notice_failures(publications)
    return said(publications)


def notice_failures(publications: list[Publication]) -> None:
    """Tell people of what could not be published."""
    for one in publications:
        if one.outcome == "failed":
            notice_failure(one.model, one.variant, one.version, one.reason)


def notice_failure(model: str, variant: str, version: str, reason: str) -> None:
    """Tell people that devices have not heard of a version."""
    from flows.fleet import events  # it needs Prefect, which no rollback waits for

    events.notice(
        events.UNDELIVERED, model=model, variant=variant, version=version,
        what="not published for devices", reason=reason,
    )  # fmt: skip


def said(publications: list[Publication]) -> list[str]:
    """What became of variants, in words, of those that have changed."""
    return [
        f"{publication.variant}: {publication.outcome} for devices, {publication.reason}"
        for publication in publications
        if publication.outcome != "unchanged"
    ]
