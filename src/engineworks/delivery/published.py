"""What a repository has published, as anybody can read it: roles, engines, when it expires.

Knows no private keys and writes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks.delivery import keyring as keys
from engineworks.delivery import target as targets
from engineworks.delivery.metadata import TOP, MetadataFolder
from engineworks.delivery.target import SignedTarget
from engineworks.errors import DeliveryError

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, TargetFile, Targets

#: Days for which a role's metadata holds. What is expired stops updates, never serving.
LIFE_DAYS = {"root": 365.0, "targets": 365.0, "model": 90.0, "snapshot": 14.0, "timestamp": 3.0}


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """How long a role's metadata still holds."""

    role: str
    version: int
    expires: datetime
    left_days: float
    life_days: float

    @property
    def soon(self) -> bool:
        """Whether less than a third of its life is left."""
        return self.left_days < self.life_days / 3


def kind_of(role: str) -> str:
    """The kind of a role, as `LIFE_DAYS` has it."""
    return role if role in TOP else "model"


class PublishedFiles:
    """A repository's folder.

    Args:
        folder: It.
        life_days: Kind of role -> days, where others than `LIFE_DAYS` are wanted.
    """

    def __init__(self, folder: Path, life_days: Mapping[str, float] | None = None) -> None:
        keys.needed()
        self.folder = folder
        self.life_days = {**LIFE_DAYS, **(life_days or {})}
        self.files = MetadataFolder(folder / "metadata")

    @property
    def root(self) -> Metadata[Root]:
        """The newest root."""
        return self.files.read("root")

    def role(self, role: str) -> Metadata[Any]:
        """What is published of a role now.

        Raises:
            DeliveryError: There is no such role.
        """
        if role in ("root", "targets"):
            return self.root if role == "root" else self.top()
        timestamp = self.files.read("timestamp")
        if role == "timestamp":
            return timestamp
        snapshot = self.files.read("snapshot", timestamp.signed.snapshot_meta.version)
        if role == "snapshot":
            return snapshot
        meta = snapshot.signed.meta.get(f"{role}.json")
        if meta is None:
            raise DeliveryError(
                f"{self.folder}: there is no role {role!r}",
                hint="engineworks deliver delegate MODEL makes the one of a model",
            )
        return self.files.read(role, meta.version)

    def models(self) -> list[str]:
        """Roles of models."""
        delegations = self.top().signed.delegations
        return sorted(delegations.roles) if delegations and delegations.roles else []

    def target(self, model: str, variant: str) -> SignedTarget | None:
        """What a variant is to run, or None."""
        role = targets.role_of(model)
        if role not in self.models() or f"{role}.json" not in self.role("snapshot").signed.meta:
            return None
        entry = self.role(role).signed.targets.get(targets.path_of(model, variant))
        return targets.of_custom(entry.custom, model, variant) if entry else None

    def earlier(self, model: str, variant: str, version: str) -> TargetFile | None:
        """What was published for a version last, by lists that the model's keys of now have signed.

        Args:
            model: Registered model.
            variant: Its name.
            version: Of the model.

        Returns:
            None where it never was, or by keys that were replaced since.
        """
        from tuf.api.exceptions import UnsignedMetadataError

        role, top = targets.role_of(model), self.top().signed
        for number in reversed(self.files.versions(role)):
            listed = self.files.read(role, number)
            file: TargetFile | None = listed.signed.targets.get(targets.path_of(model, variant))
            if file is None or (file.custom or {}).get("version") != version:
                continue
            with contextlib.suppress(UnsignedMetadataError, ValueError):
                top.verify_delegate(role, listed.signed_bytes, listed.signatures)
                return file
        return None

    def expiries(self, at: datetime | None = None) -> list[Expiry]:
        """How long each role still holds, the most urgent first."""
        now = at or utc_now()
        expiries = []
        known = self.role("snapshot").signed.meta
        models = [role for role in self.models() if f"{role}.json" in known]
        for role in (*TOP, *models):
            signed = self.role(role).signed
            left_days = (signed.expires - now) / timedelta(days=1)
            expiries.append(
                Expiry(
                    role=role, version=signed.version, expires=signed.expires,
                    left_days=left_days, life_days=self.life_days[kind_of(role)],
                )
            )  # fmt: skip
        return sorted(expiries, key=lambda expiry: expiry.left_days / expiry.life_days)

    def targets(self) -> list[SignedTarget]:
        """Everything that is published, by model and variant."""
        published = []
        for role in self.models():
            held = self.held(role)
            for file in held.signed.targets.values() if held else ():
                custom = file.custom or {}
                model, variant = custom.get("model", ""), custom.get("variant", "")
                published.append(targets.of_custom(custom, model, variant))
        return sorted(published, key=lambda target: (target.model, target.variant))

    def unsigned(self) -> list[str]:
        """Roles of models whose metadata is none of the keys' that may speak for them now."""
        return [role for role in self.models() if self.held(role) is None]

    def top(self) -> Metadata[Targets]:
        """The newest targets that root's keys have signed, published or not."""
        from tuf.api.exceptions import UnsignedMetadataError

        root = self.root.signed
        for version in reversed(self.files.versions("targets")):
            top = self.files.read("targets", version)
            try:
                root.verify_delegate("targets", top.signed_bytes, top.signatures)
            except UnsignedMetadataError:
                continue
            return top
        raise DeliveryError(
            f"{self.folder}: no targets are signed by those whom root names",
            hint="engineworks deliver rotate targets, or restore the repository from a copy",
        )

    def held(self, role: str) -> Metadata[Any] | None:
        """A model's metadata, where it is signed by those who may."""
        from tuf.api.exceptions import UnsignedMetadataError

        try:
            delegated = self.role(role)
            self.top().signed.verify_delegate(role, delegated.signed_bytes, delegated.signatures)
        except (DeliveryError, UnsignedMetadataError):
            return None
        return delegated


def utc_now() -> datetime:
    """The time."""
    return datetime.now(timezone.utc)
