"""The command line of `python -m flows.promote`.

Exit codes: 0 every version passed; 1 a gate says no; 3 trouble, or somebody else was quicker;
4 a gate cannot be answered yet; 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engineworks import streams
from engineworks.codec import to_json
from engineworks.promotion.gates import ACCEPTABLE
from flows.commands.outcome import TOLD, Promotion
from flows.commands.terminal import add_options, following, guarded
from flows.commands.who import asking

COLOURS = {"promoted": "green", "rolled back": "green", "passes": "green", "pending": "cyan"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.promote",
        description="Hold a registered version against the champion of its variant, and put it in "
        "its place when every gate opens. Nothing is delivered to devices.",
        epilog="Exit codes: 0 every version passed, 1 a gate says no, 3 trouble or somebody else "
        "was quicker, 4 a gate cannot be answered yet, 130 stopped.",
    )
    parser.add_argument("model", help="name of the registered model")
    parser.add_argument("--variant", default="", help="default: all that have a candidate")
    parser.add_argument("--version", default="", help="default: the candidate")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=ACCEPTABLE,
        help="take upon yourself what cannot be told or differs; may be given several times",
    )
    for name, default, meaning in (
        ("--max-drop", 0.01, "largest loss of the metric against the champion"),
        ("--slower-than", 1.1, "largest p50 / the champion's p50, on one machine"),
        ("--max-age-days", 30.0, "largest age of the run that judged the version"),
    ):
        parser.add_argument(
            name, type=float, default=default, help=f"{meaning} (default: {default:g})"
        )
    parser.add_argument(
        "--shadow",
        action="append",
        default=[],
        metavar="JSON",
        help="record of `engineworks shadow` that must speak for it, too; may be given several "
        "times, for several variants",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would become of it")
    add_options(parser, json_is="a list of the versions with their gates")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _promote)


def _promote(options: argparse.Namespace, console: Console) -> int:
    from engineworks.promotion.gates import Limits
    from engineworks.shadow import record as shadow_record
    from flows.promote import promote

    # Refused before Prefect is started.
    Limits(
        max_drop=options.max_drop, slower_than=options.slower_than,
        max_age_days=options.max_age_days,
    )  # fmt: skip
    for path in options.shadow:
        shadow_record.read(Path(path))
    told: list[Promotion] = []
    TOLD.set(told)
    with asking(), following(options, console, f"[bold]promote[/] {escape(options.model)}"):
        state = promote(
            options.model,
            options.variant,
            options.version,
            tuple(options.accept),
            max_drop=options.max_drop,
            slower_than=options.slower_than,
            max_age_days=options.max_age_days,
            dry_run=options.dry_run,
            shadow=tuple(options.shadow),
            return_state=True,
        )
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    return say(options, told)


def say(options: argparse.Namespace, told: list[Promotion]) -> int:
    """Print what became of versions; the exit code that says it."""
    if options.json:
        sys.stdout.write(json.dumps(to_json(told), indent=1) + "\n")
    else:
        _show(told)
    outcomes = {promotion.outcome for promotion in told}
    for outcome, code in (("refused", 1), ("failed", 3), ("overtaken", 3), ("pending", 4)):
        if outcome in outcomes:
            return code
    return 0


def _show(told: list[Promotion]) -> None:
    out = Console() if sys.stdout.isatty() else Console(width=120)
    for promotion in told:
        if promotion.gates:
            table = Table("gate", "outcome", box=None)
            table.add_column("number", justify="right")
            table.add_column("limit", justify="right")
            table.add_column("reason")
            for gate in promotion.gates:
                figures = (gate.number, gate.threshold)
                cells = ["-" if figure is None else f"{figure:.4g}" for figure in figures]
                word = gate.outcome + ", accepted" * gate.accepted
                colour = {"passed": "green", "failed": "red"}.get(gate.outcome, "cyan")
                table.add_row(
                    gate.name, f"[{colour}]{word}[/]", *cells, escape(gate.reason)
                )  # fmt: skip
            out.print(table)
        colour = COLOURS.get(
            promotion.outcome, "dim" if promotion.outcome == "unchanged" else "red"
        )
        line = escape(f"{promotion.model}: {promotion.variant}: version {promotion.version}: ")
        out.print(
            f"{line}[{colour}]{promotion.outcome}[/], {escape(promotion.reason)}.", highlight=False,
            soft_wrap=True,
        )  # fmt: skip
