"""The command line of `python -m flows.history`.

Exit codes: 0 every entry fits; 1 the history is not whole; 3 trouble; 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engineworks import streams
from engineworks.codec import to_json
from flows.commands.outcome import TOLD, History
from flows.commands.terminal import add_options, following, guarded


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.history",
        description="Who made which version live, when and why. Every entry is held against the "
        "next and against what MLflow has seen.",
        epilog="Exit codes: 0 every entry fits, 1 the history is not whole, 3 trouble, 130 "
        "stopped.",
    )
    parser.add_argument("model", nargs="?", default="", help="a registered model (default: all)")
    parser.add_argument("--variant", default="", help="default: all")
    parser.add_argument(
        "--repair", action="store_true", help="make MLflow's aliases say what the history says"
    )
    add_options(parser, json_is="the moves with their gates")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _history)


def _history(options: argparse.Namespace, console: Console) -> int:
    from flows.history import history

    told: list[History] = []
    TOLD.set(told)
    with following(options, console, f"[bold]history[/] {escape(options.model)}"):
        state = history(options.model, options.variant, options.repair, return_state=True)
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    if options.json:
        sys.stdout.write(json.dumps(to_json(told), indent=1) + "\n")
    else:
        _show(told)
    return 1 if any(record.broken for record in told) else 0


def _show(told: list[History]) -> None:
    out = Console() if sys.stdout.isatty() else Console(width=120)
    for record in told:
        where = f"champion {record.champion or 'none'}, previous {record.previous or 'none'}"
        out.print(f"[bold]{escape(record.variant)}[/]: {escape(where)}", highlight=False)
        table = Table("", "at", "who", "what", "from", "to", "why", box=None)
        for move in record.moves:
            cells = (str(move.number), move.at, move.who, move.what, move.old or "-")
            table.add_row(*map(escape, (*cells, move.new or "-", move.why)))
        if record.moves:
            out.print(table)
        for version, reason in record.lost.items():
            out.print(escape(f"version {version} is no longer restorable: {reason}"))
        if record.broken:
            out.print(
                f"[red]not whole[/]: {escape(record.broken)}", highlight=False, soft_wrap=True
            )
