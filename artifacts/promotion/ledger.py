"""Which version of a variant is live, and every move that made it so.

    promotions/<model>/<variant>/generation.json          what is live now, and the log's head
    promotions/<model>/<variant>/log/<number>-<sha256>.json   one move each

A move is written first, under its own digest and with the digest of the move before it; then the
generation record is advanced over the bytes that were read. Whoever is late finds the record
changed and has moved nothing: its entry hangs on no record and is no part of the log. What leads
back from the head is the log; an entry that is cut off or rewritten no longer fits.

Knows records and digests, no MLflow and no gates.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TypeVar

from artifacts.promotion.conditional import Place
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, EngineworksError, StoreError
from engineworks.facts.plan import slug

T = TypeVar("T")

What = Literal["promote", "rollback", "withdraw"]


class Overtaken(EngineworksError):
    """Somebody else moved the same variant meanwhile; nothing was moved here."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One entry of the log."""

    number: int
    """The generation that it made, from 1 on."""
    before: str
    """sha256 of the entry before it; empty for the first."""
    model: str
    variant: str
    what: What
    who: str
    at: str
    """UTC, ISO 8601, by the clock of the machine that moved it."""
    old: str
    """Version that was live; empty: none."""
    new: str
    """Version that is live from then on; empty: none."""
    why: str
    evidence: dict[str, Any]
    """The gates, as they were found."""
    id: str
    """Unique, so that no two moves have the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What is live of one variant."""

    model: str
    variant: str
    number: int
    head: str
    """sha256 of the newest entry of the log."""
    champion: str
    """Version that is live; empty: none any more."""
    stack: tuple[str, ...]
    """Versions that were live before and good, the latest last; none that was rolled back from."""

    @property
    def previous(self) -> str:
        """The version that a rollback goes to; empty: there is none."""
        return self.stack[-1] if self.stack else ""


@dataclass(frozen=True, kw_only=True)
class Read:
    """A generation record, and the token that advances it."""

    generation: Generation
    token: str


def read(place: Place, model: str, variant: str) -> Read | None:
    """What is live of a variant, or None when nothing ever was.

    Raises:
        ArtifactError: The record cannot be read.
        StoreError: The store does not answer.
    """
    key = f"{_folder(model, variant)}/generation.json"
    held = place.read(key)
    if held is None:
        return None
    return Read(generation=_decode(Generation, held.data, key), token=held.token)


def models(place: Place) -> list[str]:
    """Every model of which something was ever promoted."""
    parts = [key.split("/") for key in place.names("promotions/")]
    return sorted({part[1] for part in parts if len(part) == 4 and part[3] == "generation.json"})


def all_of(place: Place, model: str) -> list[Generation]:
    """What is live of every variant of a model, by variant."""
    keys = [key for key in place.names(f"promotions/{model}/") if key.endswith("/generation.json")]
    files = [(key, place.read(key)) for key in keys]
    records = [_decode(Generation, file.data, key) for key, file in files if file is not None]
    return sorted(records, key=lambda generation: generation.variant)


def advance(
    place: Place,
    then: Read | None,
    *,
    model: str,
    variant: str,
    what: What,
    who: str,
    new: str,
    stack: Sequence[str],
    why: str,
    evidence: dict[str, Any],
) -> Generation:
    """Move a variant to another version, if nobody has moved it since `then`.

    Args:
        place: Where the records lie.
        then: The record that the decision was made on; None: there was none.
        model: Registered model.
        variant: Its name.
        what: The kind of move.
        who: Who moves it.
        new: The version that is live from now on; empty: none.
        stack: Good versions before it, the latest last.
        why: In words.
        evidence: The gates.

    Raises:
        Overtaken: Somebody else moved it; nothing is changed.
        StoreError: The store does not answer.
    """
    old = then.generation if then else None
    move = Move(
        number=(old.number if old else 0) + 1, before=old.head if old else "", model=model,
        variant=variant, what=what, who=who, new=new, old=old.champion if old else "", why=why,
        evidence=evidence, id=uuid.uuid4().hex,
        at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    entry = _bytes(move)
    head = hashlib.sha256(entry).hexdigest()
    generation = Generation(
        model=model, variant=variant, number=move.number, head=head, champion=new,
        stack=tuple(stack),
    )  # fmt: skip
    folder = _folder(model, variant)
    place.create(_entry(folder, move.number, head), entry)
    key = f"{folder}/generation.json"
    record = _bytes(generation)
    won = place.replace(key, record, then.token) if then else place.create(key, record)
    if not won:
        raise Overtaken(
            f"{model}: {variant} was moved by somebody else meanwhile; nothing was changed here",
            hint="look at its history, then decide again: the gates were held against a version "
            "that is the champion no more",
        )
    return generation


def promoted(now: Generation | None, version: str, *, good: bool) -> tuple[str, ...]:
    """The stack when a version takes the place of the champion.

    Args:
        now: What is live; None: nothing ever was.
        version: The one that comes.
        good: Whether the one that goes may be gone back to.
    """
    if now is None:
        return ()
    kept = tuple(earlier for earlier in now.stack if earlier != version)
    return (*kept, now.champion) if good and now.champion not in ("", version) else kept


def moves(place: Place, generation: Generation) -> list[Move]:
    """The log of a variant, oldest first, each entry held against the digest that leads to it.

    Raises:
        ArtifactError: An entry is gone or altered, or the record says what the log does not.
    """
    folder = _folder(generation.model, generation.variant)
    steps: list[Move] = []
    head, number = generation.head, generation.number
    while number > 0:
        file = place.read(_entry(folder, number, head))
        if file is None:
            raise _broken(generation, f"entry {number} is gone")
        if hashlib.sha256(file.data).hexdigest() != head:
            raise _broken(generation, f"entry {number} was altered")
        move = _decode(Move, file.data, f"entry {number}")
        if (move.number, move.model, move.variant) != (
            number, generation.model, generation.variant
        ):  # fmt: skip
            raise _broken(generation, f"entry {number} is that of another log")
        steps.append(move)
        head, number = move.before, number - 1
    steps.reverse()
    if head or any(later.old != before.new for before, later in itertools.pairwise(steps)):
        raise _broken(generation, "its entries do not follow on each other")
    if steps and steps[-1].new != generation.champion:
        raise _broken(generation, "its record names another champion than its last entry")
    return steps


def heads(place: Place, generation: Generation) -> list[str]:
    """sha256 of every entry of the log, oldest first.

    Raises:
        ArtifactError: See `moves`.
    """
    log = moves(place, generation)
    return [*(move.before for move in log[1:]), *([generation.head] if log else [])]


def _broken(generation: Generation, complaint: str) -> ArtifactError:
    return ArtifactError(
        f"the history of {generation.model}: {generation.variant} is not whole: {complaint}",
        hint="somebody has changed the store by hand: restore promotions/ from a copy, and find "
        "out who may write there",
    )


def _folder(model: str, variant: str) -> str:
    """Names of models and variants are names of folders here."""
    for name in (model, slug(variant)):
        if not re.fullmatch(r"[A-Za-z0-9_][\w. -]*", name, re.ASCII):
            raise StoreError(
                f"{name!r} is no name under which a promotion can be kept",
                hint="use letters, digits, '-', '_' and '.' in the model's name",
            )
    return f"promotions/{model}/{slug(variant)}"


def _entry(folder: str, number: int, head: str) -> str:
    return f"{folder}/log/{number:06d}-{head}.json"


def _bytes(value: Any) -> bytes:
    return json.dumps(to_json(value), sort_keys=True, indent=1).encode()


def _decode(kind: type[T], data: bytes, at: str) -> T:
    try:
        return from_json(kind, json.loads(data), at=at)
    except ValueError as error:
        raise ArtifactError(f"{at} is no JSON ({error})", hint="restore it from a copy") from error
