"""The command line of `python -m flows.poll`.

Exit codes: 0 a run is under way, or an answer there, for each request; 3 trouble; 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from engineworks import streams
from engineworks.codec import to_json
from flows.commands.outcome import TOLD
from flows.commands.terminal import add_options, following, guarded

if TYPE_CHECKING:
    from flows.steps.requests import Started


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.poll",
        description="Start what people have asked for in MLflow, by the tag `engineworks.request` "
        "of a version: promote, or ship RECIPE.",
        epilog="Exit codes: 0 a run is under way, or an answer there, for each request, 3 trouble, "
        "130 stopped.",
    )
    parser.add_argument("--model", default="", help="one registered model (default: all)")
    add_options(parser, json_is="a list of the requests")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _poll)


def _poll(options: argparse.Namespace, console: Console) -> int:
    from flows.poll import poll

    told: list[Started] = []
    TOLD.set(told)
    with following(options, console, "[bold]poll[/]"):
        state = poll(options.model, return_state=True)
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    if options.json:
        sys.stdout.write(json.dumps(to_json(told), indent=1) + "\n")
    for one in () if options.json else told:
        sys.stdout.write(
            f"{one.model} version {one.version}: {one.text}: {one.outcome}, {one.reason}\n"
        )
    return 3 if any(one.outcome == "failed" for one in told) else 0
