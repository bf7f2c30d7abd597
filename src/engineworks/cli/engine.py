"""`inspect`: what an engine is, without running it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks import hosts
from engineworks.cli._words import add, answer, short
from engineworks.codec import to_json
from engineworks.errors import EngineworksError
from engineworks.manifest import Manifest
from engineworks.runtime.session import check_machine
from engineworks.store import verify

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    command = add(subparsers, "inspect", _inspect, "an engine's manifest, its bytes verified")
    command.add_argument("folder", type=Path, help="folder with manifest.json")


def _inspect(options: argparse.Namespace) -> int:
    manifest = verify(options.folder)
    here = _opens_here(manifest)
    lines = [
        f"{manifest.kind} {manifest.name} {manifest.target}/{manifest.precision}".rstrip("/ "),
        f"  sha256   {manifest.sha256} (bytes verified)",
        f"  size     {manifest.size_bytes / 2**20:.2f} MiB in {len(manifest.files)} files",
        *(f"  input    {t.name} {t.dtype} {list(t.shape)}" for t in manifest.inputs),
        *(f"  output   {t.name} {t.dtype} {list(t.shape)}" for t in manifest.outputs),
    ]
    if manifest.preprocess is not None:
        lines.append(f"  images   {short(to_json(manifest.preprocess))}")
    if manifest.requires is not None:
        lines.append(f"  needs    {short(to_json(manifest.requires))}")
        lines.append(f"  here     {here}")
    lines.append(f"  made by  {short(manifest.provenance.tools)}")
    data = {**to_json(manifest), "sha256": manifest.sha256, "here": here}
    return answer(options, data, "\n".join(lines))


def _opens_here(manifest: Manifest) -> str:
    if manifest.requires is None:
        return "is no engine"
    card = hosts.probe()
    try:
        check_machine(manifest, arch=card.arch, cpu_flags=card.cpu_flags)
    except EngineworksError as error:
        return error.message
    return "opens on this machine"
