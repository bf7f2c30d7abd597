"""The command line of `python -m flows.deliver`.

Exit codes: 0 what is live is published; 3 trouble; 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from rich.console import Console
from rich.markup import escape

from artifacts.promotion.publishing import Publication
from engineworks import streams
from engineworks.codec import to_json
from flows.commands.outcome import TOLD
from flows.commands.terminal import add_options, following, guarded
from flows.steps.deliver import KEYS, REPOSITORY


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.deliver",
        description="Sign and publish what is live of a model, for devices that ask.",
        epilog="Exit codes: 0 it is published, 3 trouble, 130 stopped.",
    )
    parser.add_argument("model", help="name of the registered model")
    parser.add_argument("--variant", default="", help="default: all")
    parser.add_argument("--repository", default="", metavar="DIR", help=f"default: {REPOSITORY}")
    parser.add_argument(
        "--keys", action="append", default=[], metavar="DIR",
        help=f"may be given several times (default: {KEYS})",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only say what would be published")
    add_options(parser, json_is="a list of the variants")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _deliver)


def _deliver(options: argparse.Namespace, console: Console) -> int:
    if options.repository:
        os.environ[REPOSITORY] = options.repository
    if options.keys:
        os.environ[KEYS] = os.pathsep.join(options.keys)
    from flows.deliver import deliver

    told: list[Publication] = []
    TOLD.set(told)
    with following(options, console, f"[bold]deliver[/] {escape(options.model)}"):
        state = deliver(options.model, options.variant, dry_run=options.dry_run, return_state=True)
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    return say(options, told)


def say(options: argparse.Namespace, told: list[Publication]) -> int:
    """Print what became of variants; the exit code that says it."""
    if options.json:
        sys.stdout.write(json.dumps(to_json(told), indent=1) + "\n")
    for item in () if options.json else told:
        sys.stdout.write(
            f"{item.model}: {item.variant}: version {item.version or '-'}: {item.outcome}, "
            f"{item.reason}\n"
        )
    return 3 if any(item.outcome == "failed" for item in told) else 0
