"""The command line of `python -m flows.benchmark`.

Exit codes: 0 nothing has become slower, or nothing is promoted; 1 something has; 3 this machine
cannot do it, or a version could not be timed; 4 one waits for its machine; 130 stopped.
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
from flows.commands.outcome import TOLD, TimedVersion
from flows.commands.terminal import add_options, following, guarded

COLOURS = {"steady": "green", "slower": "red", "failed": "red", "pending": "cyan"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.benchmark",
        description="Time what was promoted again, each version on the machine that it was built "
        "on, and hold it against its registration. The latencies become a series in MLflow.",
        epilog="Exit codes: 0 nothing has become slower, or nothing is promoted, 1 something "
        "has, 3 trouble, 4 one waits for its machine, 130 stopped.",
    )
    parser.add_argument("--model", default="", help="one registered model (default: all)")
    parser.add_argument(
        "--stage",
        choices=["champion", "candidate", "production"],
        default="champion",
        help="which alias a version must have (default: champion; production: the same)",
    )
    parser.add_argument(
        "--slower-than",
        type=float,
        default=1.15,
        metavar="RATIO",
        help="largest p50 now / p50 when registered that is no alarm (default: 1.15)",
    )
    add_options(parser, json_is="a list of the versions")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.slower_than <= 0:
        parser.error(f"--slower-than {options.slower_than:g} must be above 0, for example 1.15")
    return guarded(options, _benchmark)


def _benchmark(options: argparse.Namespace, console: Console) -> int:
    from flows.benchmark import benchmark

    told: list[TimedVersion] = []
    TOLD.set(told)
    with following(options, console, f"[bold]benchmark[/] {options.stage}"):
        state = benchmark(options.model, options.stage, options.slower_than, return_state=True)
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    if options.json:
        sys.stdout.write(json.dumps(to_json(told), indent=1) + "\n")
    else:
        _show(told, state.message or "")
    outcomes = {version.outcome for version in told}
    for outcome, code in (("slower", 1), ("failed", 3), ("pending", 4)):
        if outcome in outcomes:
            return code
    return 0


def _show(told: list[TimedVersion], message: str) -> None:
    out = Console() if sys.stdout.isatty() else Console(width=120)
    if not told:
        out.print(escape(message), highlight=False, soft_wrap=True)
        return
    table = Table("model", "version", "variant", "machine", box=None)
    for heading in ("before ms", "p50 ms", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("outcome")
    for version in told:
        figures = (version.before_ms, version.p50_ms, version.ratio)
        cells = [version.model, version.version, version.variant, version.machine]
        cells += ["-" if figure is None else f"{figure:.3g}" for figure in figures]
        colour = COLOURS.get(version.outcome, "dim")
        table.add_row(*map(escape, cells), f"[{colour}]{version.outcome}[/]")
    out.print(table)
    for version in told:
        line = f"{version.model}: {version.variant}: {version.outcome}, {version.reason}."
        out.print(escape(line), highlight=False, soft_wrap=True)
