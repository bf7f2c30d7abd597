"""How a device comes to know whom to trust, and gets a key of its own.

An invitation is a file from whoever runs the repository: its address and its root metadata. It is
the one thing that must reach the device unaltered; everything later is verified from it on. Knows
no engines.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from engineworks.codec import from_json, to_json
from engineworks.delivery import home as homes
from engineworks.delivery import keyring, statements
from engineworks.delivery.cards import Card
from engineworks.delivery.disk import Disk, explained
from engineworks.delivery.home import Home
from engineworks.errors import ArtifactError, DeliveryError

#: Largest invitation that is read.
_MOST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What a device is told when it is enrolled."""

    repository: str
    """Its address."""
    root: str
    """Root metadata, as signed."""
    at: str
    """When it was written: no clock of the device is believed that says an earlier time."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request, for example credentials that only read."""
    code: str = ""
    """By which the device is accepted, once; empty: it is not asked for."""


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """Who a device is."""

    device: str
    """Key id of its own key."""
    repository: str
    at: str
    headers: dict[str, str] = field(default_factory=dict)


def invite(
    repository: str, root: bytes, headers: dict[str, str] | None = None, code: str = ""
) -> str:
    """An invitation as text."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    invitation = Invitation(
        repository=repository, root=root.decode(), at=now, headers=headers or {}, code=code
    )
    return json.dumps(to_json(invitation), indent=1) + "\n"


def enrol(home: Home, invitation: Path, card: Card, disk: Disk | None = None) -> Enrolled:
    """Make a folder a device's: whom it trusts, its own key, its card.

    Args:
        home: The folder; made where it is missing.
        invitation: The file.
        card: What it runs.
        disk: How the folder is written.

    Raises:
        DeliveryError: It is enrolled already, or the invitation is none.
    """
    from tuf.api.metadata import Metadata

    disk = disk or Disk()
    if home.enrolled.exists():
        raise DeliveryError(
            f"{home.folder} is enrolled already",
            hint="a device keeps its key: choose another folder, or remove this one",
        )
    hint = "ask for another: engineworks deliver invite"
    try:
        with invitation.open("rb") as stream:
            text = stream.read(_MOST_BYTES)
        said = from_json(Invitation, json.loads(text), at=invitation.name)
        root = Metadata.from_bytes(said.root.encode())
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        datetime.fromisoformat(said.at).astimezone(timezone.utc)
    except (OSError, ValueError, ArtifactError) as error:
        raise DeliveryError(f"{invitation} is no invitation ({error})", hint=hint) from error
    except Exception as error:  # of the framework's kinds
        raise DeliveryError(
            f"{invitation}: its root metadata is not signed by itself ({error})", hint=hint
        ) from error
    disk.folder(home.folder)
    with explained(home.key):
        home.key.unlink(missing_ok=True)  # of an enrolment that did not end
        key = keyring.make(home.key)
    disk.write(home.root, said.root.encode())
    if not home.card.exists():
        homes.write(disk, home.card, card)
    enrolled = Enrolled(
        device=key.keyid, repository=said.repository, at=said.at, headers=said.headers
    )
    if said.code:
        body = {"device": key.keyid, "public": key.keyval["public"], "code": said.code}
        request = statements.sign("request", body, keyring.private_of(home.key))
        disk.write(home.request, request.encode(), 0o600)
    homes.write(disk, home.enrolled, enrolled)  # last: from now on it is one
    return enrolled


def read(home: Home) -> Enrolled:
    """Who the device is.

    Raises:
        DeliveryError: It is not enrolled.
    """
    enrolled = homes.read(Enrolled, home.enrolled)
    if enrolled is None or not home.root.is_file():
        raise DeliveryError(
            f"{home.folder} is no device's folder",
            hint="enrol it: engineworks agent enrol INVITATION --home DIR",
        )
    return enrolled


@contextlib.contextmanager
def alone(home: Home) -> Iterator[None]:
    """Be the one agent of a folder; ends with its process.

    Raises:
        DeliveryError: Another one is at work.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with home.lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DeliveryError(
                f"another agent is at work in {home.folder}", hint="wait until it has ended"
            ) from None
        yield
