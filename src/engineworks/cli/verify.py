"""`verify`: whether an artifact is whole, and whether it is the one that it should be."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import store
from engineworks.cli._engines import HELP, recall
from engineworks.cli._words import add, answer
from engineworks.errors import ArtifactError
from engineworks.files import read_text
from engineworks.runtime.session import local_folder

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers

UNKNOWN = (
    "only self-consistent: the folder is as it was written, but nothing here says which artifact "
    "it should be. Compare this sha256 with engine.sha256 in summary.json (--summary) or with the "
    "tag sha256 of the registered version (--sha256)"
)


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    description = "whether an artifact is whole, and the one that it should be; opens nothing"
    command = add(subparsers, "verify", _verify, description)
    command.add_argument("artifact", metavar="ARTIFACT", help=HELP)
    command.add_argument("--sha256", default="", metavar="HEX", help="identity it must have")
    command.add_argument(
        "--summary", type=Path, metavar="FILE", help="summary.json that must speak of it"
    )


def _verify(options: argparse.Namespace) -> int:
    place, recalled = recall(options.artifact)
    folder = local_folder(place)
    wanted = options.sha256.strip().lower()
    if options.sha256 and not store.is_identity(wanted):
        raise ArtifactError(
            f"--sha256: {options.sha256!r} is no sha256", hint="give its 64 hexadecimal digits"
        )
    manifest = store.verify(folder, wanted)
    known = {
        "--sha256": wanted,
        "the latest run's summary.json": recalled,
        "the folder's name": store.named(folder),
    }
    if options.summary is not None:
        if manifest.sha256 not in _identities(options.summary):
            raise ArtifactError(
                f"{options.summary} knows no artifact {manifest.sha256[:16]}...",
                hint="it is of another run, or was altered: fetch it again",
            )
        known[str(options.summary)] = manifest.sha256
    if recalled not in ("", manifest.sha256):
        raise ArtifactError(
            f"{folder} holds artifact {manifest.sha256[:16]}..., the latest run has built "
            f"{recalled[:16]}...",
            hint="fetch the artifact again, or run the recipe again",
        )
    compared = [name for name, sha256 in known.items() if sha256]
    identity = f"agrees with {' and '.join(compared)}" if compared else UNKNOWN
    lines = [
        f"{manifest.kind} {manifest.name} {manifest.target}/{manifest.precision}".rstrip("/ "),
        f"  sha256    {manifest.sha256}",
        f"  bytes     {len(manifest.files)} files, {manifest.size_bytes} bytes: as written",
        f"  identity  {identity}",
    ]
    data = {"sha256": manifest.sha256, "compared_with": compared, "identity": identity}
    return answer(options, data, "\n".join(lines))


def _identities(summary: Path) -> set[str]:
    """Every sha256 of an artifact or engine in a summary."""
    try:
        data = json.loads(read_text(summary))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{summary} cannot be read ({type(error).__name__})", hint="give a run's summary.json"
        ) from error
    return set(_digests(data))


def _digests(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        if isinstance(data.get("sha256"), str) and "uri" in data:
            yield data["sha256"]
        for item in data.values():
            yield from _digests(item)
    elif isinstance(data, list):
        for item in data:
            yield from _digests(item)
