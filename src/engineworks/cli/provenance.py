"""`provenance`: where an engine comes from, for tools of others."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks.cli._engines import HELP, recall
from engineworks.cli._words import add, answer
from engineworks.runtime.session import local_folder

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.provenance import Sign


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    words = (
        "where an engine comes from: a CycloneDX 1.6 ML-BOM with its model card, and in-toto "
        "statements with SLSA provenance for it and everything that it was made of"
    )
    command = add(subparsers, "provenance", _provenance, words)
    command.add_argument("engine", metavar="ENGINE|BUNDLE", help=f"{HELP}; or a bundle's folder")
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write"
    )
    command.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="summary.json of its run, for scores, times, data and packages (default: the newest "
        "one of the state folder that knows it)",
    )
    command.add_argument(
        "--key", type=Path, metavar="FILE", help="private key (PEM) that signs the statements"
    )


def _provenance(options: argparse.Namespace) -> int:
    from engineworks import provenance, store
    from engineworks.runtime.fetching import home_store
    from engineworks.sealed import bundle

    folder, tests = Path(options.engine), []
    if (folder / bundle.STATEMENT).is_file():
        tests = [folder / bundle.TEST]
        folder = folder / bundle.ENGINE
        sha256 = ""
    else:
        place, sha256 = recall(options.engine)
        folder = local_folder(place, sha256)
    identity = store.verify(folder, sha256).sha256
    given = options.summary
    facts = provenance.facts_of(
        identity, [given] if given is not None else _summaries(), must=given is not None
    )
    lineage = provenance.trace(
        folder, [home_store()], facts.made_of_it if facts else (), tests
    )  # fmt: skip
    sign = _signer(options.key) if options.key is not None else None
    provenance.write(lineage, facts, options.output, sign)
    lines = [
        f"{options.output / provenance.BOM}: CycloneDX 1.6, {len(lineage.chain)} artifacts",
        f"{options.output / provenance.ENGINE}: in-toto, SLSA provenance of the engine",
        f"{options.output / provenance.CHAIN}: the same of each link, the trained model first",
    ]
    if sign is not None:
        lines.append(f"{options.output / provenance.SIGNED}: all statements, signed (DSSE)")
    if facts is None:
        lines.append("no summary.json speaks of it: no scores, times and data; give --summary FILE")
    if lineage.unknown:
        lines.append(
            f"of {len(lineage.unknown)} artifacts only the digest is known here: run this where "
            "the engine was built (ENGINEWORKS_HOME)"
        )
    data = {
        "folder": str(options.output), "engine": identity, "unknown": list(lineage.unknown),
        "run": facts.run_id if facts else "",
        "chain": [
            {"sha256": link.sha256, "kind": link.manifest.kind if link.manifest else ""}
            for link in lineage.chain
        ],
    }  # fmt: skip
    return answer(options, data, "\n".join(lines))


def _signer(key: Path) -> Sign:
    """What signs with a key of `bundle --new-key`.

    Raises:
        ArtifactError: It is no such key.
        MissingDependency: The package for signatures is not here.
    """
    from engineworks.sealed import signing

    private = signing.load_private(key)
    name = signing.fingerprint(signing.raw(private.public_key()))
    return lambda data: (name, private.sign(data))


def _summaries() -> Iterator[Path]:
    """Of the state folder, the newest first."""
    runs = Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks") / "runs"
    for folder in sorted(runs.glob("2*"), reverse=True):
        yield folder / "summary.json"
