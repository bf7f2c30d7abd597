"""The command line of `python -m flows.complete`.

Exit codes: 0 nothing waits any more; 1 a required variant is there now and does not ship; 3 this
machine cannot do it; 4 something still waits; 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.markup import escape

from engineworks import streams
from engineworks.codec import to_json
from flows.commands.outcome import TOLD, Completion
from flows.commands.terminal import add_options, following, guarded


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.complete",
        description="Complete what `flows.ship --fleet` left pending, for the machines that are "
        "there now. Needs no recipe and no photos: all of it comes from the store.",
        epilog="Exit codes: 0 nothing waits any more, 1 a required variant is there now and does "
        "not ship, 3 trouble on this machine, 4 something still waits, 130 stopped.",
    )
    parser.add_argument("--model", default="", help="name of one model (default: all that wait)")
    add_options(parser, json_is="what became of each model")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _complete)


def _complete(options: argparse.Namespace, console: Console) -> int:
    from artifacts import summary as summaries
    from flows.commands.ship import show
    from flows.complete import complete
    from flows.fleet import elsewhere
    from tasks import _run

    elsewhere.shared(_run.open_home_store())  # said at once, before Prefect is started
    told: list[Completion] = []
    TOLD.set(told)
    with following(options, console, "[bold]complete[/]") as finished:
        state = complete(options.model, return_state=True)
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    if options.json:
        sys.stdout.write(json.dumps(to_json(told), indent=1) + "\n")
    else:
        for folder in finished:
            show(summaries.read(folder / "summary.json"), folder)
        _say(told)
    if any(run.outcome == "failed" for run in told):
        return 3
    if any(run.missed for run in told):
        return 1
    return 4 if any(run.outcome != "completed" for run in told) else 0


def _say(told: list[Completion]) -> None:
    out = Console() if sys.stdout.isatty() else Console(width=120)
    for run in told:
        line = f"{run.model}: {run.outcome}, {run.reason}"
        out.print(escape(line), highlight=False, soft_wrap=True)
    if not told:
        out.print("nothing waits for a machine", highlight=False)
