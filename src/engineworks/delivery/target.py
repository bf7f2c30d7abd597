"""What signed metadata says of one variant of a model: the engine that is to run, and what for.

A target of the repository is a file `models/<model>/<variant>.json`, the manifest of the engine;
`SignedTarget` is what is signed beside it. Knows names and values, no keys and no files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engineworks.codec import from_json, to_json
from engineworks.delivery.refusal import Refused
from engineworks.errors import ArtifactError, DeliveryError
from engineworks.facts.plan import slug

#: Raised when a device that does not know a new field would do the wrong thing.
SCHEMA = 1

#: Signed into the timestamp: when that was, so that a device can tell a clock that is behind.
SIGNED_AT = "x-engineworks-signed-at"

#: Signed into the timestamp: how many targets were published so far that devices take at once.
CALLS = "x-engineworks-calls"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """An artifact that travels beside an engine: its identity, and its manifest by its bytes."""

    sha256: str
    manifest_sha256: str
    manifest_bytes: int


@dataclass(frozen=True, kw_only=True)
class SignedTarget:
    """The engine that a variant is to run."""

    model: str
    variant: str
    version: str
    """Of the registered model; any word where there is no registry."""
    sha256: str
    """The engine's identity."""
    generation: int
    """One number for each decision of what is live, from 1 on, never given twice."""
    p50_us: int = 0
    """Median latency that was promised, at batch 1, in microseconds: signed JSON has no fractions.
    0: none was."""
    machine: str = ""
    """Where that was measured."""
    threads: int = 0
    """With how many threads; 0: not said."""
    allowed: tuple[str, ...] = ()
    """Identities of engines that a device may go back to, the best first."""
    head: str = ""
    """sha256 of the newest entry of the log of promotions."""
    sealed: Parcel | None = None
    """The engine's sealed test."""
    permille: int = 1000
    """So many of 1000 devices take it now; the others wait for their turn."""
    now: bool = False
    """Devices take it as soon as they hear of it, whatever its latency, and do not watch it."""
    schema: int = SCHEMA

    def includes(self, device: str) -> bool:
        """Whether it is a device's turn: by a draw that each generation makes anew.

        Args:
            device: Key id of its key.
        """
        text = f"{device} {self.model} {self.variant} {self.generation}"
        drawn = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) % 1000
        return drawn < self.permille

    @property
    def p50_ms(self) -> float:
        """The promised latency in ms; 0: none."""
        return self.p50_us / 1e3


def role_of(model: str) -> str:
    """The delegated role that speaks for a model, and for no other."""
    return f"model-{_checked(model, 'model')}"


def path_of(model: str, variant: str) -> str:
    """The target's path."""
    if not variant:
        raise DeliveryError("a variant needs a name", hint="for example openvino/int8")
    return f"models/{_checked(model, 'model')}/{_checked(slug(variant), 'variant')}.json"


def paths_of(model: str) -> list[str]:
    """The only paths that the role of a model may speak of."""
    return [f"models/{_checked(model, 'model')}/*.json"]


def blob_path(sha256: str) -> str:
    """Where a file lies by its content, relative to the repository."""
    return f"blobs/{sha256[:2]}/{sha256}"


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise DeliveryError(
            f"{name!r} is no name of a {what} that can be delivered",
            hint="use letters, digits, '-', '_' and '.', at most 128",
        )
    return name


#: Engines that may be gone back to, at most.
_MOST_BACK = 5


def ways_back(before: SignedTarget | None, sha256: str, *, withdraw: bool) -> tuple[str, ...]:
    """Engines that a device may go back to when another one is published.

    Args:
        before: What was published until then.
        sha256: The engine that comes.
        withdraw: Leave out the engine that goes.
    """
    if before is None:
        return ()
    others = ((() if withdraw else (before.sha256,)), before.allowed)
    ways = dict.fromkeys(digest for group in others for digest in group)
    without = {sha256, before.sha256} if withdraw else {sha256}
    return tuple(digest for digest in ways if digest not in without)[:_MOST_BACK]


def calls_of(timestamp: Any) -> int:
    """How many calls to look at once the fields of a timestamp tell of.

    0 where they are not as they must be: whoever asks has not verified them yet.
    """
    said = timestamp.get(CALLS, 0) if isinstance(timestamp, Mapping) else 0
    return said if isinstance(said, int) and 0 <= said < 2**53 else 0


def refuse_generation(old: SignedTarget, new: SignedTarget) -> None:
    """Refuse to publish what does not follow on what is published.

    Raises:
        DeliveryError: Its generation was given already, to something else.
    """
    if new.generation > old.generation:
        return
    if dataclasses.replace(old, permille=new.permille) == new and new.permille > old.permille:
        return  # the same decision, for more devices
    raise DeliveryError(
        f"{new.model}: {new.variant}: generation {new.generation} is to name "
        f"{new.sha256[:12]}..., generation {old.generation} is published with "
        f"{old.sha256[:12]}...",
        hint="a generation is never given twice and never goes back: a wanted rollback is a newer "
        "one that names the older engine",
    )


def to_custom(target: SignedTarget) -> dict[str, Any]:
    """What is signed beside the manifest."""
    custom: dict[str, Any] = to_json(target)
    return custom


def of_custom(custom: Any, model: str, variant: str) -> SignedTarget:
    """Read what was signed, and refuse what is of another model or variant.

    Args:
        custom: As signed; fields that this version does not know are left out.
        model: The model that was asked for.
        variant: The variant that was asked for.

    Raises:
        Refused: Names the check.
    """
    hint = "nothing changes on this device; ask who signs for the model"
    if not isinstance(custom, dict) or not isinstance(custom.get("schema"), int):
        raise Refused(f"{model}: {variant}: what is signed names no engine", hint=hint)
    if custom["schema"] > SCHEMA:
        raise Refused(
            f"{model}: {variant}: signed in schema {custom['schema']}, this agent reads {SCHEMA}",
            hint="update engineworks on this device",
        )
    known = {field.name for field in dataclasses.fields(SignedTarget)}
    try:
        target = from_json(SignedTarget, {k: v for k, v in custom.items() if k in known})
    except ArtifactError as error:
        raise Refused(f"{model}: {variant}: {error.message}", hint=hint) from error
    if target.model != model:
        raise Refused(
            f"asked for {model}, signed is an engine of {target.model}", hint=hint,
            check="another model",
        )  # fmt: skip
    if target.variant != variant:
        raise Refused(
            f"{model}: asked for {variant}, signed is {target.variant}", hint=hint,
            check="another variant",
        )  # fmt: skip
    digests = [target.sha256, *target.allowed]
    digests += [target.sealed.sha256, target.sealed.manifest_sha256] if target.sealed else []
    if not all(map(_DIGEST.fullmatch, digests)) or target.generation < 1:
        raise Refused(f"{model}: {variant}: a digest or the generation is none", hint=hint)
    return target
