"""Where an agent keeps what it knows: names of files and folders, and JSON in them.

    enrolled.json root.json device.pem   who it is and whom it trusts; written once
    card.json                            which models and variants it runs; a person's
    trusted.json                         the newest verified metadata and time
    engines/<sha256>/ tests/<sha256>/    whole artifacts, by identity
    incoming/<sha256>/                   downloads under way
    slots/<name>.json                    what was tried, watched and found good
    served/<name>/current                link to the engine in use, for `engineworks serve --follow`
    status.json                          what came of the last look

Knows no metadata and no engines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engineworks.codec import from_json, to_json
from engineworks.delivery.disk import Disk
from engineworks.errors import ArtifactError, DeliveryError

T = TypeVar("T")


@dataclass(frozen=True)
class Home:
    """The agent's folder."""

    folder: Path

    @property
    def enrolled(self) -> Path:
        """Who this device is."""
        return self.folder / "enrolled.json"

    @property
    def root(self) -> Path:
        """Root metadata as it came with the enrolment; never changed."""
        return self.folder / "root.json"

    @property
    def key(self) -> Path:
        """The device's own private key."""
        return self.folder / "device.pem"

    @property
    def request(self) -> Path:
        """By which it is accepted; holds its one-time code."""
        return self.folder / "request.json"

    @property
    def card(self) -> Path:
        """What it runs."""
        return self.folder / "card.json"

    @property
    def trusted(self) -> Path:
        """The newest verified metadata."""
        return self.folder / "trusted.json"

    @property
    def engines(self) -> Path:
        """Whole engines."""
        return self.folder / "engines"

    @property
    def tests(self) -> Path:
        """Their sealed tests."""
        return self.folder / "tests"

    @property
    def incoming(self) -> Path:
        """Downloads under way."""
        return self.folder / "incoming"

    @property
    def slots(self) -> Path:
        """A record for each slot."""
        return self.folder / "slots"

    @property
    def served(self) -> Path:
        """What a server follows."""
        return self.folder / "served"

    @property
    def status(self) -> Path:
        """What came of the last look."""
        return self.folder / "status.json"

    @property
    def lock(self) -> Path:
        """Held by the agent that is at work."""
        return self.folder / "agent.lock"

    def current(self, name: str) -> Path:
        """The link of a slot."""
        return self.served / name / "current"

    def engine(self, sha256: str) -> Path:
        """Where an engine lies, or would."""
        return self.engines / sha256


def read(kind: type[T], path: Path) -> T | None:
    """A value from its file; None where there is no file.

    Raises:
        ArtifactError: It is not what `kind` declares.
        DeliveryError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"{path} cannot be read ({error})", hint="check the disk") from error
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is no JSON ({error})", hint="correct it, or restore it"
        ) from error
    return from_json(kind, data, at=path.name)


def write(disk: Disk, path: Path, value: object) -> None:
    """A value into its file, whole or not at all."""
    disk.folder(path.parent)
    disk.write(path, (json.dumps(to_json(value), indent=1, sort_keys=True) + "\n").encode())
