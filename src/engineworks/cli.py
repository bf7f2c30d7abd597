"""The command `engineworks`: looks at targets, this host, engines and the recipe format.

Knows the library only; whole runs are started by `python -m flows.ship` in a checkout. Needs
nothing beyond numpy, but for `schema`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engineworks import __version__, hosts, targets
from engineworks.codec import to_json
from engineworks.errors import EngineworksError
from engineworks.manifest import Manifest
from engineworks.runtime.session import check_machine
from engineworks.store import verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 a refusal with its reason on stderr."""
    options = _parser().parse_args(arguments)
    try:
        data, text = options.run(options)
    except EngineworksError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.message}\n  next: {error.hint}\n")
        return 2
    try:
        sys.stdout.write((json.dumps(data, indent=1) if options.json else text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: nothing to flush
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engineworks",
        description="Looks at targets, this machine, engines and the recipe format.",
        epilog="Ship a model with: python -m flows.ship RECIPE (in a checkout).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, help_text in (
        ("targets", _targets, "what can be built, and whether this machine can"),
        ("host", _host, "this machine's host card"),
        ("inspect", _inspect, "an engine's manifest, its bytes verified"),
        ("schema", _schema, "JSON Schema of a recipe, for editors"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)
        if name == "targets":
            command.add_argument("target", nargs="?", help="only this one, with its options")
        if name == "inspect":
            command.add_argument("folder", type=Path, help="folder with manifest.json")
    return parser


def _targets(options: argparse.Namespace) -> tuple[Any, str]:
    card = hosts.probe()
    names = [options.target] if options.target else targets.names()
    rows: list[dict[str, Any]] = []
    for name in names:
        target = targets.load(name)
        rows.append(
            {
                "target": name,
                "title": target.TITLE,
                "precisions": list(target.PRECISIONS),
                "options": target.OPTIONS,
                "missing": target.missing(card),
            }
        )
    lines = []
    for row in rows:
        state = row["missing"] or "can be built here"
        lines.append(f"{row['target']:<20} {', '.join(row['precisions']):<14} {state}")
        if options.target:
            lines.append(f"  {row['title']}")
            lines += [f"  options.{key}: {text}" for key, text in row["options"].items()]
    return rows, "\n".join(lines)


def _host(options: argparse.Namespace) -> tuple[Any, str]:
    card = to_json(hosts.probe())
    return card, "\n".join(f"{key:<12}{_short(value)}" for key, value in card.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


def _inspect(options: argparse.Namespace) -> tuple[Any, str]:
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
        lines.append(f"  images   {_short(to_json(manifest.preprocess))}")
    if manifest.requires is not None:
        lines.append(f"  needs    {_short(to_json(manifest.requires))}")
        lines.append(f"  here     {here}")
    lines.append(f"  made by  {_short(manifest.provenance.tools)}")
    return {**to_json(manifest), "sha256": manifest.sha256, "here": here}, "\n".join(lines)


def _opens_here(manifest: Manifest) -> str:
    if manifest.requires is None:
        return "is no engine"
    card = hosts.probe()
    try:
        check_machine(manifest, arch=card.arch, cpu_flags=card.cpu_flags)
    except EngineworksError as error:
        return error.message
    return "opens on this machine"


def _schema(options: argparse.Namespace) -> tuple[Any, str]:
    from engineworks.recipe import json_schema

    schema = json_schema()
    return schema, json.dumps(schema, indent=1)


if __name__ == "__main__":
    raise SystemExit(main())
