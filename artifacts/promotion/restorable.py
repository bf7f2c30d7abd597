"""Which versions the history of promotions holds fast, and which it lets go.

A registered version is kept for ever, unless it was live long ago: then its engine may go, and
nobody can roll back to it any more. Knows records and signed metadata; removes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifacts.promotion import ledger, projection
from artifacts.promotion.conditional import Place
from artifacts.promotion.publishing import MOST_BACK
from artifacts.registry.prune_mlflow import RegisteredVersion
from engineworks.delivery.published import PublishedFiles
from engineworks.errors import ArtifactError

_log = logging.getLogger(__name__)

#: Versions of a variant's history that can be gone back to.
LAST = 10

#: What is live, and what was live before the last move: devices whose turn has not come run it.
_NEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Past:
    """The history of one variant."""

    model: str
    variant: str
    champion: str
    stack: tuple[str, ...]
    """Versions that were live and good, the latest last."""
    lived: tuple[str, ...]
    """Every version that was ever live, once, by when it was live last, the latest last."""


def pasts(home: Path, place: Place, models: Iterable[str]) -> list[Past]:
    """The histories of models; one that is not whole lets nothing go and is left out.

    Raises:
        ArtifactError: A record cannot be read.
        StoreError: MLflow or the store does not answer.
    """
    histories = []
    for model in sorted(set(models)):
        for record in ledger.all_of(place, model):
            try:
                moves = projection.verify(home, place, record)
            except ArtifactError as error:
                _log.warning("%s; every version of it is kept", error.message)
                continue
            latest_first = dict.fromkeys(move.new for move in reversed(moves) if move.new)
            histories.append(
                Past(
                    model=model, variant=record.variant, champion=record.champion,
                    stack=record.stack, lived=tuple(reversed(latest_first)),
                )
            )  # fmt: skip
    return histories


def signed(repository: Path) -> set[str]:
    """Identities of what a repository names: engines that run, that may be gone back to, tests.

    Args:
        repository: Its folder.

    Raises:
        DeliveryError: It cannot be read.
        MissingDependency: The package for reading it is not here.
    """
    named: set[str] = set()
    for target in PublishedFiles(repository).targets():
        named |= {target.sha256, *target.allowed}
        named |= {target.sealed.sha256} if target.sealed else set()
    return named


def let_go(
    versions: Sequence[RegisteredVersion],
    histories: Iterable[Past],
    published: Collection[str],
    last: int = LAST,
) -> frozenset[tuple[str, str]]:
    """Versions that nothing holds fast any more, as (model, version).

    Held fast is what was never live, what has an alias, what is live, what a rollback goes to and
    the ones before it that devices may go back to, the last versions that were live, and what is
    signed for devices.

    Args:
        versions: All that are registered.
        histories: Of their variants.
        published: Identities that are signed for devices.
        last: Versions of every history that are held, at least 1.
    """
    old: set[tuple[str, str, str]] = set()
    for past in histories:
        held = {past.champion, *past.lived[-max(last, _NEWEST) :], *past.stack[-MOST_BACK:]}
        old |= {(past.model, past.variant, version) for version in {*past.lived} - held}
    return frozenset(
        (version.model, version.version)
        for version in versions
        if (version.model, version.variant, version.version) in old
        and not version.aliases
        and not {version.engine, version.sealed} & set(published)
    )
