"""`bundle` and `prove`: an engine with its sealed test, and whether it still answers so."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks.cli._engines import HELP, recall
from engineworks.cli._numbers import whole
from engineworks.cli._words import add, answer
from engineworks.codec import to_json
from engineworks.errors import ArtifactError
from engineworks.runtime.session import local_folder

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.sealed import BundleProof


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    description = "an engine and its sealed test in one folder, signed if a key is given"
    command = add(subparsers, "bundle", _bundle, description)
    command.add_argument("engine", metavar="ENGINE", nargs="?", default="", help=HELP)
    command.add_argument(
        "--test",
        type=Path,
        metavar="DIR",
        help="folder of its sealed test (default: the one that the latest run has made of it)",
    )
    command.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder to write")
    command.add_argument("--key", type=Path, metavar="FILE", help="private key (PEM) that signs")
    command.add_argument("--signer", default="", metavar="NAME", help="who signs, in words")
    command.add_argument(
        "--new-key", type=Path, metavar="FILE", help="make a key pair, FILE and FILE.pub, instead"
    )
    description = "what holds of a bundle: digests, signature, and every answer of its sealed test"
    command = add(subparsers, "prove", _prove, description)
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of `bundle`")
    command.add_argument(
        "--key", type=Path, metavar="FILE", help="public key (PEM) whose owner must have signed it"
    )
    command.add_argument(
        "--threads", type=whole(0), default=0, help="CPU threads for inference (default: all)"
    )


def _bundle(options: argparse.Namespace) -> int:
    from engineworks import sealed
    from engineworks.sealed import signing

    if options.new_key is not None:
        fingerprint = signing.new_key(options.new_key)
        lines = [
            f"{options.new_key} signs: keep it to yourself",
            f"{options.new_key}.pub proves: give it to those who run `engineworks prove --key`",
            f"fingerprint {fingerprint}",
        ]
        return answer(options, {"fingerprint": fingerprint}, "\n".join(lines))
    if not options.engine or options.output is None:
        raise ArtifactError(
            "a bundle needs an engine and a folder to write",
            hint="engineworks bundle ENGINE -o DIR, or engineworks bundle --new-key FILE",
        )
    place, _ = recall(options.engine)
    test = options.test if options.test is not None else _test_of(options.engine)
    statement = sealed.write_bundle(
        local_folder(place), test, options.output, key=options.key, signer=options.signer
    )
    signed = f"signed with {options.key}" if options.key else "not signed: --key FILE signs it"
    lines = [
        f"{options.output}: {statement.name} {statement.variant}, {signed}",
        f"  engine  {statement.engine}",
        f"  sealed  {statement.sealed}",
    ]
    return answer(options, to_json(statement), "\n".join(lines))


def _test_of(variant: str) -> Path:
    """The sealed test that the latest run has made of a variant.

    Raises:
        ArtifactError: There is none.
    """
    path = Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks") / "runs/latest/summary.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["variants"]
        uris = {row["name"]: (row.get("sealed") or {}).get("uri", "") for row in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        uris = {}
    if not uris.get(variant):
        raise ArtifactError(
            f"the latest run has no sealed test of {variant}",
            hint="give its folder with --test (sealed.uri in summary.json)",
        )
    return Path(uris[variant])


def _prove(options: argparse.Namespace) -> int:
    from engineworks import sealed

    proof = sealed.prove(options.bundle, key=options.key, threads=options.threads)
    answer(options, to_json(proof), "\n".join(_lines(proof)))
    return 0 if proof.holds else 1


def _lines(proof: BundleProof) -> list[str]:
    lines = []
    if proof.statement is not None:
        lines.append(f"{proof.statement.name} {proof.statement.variant}: {proof.words}")
    lines += [
        f"  {'ok  ' if check.holds else 'FAIL'}  {check.name}: {check.detail}"
        for check in proof.checks
    ]
    replay = proof.replay
    if replay is None:
        return lines
    lines.append(
        f"{replay.pictures} pictures ({replay.photos} photos) in {replay.elapsed_s:.1f} s; "
        "deviation and tolerance where they come closest:"
    )
    lines += [
        f"  {'ok  ' if row.holds else 'FAIL'}  {row.name:<24} {row.part:<8} {row.origin:<7}"
        + (
            f" {row.deviation:.3g} of {row.tolerance:.3g}"
            if row.deviation is not None and row.tolerance is not None
            else ""
        )
        + (f" ({row.where})" if row.where else "")
        for row in replay.expectations
    ]
    return [*lines, *(f"  {note}" for note in replay.notes)]
