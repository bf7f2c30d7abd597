"""The command line of `python -m flows.prune`, which `engineworks prune` starts.

Exit codes: 0 said or removed, 3 something cannot be asked, 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from engineworks.codec import to_json
from flows.commands.terminal import add_options, guarded

PLACES = ("home", "bucket", "mlflow", "prefect")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engineworks prune",
        description="Say what runs have left behind that nothing needs any more, with its size; "
        "--apply removes it. Kept: what a registered version needs, what waits for a machine, what "
        "a living run uses, the last runs of every model, and all that these were made of.",
        epilog="Exit codes: 0 said or removed, 3 MLflow or the store cannot be asked, 130 stopped.",
    )
    parser.add_argument("--apply", action="store_true", help="remove it")
    parser.add_argument(
        "--last", type=_count, default=20, help="runs kept of every model (default: 20)"
    )
    parser.add_argument(
        "--days",
        type=_days,
        default=30.0,
        help="what the bucket and Prefect keep at least, by its last use (default: 30)",
    )
    parser.add_argument(
        "--versions",
        type=_count,
        default=10,
        help="versions of every variant's history that can be gone back to (default: 10)",
    )
    parser.add_argument(
        "--same-registry", metavar="URI", action="append", default=[],
        help="another address of the registry that is asked, which summaries name",
    )  # fmt: skip
    parser.add_argument("--only", choices=PLACES, nargs="+", default=PLACES, help="look only there")
    add_options(parser, json_is="a list of what goes")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _days(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 36500:
        raise argparse.ArgumentTypeError(f"{text} is no number of days from 1 on")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    return guarded(_parser().parse_args(arguments), _prune)


def _prune(options: argparse.Namespace, console: Console) -> int:
    from flows.steps.prune import Keep, plan, take, words

    keep = Keep(
        last=options.last,
        days=options.days,
        versions=options.versions,
        same_registry=tuple(options.same_registry),
    )
    removal = plan(keep, tuple(options.only))
    items = take(keep, removal) if options.apply else removal.all
    if options.json:
        sys.stdout.write(json.dumps(to_json(items), indent=1) + "\n")
        return 0
    for line in words(items) or ["nothing"]:
        sys.stdout.write(f"{line}\n")
    if items and not options.apply:
        sys.stdout.write("Nothing was removed: `engineworks prune --apply` does.\n")
    return 0
