"""`targets`, `host`, `hosts`, `schema`: what this installation, and its fleet, can build."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import hosts, targets
from engineworks.cli._words import add, answer, short
from engineworks.codec import to_json
from engineworks.errors import MissingDependency

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    command = add(
        subparsers, "targets", _targets, "what can be built, and whether this machine can"
    )
    command.add_argument("target", nargs="?", help="only this one, with its options")
    add(subparsers, "host", _host, "this machine's host card")
    command = add(subparsers, "hosts", _hosts, "the machines of the fleet (in a checkout)")
    command.add_argument("--forget", metavar="NAME", help="remove a machine that is gone for good")
    command = add(
        subparsers, "prune", _prune, "what runs have left that nothing needs (in a checkout)"
    )
    command.add_argument("--apply", action="store_true", help="remove it")
    command.add_argument("--last", metavar="N", help="runs kept of every model (default: 20)")
    command.add_argument("--days", metavar="N", help="least age in the bucket (default: 30)")
    command.add_argument("--versions", metavar="N", help="of histories to go back to (default: 10)")
    command.add_argument(
        "--same-registry", metavar="URI", action="append", default=[],
        help="another address of the registry that is asked, which summaries name",
    )  # fmt: skip
    command.add_argument("--only", metavar="PLACE", nargs="+", help="home, bucket, mlflow, prefect")
    add(subparsers, "schema", _schema, "JSON Schema of a recipe, for editors")


def _targets(options: argparse.Namespace) -> int:
    card = hosts.probe()
    names = [options.target] if options.target else targets.names()
    rows: list[dict[str, Any]] = []
    for name in names:
        target = targets.load(name)
        rows.append(
            {
                "target": name,
                "title": target.title,
                "precisions": list(target.precisions),
                "options": dict(target.options),
                "missing": target.missing_requirements(card),
            }
        )
    lines = []
    for row in rows:
        state = row["missing"] or "can be built here"
        lines.append(f"{row['target']:<20} {', '.join(row['precisions']):<23} {state}")
        if options.target:
            lines.append(f"  {row['title']}")
            lines += [f"  options.{key}: {text}" for key, text in row["options"].items()]
    return answer(options, rows, "\n".join(lines))


def _host(options: argparse.Namespace) -> int:
    card = to_json(hosts.probe())
    return answer(options, card, "\n".join(f"{key:<12}{short(card[key])}" for key in card))


def _schema(options: argparse.Namespace) -> int:
    from engineworks.recipe import json_schema

    schema = json_schema()
    return answer(options, schema, json.dumps(schema, indent=1))


def _hosts(options: argparse.Namespace) -> int:
    arguments = ["--forget", options.forget] if options.forget else []
    return _of_the_flows("hosts", options, arguments)


def _prune(options: argparse.Namespace) -> int:
    arguments = ["--apply"] if options.apply else []
    for uri in options.same_registry:
        arguments += ["--same-registry", uri]
    for name in ("last", "days", "versions"):
        if getattr(options, name) is not None:
            arguments += [f"--{name}", getattr(options, name)]
    arguments += ["--only", *options.only] if options.only else []
    return _of_the_flows("prune", options, arguments)


def _of_the_flows(name: str, options: argparse.Namespace, arguments: list[str]) -> int:
    """Run a command of the flows, which are in a checkout and in no wheel."""
    places = (Path.cwd(), Path(__file__).resolve().parents[3])
    file = Path("flows", f"{name}.py")
    checkout = next((place for place in places if (place / file).is_file()), None)
    if checkout is None:
        raise MissingDependency(
            f"`engineworks {name}` belongs to the flows, which are not installed with the library",
            hint="run it at the top of a checkout",
        )
    arguments += ["--json"] if options.json else []
    environment = dict(os.environ)
    # The state folder is that of the place where the command was given.
    environment["ENGINEWORKS_HOME"] = str(
        Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks").absolute()
    )
    command = [sys.executable, "-m", f"flows.{name}", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment).returncode
