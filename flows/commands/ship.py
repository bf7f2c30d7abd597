"""The command line of `python -m flows.ship`: sets the state folder up, shows progress, exits.

Exit codes: 0 every required variant is shipped, and so are its packages; 1 the run ended and one is
not; 2 recipe, model or data cannot be used; 3 this machine cannot do it (disk, missing package,
crash); 4 one is pending, waiting for another machine or for the server of its proof; 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engineworks import streams
from engineworks.codec import to_json
from engineworks.errors import RecipeError
from engineworks.recipe.overrides import BudgetOverrides, Overrides
from flows.commands.terminal import add_options, following, guarded

COLOURS = {"shipped": "green", "rejected": "yellow", "failed": "red", "pending": "cyan"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.ship",
        description="Ship one trained model: export it, build it for every target of the recipe, "
        "check, time, judge and register each.",
        epilog="Finished stages are kept: after a stop or a change the same command runs only "
        "what is missing. Exit codes: 0 shipped, 1 a required variant or package is not, 2 bad "
        "recipe, model or data, 3 trouble on this machine, 4 one waits for another machine or, a "
        "package, for a server, 130 stopped.",
    )
    parser.add_argument(
        "recipe",
        help="recipe file, for example examples/yolox_nano/recipe.yaml; or - for its text on "
        "standard input, s3://bucket/folder/recipe.yaml, "
        "git+https://host/repository@COMMIT#folder/recipe.yaml",
    )
    for name, words in (
        ("target", "only this target of the recipe, or one that it lacks; may be repeated"),
        ("precision", "this precision of every target, not the recipe's; may be repeated"),
        ("budget", "a limit in the place of the recipe's, KEY=NUMBER, for example max_drop=0.02"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], help=words)
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would run here, and what not and why"
    )
    parser.add_argument(
        "--fleet",
        action="store_true",
        help="build every variant on a registered machine that can, not here (docs/fleet.md)",
    )
    add_options(parser, json_is="summary.json")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _run)


def _run(options: argparse.Namespace, console: Console) -> int:
    if options.recipe == "-":
        options.recipe = sys.stdin.read() + "\n# from standard input"
    overrides = overrides_of(options)
    return _dry_run(options, overrides) if options.dry_run else _ship(options, overrides, console)


def overrides_of(options: argparse.Namespace) -> Overrides:
    """What --target, --precision and --budget change.

    Raises:
        RecipeError: A budget that is no KEY=NUMBER, or no key of a budget.
    """
    limits = dict(text.partition("=")[::2] for text in options.budget)
    try:
        return Overrides(
            targets=tuple(options.target), precisions=tuple(options.precision),
            budget=BudgetOverrides.model_validate(limits),
        )  # fmt: skip
    except ValidationError as error:
        wrong = error.errors()[0]
        raise RecipeError(
            f"--budget {wrong['loc'][0]}={limits.get(str(wrong['loc'][0]), '')}: {wrong['msg']}",
            hint=f"give KEY=NUMBER; keys: {', '.join(BudgetOverrides.model_fields)}",
        ) from None


def _dry_run(options: argparse.Namespace, overrides: Overrides) -> int:
    from flows.ship import preflight

    _, planned = preflight(options.recipe, fleet=options.fleet, overrides=overrides)
    plan = to_json(planned)
    if options.json:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
        return 0
    table = Table("variant", "plan", "where", "because", box=None)
    for variant in planned.variants:
        where = variant.host or (variant.pool if options.fleet else "here")
        reason = variant.reason or "all it needs is there"
        table.add_row(variant.name, variant.action, where, escape(reason))
    Console().print(table)
    return 0


def _ship(options: argparse.Namespace, overrides: Overrides, console: Console) -> int:
    from artifacts import summary as summaries
    from flows.ship import preflight, ship
    from flows.steps.recipe_from import title

    preflight(options.recipe, fleet=options.fleet, overrides=overrides)
    with following(options, console, f"[bold]ship[/] {escape(title(options.recipe))}") as finished:
        state = ship(options.recipe, options.fleet, overrides, return_state=True)
    if not finished:
        state.result()  # raises what stopped the run
        raise RuntimeError("the flow ended without a summary")
    latest = finished[0]
    summary = summaries.read(latest / "summary.json")
    if options.json:
        sys.stdout.write(json.dumps(to_json(summary), indent=1) + "\n")
    else:
        show(summary, latest)
        if options.fleet and summary.pending:
            with contextlib.suppress(Exception):  # the run has ended, whoever is away now
                sys.stdout.write(_later(summary.name))
    if summary.missed or summary.failed_packages:
        return 1
    return 4 if summary.waiting or summary.waiting_packages else 0


def _later(name: str) -> str:
    """How what is pending will be completed, as far as that is true here; may be nothing."""
    from artifacts import fleet
    from flows.fleet import elsewhere, trigger
    from tasks import _run

    if name not in fleet.waiting(elsewhere.shared(_run.open_home_store()).bucket):
        return ""  # it was built, and no machine that could open it is missed
    by_hand = f"`python -m flows.complete --model {name}` when a machine for it is back"
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return f"What is pending waits for {by_hand}, on this machine: its MLflow is here.\n"
    if reason := trigger.obstacle():
        return f"What is pending waits for {by_hand}. It would happen by itself, but {reason}.\n"
    return "What is pending is completed by itself when a machine for it is back.\n"


def show(summary: Any, folder: Path) -> None:
    """The table of variants, what a reader must know of it, and where its files are."""
    from artifacts import table

    out = Console() if sys.stdout.isatty() else Console(width=120)
    shown = Table(title=f"{summary.name} on {summary.host.cpu}", title_justify="left")
    for heading in table.HEADINGS:
        right = heading in ("drop", "p50 ms", "images/s", "MiB")
        shown.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row, variant in zip(table.rows(summary), summary.variants, strict=True):
        colour = COLOURS.get(variant.verdict, "dim")
        cells = [escape(cell) for cell in row]
        cells[1] = f"[{colour}]{cells[1]}[/]"
        shown.add_row(*cells)
    out.print(shown)
    for note in table.footnotes(summary):
        out.print(escape(note), highlight=False, soft_wrap=True)
    cached = sum(timing.cached for timing in summary.stages)
    out.print(
        f"{len(summary.stages) - cached} stages ran, {cached} came from the cache; "
        f"{summary.wall_s:.1f} s, of which {summary.overhead_s:.1f} s outside stages.",
        highlight=False,
    )
    best = next((v for v in summary.variants if v.recommended and v.engine is not None), None)
    if best is not None:
        out.print(f"engine       {best.engine.uri}", highlight=False, soft_wrap=True)
    for name in ("report.html", "summary.json"):
        if (folder / name).exists():
            out.print(f"{name:<13}{folder / name}", highlight=False, soft_wrap=True)
