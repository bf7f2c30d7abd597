"""The command line of `python -m flows.rollback`.

Exit codes: 0 an earlier version is live, with `--now` also for devices; 3 trouble, none to go back
to, or somebody else was quicker; 130 stopped.
"""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console
from rich.markup import escape

from engineworks import streams
from engineworks.errors import EngineworksError
from flows.commands.outcome import TOLD, WHO, Promotion
from flows.commands.promote import say
from flows.commands.terminal import add_options, following, guarded
from flows.commands.who import asking, user


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.rollback",
        description="Make the version live again that was live and good before. The one that is "
        "left is never gone back to: a second rollback goes further back.",
        epilog="Exit codes: 0 an earlier version is live, 3 trouble, none to go back to, or "
        "somebody else was quicker, 130 stopped.",
    )
    parser.add_argument("model", help="name of the registered model")
    parser.add_argument("--variant", default="", help="default: where there is only one")
    parser.add_argument("--to", default="", help="a version of its history")
    parser.add_argument("--why", default="", help="the reason, for the history")
    parser.add_argument(
        "--now", action="store_true",
        help="devices take it as soon as they hear of it, and do not watch it; no run in Prefect",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only say what would become of it")
    add_options(parser, json_is="a list of the one version")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    streams.tolerate()
    return guarded(_parser().parse_args(arguments), _rollback)


def _at_once(options: argparse.Namespace) -> int:
    """Devices first, without a run in Prefect and without MLflow, which both take seconds.

    MLflow is asked afterwards: a version that was withdrawn meanwhile makes way for the next one.
    """
    from flows.steps import deliver, promote

    repository = deliver.repository()  # else no device would hear of it
    with asking():
        variant = promote.only(options.model, options.variant)
        outcome = promote.back(
            options.model, variant, options.to, who=WHO.get(), why=options.why,
            dry_run=options.dry_run, asked=options.dry_run,
        )  # fmt: skip
    if outcome.outcome != "rolled back":
        return say(options, [outcome])
    try:
        told = deliver.repeat(repository, options.model, variant)
    except EngineworksError as error:
        told = f"not published for devices: {error.line}"
    say(options, [outcome])
    sys.stderr.write(f"{told}\n" * bool(told))
    lines = promote.shown(options.model)
    publications = deliver.publish(options.model, variant, dry_run=False, now=True)
    for line in [*lines, *deliver.said(publications)]:
        sys.stderr.write(f"{line}\n")
    deliver.notice_failures(publications)
    if "PREFECT_API_URL" in os.environ:
        from flows.fleet import events

        events.notice(
            events.ROLLED_BACK, model=outcome.model, variant=variant, version=outcome.version,
            what="rolled back now", reason=outcome.reason, who=user(),
        )  # fmt: skip
    return 3 if any(one.outcome == "failed" for one in publications) else 0


def _rollback(options: argparse.Namespace, console: Console) -> int:
    if options.now:
        return _at_once(options)
    from flows.rollback import rollback

    told: list[Promotion] = []
    TOLD.set(told)
    with asking(), following(options, console, f"[bold]rollback[/] {escape(options.model)}"):
        state = rollback(
            options.model,
            options.variant,
            options.to,
            options.why,
            dry_run=options.dry_run,
            return_state=True,
        )
    if not told and state.is_failed():
        state.result()  # raises what stopped it
    return say(options, told)
