"""The book of devices: who was invited, who was accepted, what each has said last.

One JSON file of whoever runs the fleet. A code is good for one device; a report counts only when
the device that it names has signed it, and none that is older than one that was taken. Knows no
repository and no engines.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from engineworks.delivery import home as homes
from engineworks.delivery import statements
from engineworks.delivery.disk import Disk
from engineworks.delivery.refusal import Refused
from engineworks.errors import DeliveryError
from engineworks.store import alone

#: Days for which a code is good.
CODE_DAYS = 7.0


@dataclass(frozen=True, kw_only=True)
class Code:
    """An invitation's code, of which only the digest is kept."""

    name: str
    until: str
    used_by: str = ""


@dataclass(frozen=True, kw_only=True)
class EnrolledDevice:
    """A device that was accepted."""

    name: str
    public: str
    accepted: str
    revoked: str = ""
    sequence: int = 0
    """Of the newest report that was taken."""


@dataclass(frozen=True, kw_only=True)
class Book:
    """All of it."""

    codes: dict[str, Code] = field(default_factory=dict)
    devices: dict[str, EnrolledDevice] = field(default_factory=dict)


class Register:
    """A book in a file.

    Args:
        path: The file; made with the first code.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._disk = path, Disk()

    def read(self) -> Book:
        """What stands in it."""
        return homes.read(Book, self._path) or Book()

    def _locked(self) -> Any:
        self._disk.folder(self._path.absolute().parent)
        return alone(self._path.with_name(f".{self._path.name}.lock"))

    def code(self, name: str) -> str:
        """A new code, for one device; it is never shown again."""
        code = secrets.token_urlsafe(18)
        with self._locked():
            book = self.read()
            if any(device.name == name for device in book.devices.values() if not device.revoked):
                raise DeliveryError(
                    f"there is a device {name!r} already", hint="choose another name, or revoke it"
                )
            until = (_now() + timedelta(days=CODE_DAYS)).isoformat(timespec="seconds")
            codes = {**book.codes, _digest(code): Code(name=name, until=until)}
            homes.write(self._disk, self._path, replace(book, codes=codes))
        return code

    def accept(self, request: str) -> EnrolledDevice:
        """Take a device in, by the request that its enrolment has written.

        Raises:
            Refused: Its code is unknown, used or too old, or it is not signed by its own key.
        """
        said = statements.claimed(request, "request")
        device, public, code = (str(said.get(key, "")) for key in ("device", "public", "code"))
        statements.hold(request, "request", public)
        with self._locked():
            book = self.read()
            known = book.codes.get(_digest(code))
            hint = "invite the device anew: engineworks deliver invite"
            if known is None or known.used_by:
                doubt = (
                    f"was used by device {known.used_by[:12]}..." if known else "is none of ours"
                )
                raise Refused(f"the code of this request {doubt}", hint=hint, check="identity")
            if datetime.fromisoformat(known.until) < _now():
                raise Refused(
                    f"the code of this request was good until {known.until}", hint=hint,
                    check="expired",
                )  # fmt: skip
            if device != _device_of(public):
                raise Refused("the request names another key", hint=hint, check="identity")
            fresh = EnrolledDevice(
                name=known.name, public=public, accepted=_now().isoformat("T", "seconds")
            )
            homes.write(
                self._disk, self._path,
                Book(
                    codes={**book.codes, _digest(code): replace(known, used_by=device)},
                    devices={**book.devices, device: fresh},
                ),
            )  # fmt: skip
        return fresh

    def revoke(self, name: str) -> None:
        """Take no report of a device any more.

        Raises:
            DeliveryError: There is none of that name.
        """
        with self._locked():
            book = self.read()
            key_ids = [
                key
                for key, device in book.devices.items()
                if device.name == name and not device.revoked
            ]
            if not key_ids:
                raise DeliveryError(
                    f"there is no device {name!r}",
                    hint=f"there are: {', '.join(d.name for d in book.devices.values()) or 'none'}",
                )
            gone = replace(book.devices[key_ids[0]], revoked=_now().isoformat("T", "seconds"))
            homes.write(
                self._disk, self._path, replace(book, devices={**book.devices, key_ids[0]: gone})
            )

    def take(self, report: str) -> tuple[EnrolledDevice, dict[str, Any]]:
        """A report of a device, if it is its own and not an older one.

        Raises:
            Refused: Names the check.
        """
        said = statements.claimed(report, "report")
        device, sequence = str(said.get("device", "")), said.get("sequence")
        with self._locked():
            book = self.read()
            known = book.devices.get(device)
            if known is None or known.revoked:
                word = "was revoked" if known else "was never accepted"
                raise Refused(
                    f"device {device[:12]}... {word}",
                    hint="engineworks deliver devices lists them",
                    check="identity",
                )  # fmt: skip
            statements.hold(report, "report", known.public)
            if not isinstance(sequence, int) or sequence < known.sequence:
                raise Refused(
                    f"{known.name}: report {sequence} is older than {known.sequence}, which was "
                    "taken already",
                    hint="somebody plays an old one back, or the device was set back: enrol it",
                    check="version",
                )
            newer = replace(known, sequence=sequence)
            homes.write(
                self._disk, self._path, replace(book, devices={**book.devices, device: newer})
            )
        return newer, said


def _device_of(public: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey

    raw = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    return str(SSlibKey.from_crypto(raw).keyid)


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _now() -> datetime:
    return datetime.now(timezone.utc)
