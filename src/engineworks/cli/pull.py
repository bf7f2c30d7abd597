"""`pull`: an engine from the registry or a bucket into a folder, verified."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks import store
from engineworks.cli._words import add, answer

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    description = "fetch a registered engine into a folder, its identity verified"
    command = add(subparsers, "pull", _pull, description)
    command.add_argument(
        "name",
        metavar="NAME",
        help="NAME@ALIAS or NAME/VERSION in MLflow (MLFLOW_TRACKING_URI), models:/..., or "
        "s3://bucket/folder",
    )
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write"
    )
    command.add_argument("--sha256", default="", metavar="HEX", help="identity it must have")


def _pull(options: argparse.Namespace) -> int:
    from engineworks.runtime import registered

    address = options.name
    if not registered.is_address(address):
        address = f"{registered.SCHEME}{address}"
    folder = registered.fetch(address, options.sha256.strip().lower(), options.output.absolute())
    manifest = store.verify(folder, options.sha256.strip().lower())
    lines = [
        f"{options.output}: {manifest.name} {manifest.target}/{manifest.precision}, "
        f"{manifest.size_bytes} bytes, verified",
        f"  sha256  {manifest.sha256}",
    ]
    data = {"folder": str(folder), "sha256": manifest.sha256, "name": manifest.name}
    return answer(options, data, "\n".join(lines))
